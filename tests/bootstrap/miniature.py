"""A miniature of the repository: the real bootstrap, a project that installs in a second and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE = str(getattr(sys, "_base_executable", sys.executable))

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "asynctrace"
version = "0.1.0"
requires-python = ">=3.10"
dependencies = []

[project.optional-dependencies]
all = []
test = ["asynctrace[all]"{more}]
"""

# The least that pip takes for an editable project; with HOLD set it tells that it is at it, and hangs.
BACKEND = """\
import os, time, zipfile

def build_editable(folder, settings=None, metadata=None):
    if hold := os.environ.get("HOLD"):
        open(hold, "w").close()
        time.sleep(600)
    info, here = "asynctrace-0.1.0.dist-info/", os.path.dirname(os.path.abspath(__file__))
    extras = "Provides-Extra: all\\nProvides-Extra: test\\n"
    for requirement in os.environ.get("REQUIRES", "").split():
        extras += f"Requires-Dist: {requirement}; extra == 'test'\\n"
    with zipfile.ZipFile(os.path.join(folder, "asynctrace-0.1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("asynctrace.pth", here)
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: asynctrace\\nVersion: 0.1.0\\n" + extras)
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return "asynctrace-0.1.0-py3-none-any.whl"
"""

MAIN = """\
import sys
from demos.bootstrap import ensure
argv = ensure("test", "tests", sys.argv[1:])
print(sys.prefix, sys.version_info[1], *argv)
"""


class Miniature:
    """A folder that `python3 -m tests` can be run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "demos" / "bootstrap", self.folder / "demos" / "bootstrap", ignore=ignore)
        (self.folder / "demos" / "__init__.py").touch()
        (self.folder / "tests").mkdir()
        (self.folder / "tests" / "__init__.py").touch()
        (self.folder / "tests" / "__main__.py").write_text(MAIN)
        (self.folder / "backend.py").write_text(BACKEND)
        self.require("")

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def require(self, requirement: str) -> None:
        """Makes the extra `test` need one more distribution."""
        more = f', "{requirement}"' if requirement else ""
        (self.folder / "pyproject.toml").write_text(PYPROJECT.format(more=more))

    def start(self, *argv: str, python: str = BASE, **variables: str) -> subprocess.Popen[str]:
        """Runs it as a user would who has nothing but a Python."""
        mine = ("VIRTUAL_ENV", "PYTHONPATH", "ASYNCTRACE_BOOTSTRAPPED")
        environment = {name: value for name, value in os.environ.items() if name not in mine}
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [python, "-m", "tests", *argv]
        return subprocess.Popen(command, cwd=self.folder, env={**environment, **variables}, **options)

    def run(self, *argv: str, python: str = BASE, **variables: str) -> tuple[int, str, str]:
        """(exit code, output, errors) of a whole run."""
        with self.start(*argv, python=python, **variables) as process:
            output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors
