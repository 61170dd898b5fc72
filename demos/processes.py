"""The demo's services as processes: started, waited for, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from asynctrace.agent import agent_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

START_SECONDS = 20.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 10.0


class DemoError(Exception):
    """Something the demo can't go on after; the message is for its user."""


def plain_environment() -> dict[str, str]:
    """Ours without tracing settings: a sampling rule or a switch in it is for your programs, not for the demo."""
    settings = ("DD_", "_DD_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


def service_environment(agent_url: str) -> dict[str, str]:
    """For services that send their traces to the agent at this URL."""
    return {
        **agent_environment(agent_url, plain_environment()),
        # a query belongs to the service that asks; without this, ddtrace's older naming has a service `postgres` more
        "DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED": "true",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }


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


@dataclass(frozen=True)
class Running:
    """Services that work together: where requests go, and who works on them."""

    address: str
    services: tuple[ServiceProcess, ...]

    def check(self) -> None:
        """Raises `DemoError`, with what it said, when a service has ended."""
        for service in self.services:
            service.check()

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """Send a request, a POST where it has a body; gives status, reason and the answer's body.

        Raises `DemoError` where nobody answers.
        """
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=ANSWER_SECONDS) as reply:
                return reply.status, reply.reason, reply.read()
        except urllib.error.HTTPError as failed:
            with failed:
                return failed.code, failed.reason, failed.read()
        except OSError as failed:
            self.check()
            raise DemoError(f"nobody at {self.address} answers: {failed}") from None
