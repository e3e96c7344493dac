"""`python -m pidfdpool`: see `pidfdpool.cli`."""

import sys

from pidfdpool.cli import main

# The guard matters: a worker may import the host's main module again, under another name.
if __name__ == "__main__":
    sys.exit(main())
