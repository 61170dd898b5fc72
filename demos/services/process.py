"""A private server: a folder, a port, a supervisor that outlives us just long enough to clean up."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demos.bootstrap.progress import Progress
from demos.services.probes import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

START_SECONDS = 90.0
STOP_SECONDS = 20.0
PORT_TAKEN = ("already in use", "eaddrinuse")


class StartError(Exception):
    """A server could not be started; the message carries the end of its log."""


class Recipe(ABC):
    """How one kind of server is made in a folder, started, asked and stopped."""

    name: str
    stop_signal: int
    close_signal: int | None = None
    """What makes it go at once and tidily; None: plain SIGKILL."""

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Writes what the server needs into its folder; called once, before the first start."""

    @abstractmethod
    def choose_ports(self, folder: Path) -> None:
        """Takes free ports; called again when one of them was gone before the server had it."""

    @abstractmethod
    def commands(self, folder: Path) -> Iterator[Command]:
        """What to run, in order; the last one is the server."""

    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def probe(self, timeout: float) -> None:
        """Logs in, or raises ProbeError."""

    def answers(self) -> bool:
        """Whether a login works."""
        try:
            self.probe(2.0)
        except ProbeError:
            return False
        return True


@dataclass
class Command:
    """A program of a server; `port` is waited for before the next one starts."""

    argv: list[str]
    env: dict[str, str]
    port: int | None = None


@dataclass
class Server:
    """A running private server and its supervisor."""

    recipe: Recipe
    folder: Path = field(init=False)
    pid: int = field(init=False, default=0)
    _keeper: subprocess.Popen[bytes] = field(init=False)
    _owner: int = field(init=False, default_factory=os.getpid)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.folder = workfolder(self.recipe.name)
        identity = unprivileged()
        uid, gid = (identity.pw_uid, identity.pw_gid) if identity else (0, 0)
        with Path(self.folder, "log").open("ab") as log:
            self._keeper = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(Path(__file__).with_name("supervisor.py")),
                    self.folder,
                    str(uid),
                    str(gid),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle, not the server's
            )
        atexit.register(self.close)
        try:
            self.recipe.prepare(self.folder)
            self._first_start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _first_start(self) -> None:
        for tries_left in (2, 1, 0):
            self.recipe.choose_ports(self.folder)
            hand_over(self.folder)
            try:
                self.start()
                return
            except StartError:
                log = self.log_tail().lower()
                if not tries_left or not any(word in log for word in PORT_TAKEN):
                    raise
                self._ask("killall")

    def start(self) -> None:
        """Starts the server's programs and waits until a login works."""
        with Progress(f"starting a private {self.recipe.name}"):
            self._start()

    def _start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for command in self.recipe.commands(self.folder):
            self.pid = self._ask("run", argv=command.argv, env=command.env)["pid"]
            while command.port and not listening(command.port):
                self._still_starting(deadline)
        while not self.recipe.answers():
            self._still_starting(deadline)

    def _still_starting(self, deadline: float) -> None:
        code = self._ask("status", pid=self.pid)["exit"]
        if code is not None or time.monotonic() > deadline:
            why = f"ended with {code}" if code is not None else f"did not answer in {START_SECONDS:.0f} s"
            raise StartError(f"{self.recipe.name} {why}: {self.log_tail()}")
        time.sleep(0.03)

    def log_tail(self) -> str:
        """The end of what the server wrote."""
        with contextlib.suppress(OSError):
            return Path(self.folder, "log").read_text(errors="replace")[-1500:].strip()
        return ""

    def kill(self) -> None:
        """SIGKILL to the server and everything it started; its data stays."""
        self._ask("killall")

    def stop(self) -> None:
        """An orderly shutdown; its data stays."""
        self._end_with(self.recipe.stop_signal, STOP_SECONDS)

    def restart(self) -> None:
        """Starts it again on the same port with the same data, stopping it first where it runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the server and removes its folder; any number of times."""
        with self._lock:
            keeper = self._keeper
            # A fork that exits runs our exit handlers too: the server belongs to the process that started it.
            if os.getpid() != self._owner or keeper.stdin is None or keeper.stdin.closed:
                return
            with contextlib.suppress(StartError, OSError):
                if self.recipe.close_signal:
                    self._end_with(self.recipe.close_signal, 5.0)
                self._ask("end")
            with contextlib.suppress(OSError):
                keeper.stdin.close()
            keeper.wait()
            if keeper.stdout:
                keeper.stdout.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            atexit.unregister(self.close)

    def _end_with(self, number: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        if self.pid:
            self._ask("signal", pid=self.pid, number=int(number))
            while self._ask("status", pid=self.pid)["exit"] is None and time.monotonic() < deadline:
                time.sleep(0.02)
        self._ask("killall")

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            stdin, stdout = self._keeper.stdin, self._keeper.stdout
            if stdin is None or stdout is None or stdin.closed:
                raise StartError(f"this {self.recipe.name} is closed")
            try:
                stdin.write(json.dumps({"op": operation, **arguments}).encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:
                line = b""
            if not line:
                raise StartError(f"the supervisor of {self.recipe.name} is gone: {self.log_tail()}")
            reply: dict[str, Any] = json.loads(line)
            if "error" in reply:
                raise StartError(f"{self.recipe.name}: {reply['error']}")
            return reply


def unprivileged() -> pwd.struct_passwd | None:
    """Whom servers run as when we are root: both refuse root, or should; None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "daemon"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise StartError("no unprivileged user ('nobody') to run a server as")


def as_unprivileged() -> dict[str, Any]:
    """Arguments for subprocess that make a program run as the servers' user."""
    user = unprivileged()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def reachable(path: Path) -> bool:
    """Whether the servers' user can run or enter this: not so below a home folder of root's."""
    if unprivileged() is None:
        return os.access(path, os.X_OK)
    return subprocess.run(["test", "-x", str(path)], check=False, **as_unprivileged()).returncode == 0


def workfolder(name: str) -> Path:
    """A new temporary folder that the servers' user can reach."""
    base = Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=f"asynctrace-{name}-", dir=base if reachable(base) else "/tmp"))


def hand_over(folder: Path) -> None:
    """Gives a folder and all that is in it to the servers' user."""
    user = unprivileged()
    if user:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def free_port() -> int:
    """A port that nobody listens on, outside the range the kernel gives to outgoing connections.

    Inside that range a client that knocks on a server's port while the server is down can be given this very
    port as its own, is then connected to itself, and the server cannot come back.
    """
    for port in random.sample(range(20000, 32000), 200):
        with contextlib.suppress(OSError), socket.socket() as candidate:
            candidate.bind(("127.0.0.1", port))
            return port
    raise StartError("no free port on 127.0.0.1")


def listening(port: int) -> bool:
    """Whether anybody accepts connections on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
