"""`python3 -m tests [ARGUMENTS OF PYTEST]`: makes or finds the environment, then runs the suite in it.

`--python 3.12` runs it on another interpreter; `--lint` runs the linters and the type checker instead; `--coverage`
measures meanwhile which of the core's branches it takes, and fails below what pyproject.toml asks for. The quick part
(`-m "not slow"`), as a whole or whole folders of it, runs in several processes, unless `-n` says in how many.
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


def in_parallel(argv: "list[str]") -> "list[str]":
    """The arguments, with as many processes as the machine has use for, where they ask for much of the quick part."""
    named = [one for one in argv if os.path.isfile(one.split("::")[0])]  # noqa: PTH113 - old Pythons read this
    chosen = [one for one in argv if one.startswith(("-n", "--pdb", "-s", "--dist"))]
    if "not slow" not in argv or named or chosen:
        return argv
    return ["-n", str(min((os.cpu_count() or 1) + 1, 8))] + argv  # noqa: RUF005 - old Pythons read this


def main() -> int:
    """Lints or tests; the exit code is theirs."""
    argv = ensure("test", "tests", sys.argv[1:])
    os.chdir(ROOT)
    # hundreds of processes would each compile everything anew
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if argv[:1] == ["--lint"]:
        return lint()
    if argv[:1] == ["--coverage"]:
        return measured(in_parallel(argv[1:]))
    import pytest

    return int(pytest.main(in_parallel(argv)))


if __name__ == "__main__":
    sys.exit(main())
