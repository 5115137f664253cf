"""Servers of the suite's own behind a block device: what they hold, and how they behave when full."""
