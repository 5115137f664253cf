"""The oracle: what an observation says about a variant. Pure, total, and closed to the outside
world.

It imports the model and nothing else of the suite, and does no I/O: an old record is judged again
by the same function that judged it first.
"""

from conformance.oracle.judge import judge

__all__ = ["judge"]
