"""``python -m conformance``: the command line."""

import sys

from conformance.cli import main

if __name__ == "__main__":  # worker processes import this module again
    sys.exit(main())
