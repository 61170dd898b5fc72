"""`python3 -m demos`: makes or finds the environment, then hands over to the launcher."""

import sys

from demos.bootstrap import ensure

if __name__ == "__main__":
    argv = ensure("all", "demos", sys.argv[1:])
    from demos.launcher import main

    sys.exit(main(argv))
