"""`asynctrace view` as a process of its own, and programs that send to it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.agent.payloads import v04

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asynctrace.agent.spans import Span

ROOT = Path(__file__).parents[2]


def clean_environment(**more: str) -> dict[str, str]:
    """Without the settings of tracers that are about."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DD_", "_DD", "OTEL_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}


class View:
    """A running `asynctrace view`."""

    def __init__(self, process: subprocess.Popen[str], port: int, ready: float) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ready = ready  # seconds from its start until it listened

    def get(self, path: str) -> Any:
        """An answer of the read API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", f"/asynctrace/v1{path}")
            return json.load(connection.getresponse())
        finally:
            connection.close()

    def wait_for(self, wanted: Any, timeout: float = 20.0) -> list[dict[str, Any]]:
        """The list, once it is as wanted."""
        end = time.monotonic() + timeout
        while True:
            traces: list[dict[str, Any]] = self.get("/traces?limit=1000")["traces"]
            if wanted(traces):
                return traces
            assert time.monotonic() < end, f"not in time: {traces[:5]} {self.get('/counters')}"
            time.sleep(0.02)

    def memory(self, name: str = "VmRSS") -> int:
        """Its memory in MiB: `VmRSS` now, `VmHWM` at most so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) >> 10

    def cpu_seconds(self) -> float:
        """How much of a core it has used so far."""
        used = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, body: bytes, version: str = "v0.4", **headers: str) -> float:
        """Sends a body as a tracer would; gives the seconds until the answer, which must be the usual one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            began = time.perf_counter()
            connection.request(
                "POST", f"/{version}/traces", body, {"Content-Type": "application/msgpack", **headers}
            )
            reply = connection.getresponse()
            assert (reply.status, json.load(reply)) == (200, {"rate_by_service": {"service:,env:": 1}})
            return time.perf_counter() - began
        finally:
            connection.close()

    def send_spans(self, spans: Sequence[Span], trace_id: int, size: int = 300) -> None:
        """Sends a trace in chunks, as a tracer's partial flush does."""
        rows = [_row(span, trace_id) for span in spans]
        for first in range(0, len(rows), size):
            self.send(v04(rows[first : first + size]))


def _row(span: Span, trace_id: int) -> dict[str, Any]:
    names = (
        "span_id",
        "parent_id",
        "name",
        "service",
        "resource",
        "type",
        "start",
        "duration",
        "error",
        "meta",
        "metrics",
    )
    return {"trace_id": trace_id, **{name: getattr(span, name) for name in names}}


@contextmanager
def viewing(*options: str) -> Iterator[View]:
    """`asynctrace view` on a free port, until the block ends; it must end well."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        command = [
            sys.executable,
            "-m",
            "asynctrace",
            "view",
            "--no-browser",
            "--port",
            "0",
            "--port-file",
            str(port_file),
            *options,
        ]
        began = time.perf_counter()
        with subprocess.Popen(
            command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline()
                view = View(process, int(port_file.read_text()), time.perf_counter() - began)
                yield view
                process.terminate()
                _, complaints = process.communicate(timeout=20)
                assert process.returncode == 0
                assert "Traceback" not in complaints, complaints
            finally:
                process.kill()


def run(command: Iterable[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A program that is expected to end well."""
    done = subprocess.run(
        list(command),
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done
