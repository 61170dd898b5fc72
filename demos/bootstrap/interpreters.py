"""Finding Python interpreters: one is there when it answers, not when a file has its name."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.bootstrap import FLOOR

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = """
import importlib.util, json, sys
has = lambda name: importlib.util.find_spec(name) is not None
print(json.dumps({"version": list(sys.version_info[:3]), "ensurepip": has("ensurepip"), "pip": has("pip")}))
"""


class Trouble(Exception):  # noqa: N818 - not always an error
    """What went wrong and what to do about it, for a user to read."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs."""

    path: str
    version: str
    ensurepip: bool
    pip: bool

    @property
    def short(self) -> str:
        """Its version without the last number."""
        return self.version.rpartition(".")[0]

    def is_version(self, wanted: str) -> bool:
        """Whether it is what `--python` asked for: a version, a name like python3.12, or a path."""
        version = re.fullmatch(r"(?:python)?(\d+(?:\.\d+)*)", wanted)
        if version:
            return f"{self.version}.".startswith(f"{version[1]}.")
        return os.path.realpath(wanted) == os.path.realpath(self.path)


def running() -> Interpreter:
    """The one we run in; inside an environment, the one it was made from."""
    path = getattr(sys, "_base_executable", None) or sys.executable
    # What a child would answer is known here already, but for a pip that only one of the two has.
    return Interpreter(path, ".".join(map(str, sys.version_info[:3])), ensurepip=True, pip=True)


def ask(path: str) -> Interpreter | None:
    """The interpreter at a path; None when there is none that answers: pyenv leaves shims that exit 127."""
    try:
        done = subprocess.run(
            [path, "-c", QUESTION],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    version = ".".join(map(str, answer["version"]))
    return Interpreter(path, version, ensurepip=answer["ensurepip"], pip=answer["pip"])


def find(wanted: str) -> Interpreter:
    """The interpreter that `--python` asks for, or Trouble that says which ones there are."""
    seen: list[Interpreter] = []
    for path in _candidates(wanted):
        found = ask(path)
        if found is None:
            continue
        seen.append(found)
        if found.is_version(wanted) or "/" in wanted:
            if tuple(map(int, found.version.split("."))) < FLOOR:
                raise Trouble(f"it needs Python {FLOOR[0]}.{FLOOR[1]} or newer; {path} is {found.version}")
            return found
    others = sorted({one.version for one in seen}, key=lambda text: [int(part) for part in text.split(".")])
    raise Trouble(
        f"no Python {wanted} on PATH or in {_pyenvs()[0]}/versions. Found: {', '.join(others) or 'none'}.\n"
        f"Install it (for example: pyenv install {wanted}), or give its path: --python /path/to/python"
    )


def _candidates(wanted: str) -> Iterator[str]:
    if "/" in wanted:
        yield wanted
        return
    version = wanted.removeprefix("python")
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    names = [f"python{'.'.join(version.split('.')[:2])}", "python3", "python"]
    found = [Path(folder, name) for name in names for folder in folders]
    for root in _pyenvs():
        # glob, not Path.glob: the folder may be somebody else's, and shut
        installed = glob.glob(f"{glob.escape(root)}/versions/*/bin/python3")  # noqa: PTH207
        found += sorted(map(Path, installed), key=lambda path: version not in str(path))
    seen: set[str] = set()
    for path in found:
        if os.access(path, os.X_OK) and str(path) not in seen:
            seen.add(str(path))
            yield str(path)


def _pyenvs() -> list[str]:
    home = os.path.expanduser("~/.pyenv")  # noqa: PTH111 - having no home is no error here
    return list(dict.fromkeys((os.environ.get("PYENV_ROOT") or home, home)))
