"""Datadog's own test agent as the judge of our payloads.

It lives in an environment of its own, kept beside `.venv`: next to other packages pip picks an old one of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tests.environments import python_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHECKS = "meta_tracer_version_header,trace_content_length,trace_count_header,meta_events_is_valid_json"
"""Those of its trace checks that are for every tracer; the others are for one naming schema."""


def executable() -> Path:
    """`ddapm-test-agent`, installed when it is not."""
    return python_environment("test-agent", "ddapm-test-agent>=1.60") / "ddapm-test-agent"


class Judge:
    """A running test agent. Ports are free ones; `close()` ends it."""

    def __init__(self, ports: list[int]) -> None:
        agent, otlp_http, otlp_grpc, ui = ports
        self.url = f"http://127.0.0.1:{agent}"
        self.process = subprocess.Popen(
            [
                executable(),
                f"--port={agent}",
                f"--otlp-http-port={otlp_http}",
                f"--otlp-grpc-port={otlp_grpc}",
            ],
            env={**os.environ, "ENABLED_CHECKS": CHECKS, "WEB_UI_PORT": str(ui)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait(self.answers, "did not start")

    def answers(self) -> bool:
        try:
            return self.get("/info")[0] == HTTPStatus.OK
        except OSError:
            return False

    def wait(self, done: Callable[[], bool], complaint: str) -> None:
        """Ask until it is done; 20 s at most."""
        deadline = time.monotonic() + 20
        while not done():
            assert self.process.poll() is None, "the test agent has ended"
            assert time.monotonic() < deadline, f"the test agent {complaint}"
            time.sleep(0.02)

    def get(self, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url + path, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as failed:
            with failed:
                return failed.code, failed.read().decode()

    def spans(self, count: int, *, beside: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
        """What arrived, once it is `count` spans, beside those of these names."""

        def arrived() -> bool:
            return sum(span["name"] not in beside for span in self._spans()) >= count

        self.wait(arrived, f"was not sent {count} spans")
        return self._spans()

    def _spans(self) -> list[dict[str, Any]]:
        return [span for trace in json.loads(self.get("/test/traces")[1]) for span in trace]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
