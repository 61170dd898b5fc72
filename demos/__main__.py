"""`python3 -m demos`: makes or finds the environment, then hands over to the launcher."""

import sys

from demos.bootstrap import ensure

if __name__ == "__main__":
    try:
        argv = ensure("all", "demos", sys.argv[1:])
        from demos.launcher import main

        code = main(argv)
    except KeyboardInterrupt:  # while all of it was being loaded
        code = 130
    sys.exit(code)
