"""`python3 -m tests [ARGUMENTS OF PYTEST]`: makes or finds the environment, then runs the suite in it.

`--python 3.12` runs it on another interpreter; `--lint` runs the linters and the type checker instead; `--coverage`
measures meanwhile which of the core's branches it takes, and fails below what pyproject.toml asks for.
"""

import os
import subprocess
import sys

from demos.bootstrap import ensure

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - old Pythons read this
LINTERS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])


def lint() -> int:
    """Runs every linter, also after one that complains; 1 when any did."""
    codes = []
    for linter in LINTERS:
        print("$", *linter, flush=True)
        codes.append(subprocess.call([sys.executable, "-m"] + linter, cwd=ROOT))  # noqa: RUF005
    return int(any(codes))


def measured(argv: "list[str]") -> int:
    """Runs the tests and reports what of the core they took, in processes of their own, too; the worst exit code."""
    steps = (["erase"], ["run", "-m", "pytest"] + argv, ["combine", "-q"], ["report"])  # noqa: RUF005
    return max(subprocess.call([sys.executable, "-m", "coverage"] + step, cwd=ROOT) for step in steps)  # noqa: RUF005


def main() -> int:
    """Lints or tests; the exit code is theirs."""
    argv = ensure("test", "tests", sys.argv[1:])
    os.chdir(ROOT)
    if argv[:1] == ["--lint"]:
        return lint()
    if argv[:1] == ["--coverage"]:
        return measured(argv[1:])
    import pytest

    return int(pytest.main(argv))


if __name__ == "__main__":
    sys.exit(main())
