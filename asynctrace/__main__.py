"""`python -m asynctrace`: the command line, for when the script is not on the path."""

import sys

from asynctrace.cli import main

if __name__ == "__main__":
    sys.exit(main())
