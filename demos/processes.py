"""The demo's services as processes: started, waited for, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

START_SECONDS = 20.0
STOP_SECONDS = 10.0


class DemoError(Exception):
    """Something the demo can't go on after; the message is for its user."""


def plain_environment() -> dict[str, str]:
    """Ours without tracing settings: a sampling rule or a switch in it is for your programs, not for the demo."""
    settings = ("DD_", "_DD_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


class ServiceProcess:
    """One service of the demo. It says `ready` on its first line; what it complains of is kept for a failure."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = ""
        self._ending = False
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as we are
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demos.serve", name],
            env={**environment, "DD_SERVICE": name},
            stdin=subprocess.PIPE,  # never written: its end tells the service that we are gone
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,  # Ctrl-C is ours to pass on, once everything is told
        )

    def wait_until_ready(self) -> Self:
        """Raises `DemoError`, with what the service said, when it ends or is not ready within 20 s."""
        assert self._process.stdout is not None
        overdue = threading.Timer(START_SECONDS, self._process.kill)
        overdue.start()
        try:
            line = self._process.stdout.readline().decode()
        finally:
            overdue.cancel()
        if not line.startswith("ready"):
            self._process.kill()
            self._process.wait()
            raise DemoError(f"{self.name} did not start:\n{self.complaints()}")
        self.address = line.removeprefix("ready").strip()
        return self

    def check(self) -> None:
        """Raises `DemoError`, with what it said, when it has ended."""
        if self._process.poll() is not None:
            raise DemoError(f"{self.name} has ended:\n{self.complaints()}")

    def complaints(self) -> str:
        """The end of its standard error."""
        self._complaints.seek(0)
        return self._complaints.read()[-4000:].decode(errors="replace").strip() or "(it said nothing)"

    def end(self) -> None:
        """Ask it to end; it sends its last traces. `stop()` waits for that."""
        if not self._ending:  # a second signal would cut the first one's clean-up short
            self._ending = True
            self._process.terminate()

    def stop(self) -> None:
        """End it, politely first."""
        self.end()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._complaints.close()
