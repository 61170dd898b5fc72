"""An agent that only keeps what it is sent: the second place where tests read traces."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class _Server(ThreadingTCPServer):
    """`http.server`'s own looks its host name up at the start: seconds without a network."""

    daemon_threads = True
    allow_reuse_address = True


class Sink:
    """Answers every request with 200 and keeps the trace payloads, decoded."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.since_ns = 0  # spans that began earlier are somebody else's
        self.changed = threading.Condition()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with sink.changed:
                    sink.requests.append((self.command, self.path, body))
                    sink.changed.notify_all()
                reply = json.dumps({"rate_by_service": {"service:,env:": 1}}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *args: Any) -> None:
                pass

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def start(self) -> Sink:
        self.thread.start()
        return self

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def spans(self) -> list[dict[str, Any]]:
        """Every span that arrived, as v0.4 has it: `meta` and `metrics` apart, ids as ints."""
        with self.changed:
            payloads = [(path, body) for _, path, body in self.requests if path.endswith("/traces")]
        spans = [span for path, body in payloads for span in _decoded(path, body)]
        return [
            span for span in spans if self.since_ns <= span["start"] <= time.time_ns()
        ]  # tests set clocks, too

    def wait_for(self, count: int, timeout: float = 10) -> list[dict[str, Any]]:
        """The spans, once there are `count` of them."""
        arrived = self.wait_until(lambda: len(self.spans()) >= count, timeout)
        assert arrived, f"{len(self.spans())} of {count} spans arrived: {[s['name'] for s in self.spans()]}"
        return self.spans()

    def has_at_once(self, name: str, count: int = 1) -> bool:
        """Whether so many of that name are there after a flush: ddtrace's writer may be sending them just then."""
        return self.wait_until(
            lambda: [one["name"] for one in self.spans()].count(name) == count, timeout=0.5
        )

    def wait_until(self, true: Callable[[], bool], timeout: float = 10) -> bool:
        """Whether it became true of what arrived, in time."""
        with self.changed:
            return self.changed.wait_for(true, timeout)


FIELDS = (
    "service", "name", "resource", "trace_id", "span_id", "parent_id", "start", "duration", "error", "meta",
    "metrics", "type",
)  # fmt: skip
"""A v0.5 span's, in order."""


def _decoded(path: str, body: bytes) -> list[dict[str, Any]]:
    payload = msgspec.msgpack.decode(body)
    if "v0.5" not in path:
        return [span for trace in payload for span in trace]
    words, traces = payload
    spans = []
    for raw in (span for trace in traces for span in trace):
        span = dict(zip(FIELDS, raw, strict=True))
        for key in ("service", "name", "resource", "type"):
            span[key] = words[span[key]]
        span["meta"] = {words[key]: words[value] for key, value in span["meta"].items()}
        span["metrics"] = {words[key]: value for key, value in span["metrics"].items()}
        spans.append(span)
    return spans
