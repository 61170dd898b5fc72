"""The keeper of one private server: a tiny process that ends the server when we end, however we end.

Run by its path in a bare interpreter (`python -I supervisor.py FOLDER UID GID`). It holds the reading end of
a pipe whose writing end is ours: one JSON request a line, one JSON answer a line, and when the pipe ends
(we closed it, or were killed with SIGKILL) every process it started is killed and the folder removed.
A death signal alone does not do that: it follows one thread of the parent and reaches no grandchild.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
IPC_RMID = 0
LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None, use_errno=True)


class Supervisor:
    """Starts, signals and ends the processes of one server in one folder."""

    def __init__(self, folder: str, uid: int, gid: int) -> None:
        self.folder = Path(folder)
        self.identity: dict[str, Any] = (
            {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        self.exits: dict[int, int] = {}
        self.started: list[int] = []

    def run(self, argv: list[str], env: dict[str, str]) -> dict[str, Any]:
        """Starts a program in a session of its own, its output appended to the folder's log."""
        with Path(self.folder, "log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # In case somebody kills the supervisor itself: the direct children at least go with it.
                preexec_fn=_die_with_parent if LINUX else None,  # noqa: PLW1509 - this process has one thread
                **self.identity,
            )
        self.started.append(child.pid)
        child.returncode = 0  # reaped by our own handler: keeps Popen from warning about it
        return {"pid": child.pid}

    def signal(self, pid: int, number: int) -> dict[str, Any]:
        """Sends a signal to one started program, if it is still there."""
        if pid in self.started and pid not in self.exits:
            os.kill(pid, number)
        return {}

    def status(self, pid: int) -> dict[str, Any]:
        """The exit code of a started program; None while it runs."""
        return {"exit": self.exits.get(pid)}

    def killall(self) -> dict[str, Any]:
        """Kills every process below us, and comes back when none is left."""
        deadline = time.monotonic() + 20
        while (left := self.living()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
            self.reap()
        return {"left": left}

    def end(self) -> dict[str, Any]:
        """Kills everything and removes the folder."""
        answer = self.killall()
        _free_shared_memory(self.folder / "data" / "postmaster.pid")
        shutil.rmtree(self.folder, ignore_errors=True)
        return answer

    def living(self) -> list[int]:
        """Our descendants, and whoever shares a session with a program we started."""
        table = dict(_processes())
        mine = {os.getpid()}
        found = True
        while found:
            found = False
            for pid, (parent, group) in table.items():
                if pid not in mine and (parent in mine or group in self.started):
                    mine.add(pid)
                    found = True
        return sorted(mine - {os.getpid()})

    def reap(self, *_: object) -> None:
        """Collects ended children: those we started, and orphans handed to us as the nearest subreaper."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self.exits[pid] = os.waitstatus_to_exitcode(status)


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)


def _processes() -> list[tuple[int, tuple[int, int]]]:
    """(pid, (parent, process group)) of all there is.

    Zombies count: the first thread of a process that is being killed is one already while others still hold
    its sockets. What is collected is gone.
    """
    rows: list[tuple[int, tuple[int, int]]] = []
    if LINUX:
        for entry in os.listdir("/proc"):  # noqa: PTH208 - a plain name is all we need, many times
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    parent, group = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1:3]
                    rows.append((int(entry), (int(parent), int(group))))
        return rows
    with subprocess.Popen(
        ["ps", "-A", "-o", "pid=,ppid=,pgid="], stdout=subprocess.PIPE, text=True
    ) as listing:
        for line in listing.stdout or ():
            pid, *family = map(int, line.split())
            if pid != listing.pid:  # itself a child of ours
                rows.append((pid, (family[0], family[1])))
    return rows


def _free_shared_memory(pidfile: Path) -> None:
    """A killed PostgreSQL leaves a System V segment behind; its id is on the seventh line of its pid file."""
    with contextlib.suppress(OSError, IndexError, ValueError, AttributeError):
        LIBC.shmctl(int(pidfile.read_text().splitlines()[6].split()[1]), IPC_RMID, None)


def _requests(parent: int) -> Any:
    """Lines from the pipe until it ends, or until our parent is another: a fork may hold its writing end."""
    buffer = b""
    while True:
        while b"\n" not in buffer:
            if os.getppid() != parent:
                return
            if select.select([0], [], [], 0.5)[0]:
                chunk = os.read(0, 65536)
                if not chunk:
                    return
                buffer += chunk
        line, _, buffer = buffer.partition(b"\n")
        yield json.loads(line)


def _answer(reply: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more
        os.write(1, json.dumps(reply).encode() + b"\n")


def main() -> None:
    """Serves requests until the pipe ends, then ends everything."""
    parent = os.getppid()
    supervisor = Supervisor(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    if LINUX:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, supervisor.reap)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for request in _requests(parent):
            operation = request.pop("op")
            if operation == "end":
                break
            try:
                _answer(getattr(supervisor, operation)(**request))
            except OSError as error:
                _answer({"error": str(error)})
    finally:
        _answer(supervisor.end())


if __name__ == "__main__":
    main()
