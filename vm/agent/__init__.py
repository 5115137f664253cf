"""The guest's program: builds rigs, submits I/O, watches the kernel, and reports facts.

Runs on the standard library alone. It has no opinion: nothing here says what a result means.
"""
