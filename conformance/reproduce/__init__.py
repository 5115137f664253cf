"""A variant as one shell script of the kind that is posted to a mailing list."""

from conformance.reproduce.script import script
from conformance.reproduce.shortage import Inexpressible

__all__ = ["Inexpressible", "script"]
