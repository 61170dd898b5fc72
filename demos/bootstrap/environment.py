"""An environment in the repository: made once, mended when half made or out of date, entered fast."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from demos.bootstrap import FLOOR
from demos.bootstrap.interpreters import Interpreter, Trouble, ask
from demos.bootstrap.progress import Progress, say
from demos.bootstrap.requirements import PROJECT, ROOT, fingerprint, needed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHECK = (
    "import sys; from demos.bootstrap.requirements import missing; sys.exit(bool(missing(*sys.argv[1:3])))"
)

NO_VENV = """\
{python} cannot make environments: {why}
On Debian and Ubuntu: apt install python3-venv"""

NO_PIP = """\
{python} has neither ensurepip nor a pip of 22.3 or newer, so nothing can be installed into {folder}.
On Debian and Ubuntu: apt install python3-venv"""

PIP_FAILED = """\
pip could not install what asynctrace[{extra}] needs. Its last words:
{tail}
Without a network pip must be told where packages are, by its own settings (PIP_FIND_LINKS, PIP_INDEX_URL,
PIP_NO_INDEX, a pip.conf). The next run begins {folder} anew."""

NO_WRITE = """\
cannot write {folder}: {why}
Where the checkout is read-only, make an environment elsewhere and run it from there:
  {python} -m venv ~/asynctrace-env
  ~/asynctrace-env/bin/pip install -e '{root}[{extra}]'
  cd {root} && ~/asynctrace-env/bin/python -m {module}"""


class Environment:
    """One folder, and whether it holds what `extra` needs."""

    def __init__(self, folder: Path, extra: str, text: str) -> None:
        self.folder = folder
        self.extra = extra
        self.text = text
        self.python = folder / "bin" / "python"
        self.stamp = folder / "asynctrace.json"
        self.unfinished = folder / "asynctrace.unfinished"

    @property
    def version(self) -> str:
        """Its Python's version, as it was when the environment was made."""
        with contextlib.suppress(OSError):
            config = (self.folder / "pyvenv.cfg").read_text(encoding="utf-8")
            if found := re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", config, re.MULTILINE):
                return found[1]
        return ""

    def ready(self) -> bool:
        """Whether it was finished for this extra, these requirements, this Python and this folder."""
        return (
            self._stamped().get(self.extra) == fingerprint(self.extra, self.text, self.version)
            and os.access(self.python, os.X_OK)
            and not self.unfinished.exists()
        )

    def make(self, interpreter: Interpreter) -> None:
        """Makes it ready, whatever it is now; one run at a time."""
        try:
            with self._alone():
                if not self.ready():
                    self._mend(interpreter)
        except OSError as error:
            module = "tests" if self.extra == "test" else "demos"
            raise Trouble(
                NO_WRITE.format(
                    folder=self.folder,
                    why=error,
                    python=interpreter.path,
                    root=ROOT,
                    extra=self.extra,
                    module=module,
                )
            ) from error

    def _mend(self, interpreter: Interpreter) -> None:
        inside = None
        if self.folder.exists():
            inside = ask(str(self.python))
            reason = self._unusable(inside)
            if reason:
                say(f"asynctrace: {self.folder.name} {reason}: making it anew")
                shutil.rmtree(self.folder)
                inside = None
            elif self._complete():
                self._finish()
                return
        if inside is None:
            self._create(interpreter)
        self.unfinished.touch()
        try:
            self._install(interpreter)
        except Trouble:
            if inside:  # pip changes nothing before it has everything: what was there is as good as before
                self.unfinished.unlink()
            raise
        self._finish()

    def _unusable(self, inside: Interpreter | None) -> str:
        if self.unfinished.exists():
            return "was left half made"
        if inside is None:
            return "has no Python that runs"
        root = self._stamped().get("root", str(ROOT))
        if root != str(ROOT):
            return f"was made for {root}"
        if tuple(map(int, inside.version.split("."))) < FLOOR:
            raise Trouble(
                f"{self.folder} has Python {inside.version}; it needs {FLOOR[0]}.{FLOOR[1]} or newer.\n"
                f"Remove that folder, or choose another with --python"
            )
        return ""

    def _complete(self) -> bool:
        """Asks the environment itself: somebody may have made it by hand."""
        command = [str(self.python), "-c", CHECK, self.extra, self.text]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0

    def _create(self, interpreter: Interpreter) -> None:
        say(f"asynctrace: making {self.folder.name} with Python {interpreter.version} ({interpreter.path})")
        self.folder.mkdir()
        self.unfinished.touch()  # first of all: whatever is found beside it later is half made
        base = ask(interpreter.path) or interpreter
        command = [base.path, "-m", "venv"]
        with Progress(f"asynctrace: creating {self.folder.name}"):
            done = _run([*command, str(self.folder)]) if base.ensurepip else None
            if done is None or done.returncode:
                # Debian without python3-venv has no ensurepip; a pip outside can install into it.
                done = _run([*command, "--without-pip", str(self.folder)])
        if done.returncode or not ask(str(self.python)):
            shutil.rmtree(self.folder, ignore_errors=True)
            why = (done.stdout.strip().splitlines() or ["no reason given"])[-1]
            raise Trouble(NO_VENV.format(python=base.path, why=why))

    def _install(self, interpreter: Interpreter) -> None:
        count = len(needed(self.extra, self.text)[1])
        say(f"asynctrace: installing it with {count} packages and what they need, once (about a minute)")
        command = [*self._pip(interpreter), "install", "--no-input", "--disable-pip-version-check"]
        command += ["--progress-bar", "off", "-e", f"{ROOT}[{self.extra}]"]
        variables = {"PIP_RETRIES": "2", **os.environ, "PIP_USER": "0"}  # an environment has no user site
        with Progress("asynctrace: pip") as progress:
            code, lines = _follow(command, variables, progress)
        if code:
            tail = "\n".join(f"  {line}" for line in lines[-12:])
            raise Trouble(PIP_FAILED.format(extra=self.extra, tail=tail, folder=self.folder.name))

    def _pip(self, interpreter: Interpreter) -> list[str]:
        """The environment's own pip; or one outside that can install into it."""
        inside = ask(str(self.python))
        if inside and inside.pip:
            return [str(self.python), "-m", "pip"]
        for python in dict.fromkeys((interpreter.path, sys.executable)):
            command = [python, "-m", "pip", "--python", str(self.python)]
            if _run([*command, "--version"]).returncode == 0:  # older pips do not know --python
                return command
        raise Trouble(NO_PIP.format(python=interpreter.path, folder=self.folder))

    def _finish(self) -> None:
        stamp = self._stamped() if self._stamped().get("root") == str(ROOT) else {}
        for extra in needed(self.extra, self.text)[0]:
            stamp[extra] = fingerprint(extra, self.text, self.version)
        stamp["root"] = str(ROOT)
        draft = self.stamp.with_suffix(".new")
        draft.write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n")
        draft.replace(self.stamp)
        self.unfinished.unlink(missing_ok=True)

    def _stamped(self) -> dict[str, str]:
        try:
            stamp: Any = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """A lock on the repository's folder itself, which needs no file and goes with the process."""
        descriptor = os.open(ROOT, os.O_RDONLY)
        try:
            with Progress(f"asynctrace: waiting for another run that sets up {PROJECT}", quiet=0.5):
                while not _locked(descriptor):
                    time.sleep(0.1)
            yield
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: as good as it gets
        return True
    return True


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def _follow(command: list[str], variables: dict[str, str], progress: Progress) -> tuple[int, list[str]]:
    """Runs pip, telling the progress what it is at; (exit code, its output)."""
    lines: list[str] = []
    with subprocess.Popen(
        command,
        env=variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        try:
            for line in pip.stdout or ():
                lines.append(line.rstrip())
                if note := at_what(line):
                    progress.note(note)
        except BaseException:
            pip.terminate()  # Ctrl-C reached us alone, or pip is slow to notice
            raise
    return pip.returncode, lines


def at_what(line: str) -> str:
    """The part of a line of pip's that is worth showing."""
    words = line.split()
    if words[:1] == ["Collecting"]:
        return f"collecting {words[1]}"
    if words[:1] == ["Downloading"] and len(words) > 1:
        name = "-".join(words[1].rpartition("/")[2].split("-")[:2])  # without the wheel's long tags
        return f"downloading {name} {' '.join(words[2:])}".rstrip()
    if words[:3] == ["Installing", "collected", "packages:"]:
        return f"installing {len(words) - 3} packages"
    if words[:1] in (["Building"], ["Installing"], ["Preparing"], ["Getting"]):
        return line.strip().partition(":")[0].lower()
    return ""
