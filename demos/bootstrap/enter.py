"""The way in: stay in this interpreter, or go on in an environment of the repository."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from demos.bootstrap.environment import Environment
from demos.bootstrap.interpreters import Interpreter, Trouble, find, running
from demos.bootstrap.progress import say
from demos.bootstrap.requirements import ROOT, missing

INSIDE = "ASYNCTRACE_BOOTSTRAPPED"
"""Names the environment we have just entered: nothing to check again, and no way to go round in circles."""


def enter(extra: str, module: str, argv: list[str]) -> list[str]:
    """See `demos.bootstrap.ensure`."""
    inside = os.environ.pop(INSIDE, None)
    try:
        argv, wanted = take_python(argv)
        if inside and Path(inside).resolve() == Path(sys.prefix).resolve():
            return argv
        text = Path(ROOT, "pyproject.toml").read_text(encoding="utf-8")
        here = wanted is None or running().is_version(wanted)
        if here and not missing(extra, text):
            return argv
        environment = Environment(folder_for(wanted), extra, text)
        if inside and Path(inside) == environment.folder:
            sys.exit(f"asynctrace: {inside} does not run its own Python but {sys.prefix}: remove that folder")
        if not environment.ready():
            environment.make(interpreter_for(wanted))
    except Trouble as trouble:
        sys.exit(f"asynctrace: {trouble}")
    except KeyboardInterrupt:
        say("\nasynctrace: stopped. The next run begins the environment anew.")
        sys.exit(130)
    if wanted is None and environment.version.rpartition(".")[0] != running().short:
        used = f"{environment.folder.name}, Python {environment.version}"
        say(f"asynctrace: going on in {used}; --python chooses another")
    return go_on(environment, module, argv)


def take_python(argv: list[str]) -> tuple[list[str], str | None]:
    """Takes `--python VERSION` out of the arguments; what comes after `--` is not ours."""
    end = argv.index("--") if "--" in argv else len(argv)
    for place, word in enumerate(argv[:end]):
        if word.startswith("--python="):
            return argv[:place] + argv[place + 1 :], word.partition("=")[2]
        if word == "--python":
            if place + 1 == end:
                raise Trouble("--python wants a version, for example: --python 3.12")
            return argv[:place] + argv[place + 2 :], argv[place + 1]
    return argv, None


def folder_for(wanted: str | None) -> Path:
    """`.venv`, or beside it `.venv-3.12` for an interpreter asked for by name."""
    if wanted is None:
        return ROOT / ".venv"
    version = re.fullmatch(r"(?:python)?(\d+\.\d+)(\.\d+)?", wanted)
    return ROOT / f".venv-{version[1] if version else find(wanted).short}"


def interpreter_for(wanted: str | None) -> Interpreter:
    """Whom to make an environment with."""
    return running() if wanted is None else find(wanted)


def go_on(environment: Environment, module: str, argv: list[str]) -> NoReturn:
    """Becomes the environment's Python, running the same module with the same options and arguments."""
    python = str(environment.python)
    words = sys.orig_argv[1:]
    options = words[: words.index("-m")] if words[: words.index("-m") + 2][-2:] == ["-m", module] else []
    variables = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "__PYVENV_LAUNCHER__")
    }
    variables[INSIDE] = str(environment.folder)
    variables["VIRTUAL_ENV"] = str(environment.folder)
    os.chdir(ROOT)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(python, [python, *options, "-m", module, *argv], variables)
