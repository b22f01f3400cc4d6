"""`python -m genie.cli` is `genie`."""

import sys

from genie.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
