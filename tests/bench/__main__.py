"""Makes or finds the environment, as `python3 -m tests` does, then measures in it."""

import sys

from demos.bootstrap import ensure


def main() -> int:
    """The exit code is 0 when every row was measured."""
    if {"-h", "--help"} & set(sys.argv[1:]) and sys.version_info >= (3, 10):
        argv = sys.argv[1:]  # needs no environment
    else:
        argv = ensure("bench", "tests.bench", sys.argv[1:])
    from tests.bench.command import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
