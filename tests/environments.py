"""Environments beside `.venv`, for what must not be installed with the suite: made once, then kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python_environment(name: str, *requirements: str) -> Path:
    """The folder of programs of `.venv-<name>`, which has these; installed when it is not."""
    home = ROOT / f".venv-{name}"
    done = home / "installed"
    if not done.exists() or done.read_text() != repr(requirements):
        made = subprocess.run([sys.executable, "-m", "venv", home], check=False, capture_output=True)
        if made.returncode:  # no ensurepip: the pip that runs us installs from outside
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", home], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
        subprocess.run([*pip, "install", "--quiet", *requirements], check=True)
        done.write_text(repr(requirements))
    return home / "bin"


def node_environment(name: str, *packages: str) -> Path | None:
    """A folder whose programs find these packages of npm's; None where there is no npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None
    home = ROOT / f".venv-{name}"
    done = home / "installed"
    if not done.exists() or done.read_text() != repr(packages):
        home.mkdir(exist_ok=True)
        (home / "package.json").write_text('{"private": true}')
        options = ["--omit=optional", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([npm, "install", *options, *packages], cwd=home, check=True)
        done.write_text(repr(packages))
    return home
