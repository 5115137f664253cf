"""What submits I/O to a rig, and what reads it back."""
