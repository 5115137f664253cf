"""The commands of ``conform``, by what they are about. Each module has the click commands of its subject."""
