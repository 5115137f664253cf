"""A conformance suite for what Linux block devices answer when storage runs short."""
