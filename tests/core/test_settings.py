"""ddtrace's settings are ours: what they say is in the bytes that reach the agent."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.core.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sink import Sink

PROGRAM = """
    import asyncio
    from asynctrace import atraced, shutdown, span
    @atraced("work")
    async def work():
        with span("inner", service="database"):
            pass
    async def main():
        await work()
        await shutdown(5)
    asyncio.run(main())
"""


def spans_with(sink: Sink, **settings: str) -> dict[str, dict[str, Any]]:
    """What arrives of the program under these settings, by name."""
    run(PROGRAM, **{"DD_TRACE_AGENT_URL": sink.url, **settings})
    return {one["name"]: one for one in sink.wait_for(2)}


def test_service_environment_version(sink: Sink) -> None:
    """`DD_SERVICE`, `DD_ENV` and `DD_VERSION` are on the spans; the version on those of the own service."""
    spans = spans_with(sink, DD_SERVICE="shop", DD_ENV="prod", DD_VERSION="1.2")
    assert {one["meta"]["env"] for one in spans.values()} == {"prod"}
    assert (spans["work"]["service"], spans["work"]["meta"]["version"]) == ("shop", "1.2")
    assert spans["inner"]["service"] == "database"
    assert spans["inner"]["meta"]["_dd.base_service"] == "shop"


def test_environment_as_opentelemetry_has_it(sink: Sink) -> None:
    """Under `DD_TRACE_OTEL_SEMANTICS_ENABLED` ddtrace puts no `env` on spans; neither do we."""
    spans = spans_with(sink, DD_ENV="prod", DD_VERSION="1.2", DD_TRACE_OTEL_SEMANTICS_ENABLED="true")
    assert [one["meta"].keys() & {"env", "version"} for one in spans.values()] == [set(), set()]


def test_tags(sink: Sink) -> None:
    """`DD_TAGS` are on every span."""
    spans = spans_with(sink, DD_TAGS="team:core,tier:1")
    assert {(one["meta"]["team"], one["meta"]["tier"]) for one in spans.values()} == {("core", "1")}


def test_service_mapping(sink: Sink) -> None:
    """`DD_SERVICE_MAPPING` renames services."""
    spans = spans_with(sink, DD_SERVICE="shop", DD_SERVICE_MAPPING="shop:store,database:db")
    assert (spans["work"]["service"], spans["inner"]["service"]) == ("store", "db")


@pytest.mark.parametrize(("rate", "priority"), [("0", -1), ("1", 2)])
def test_sampling_rules(sink: Sink, rate: str, priority: int) -> None:
    """`DD_TRACE_SAMPLING_RULES` decide, by our spans' names."""
    rules = json.dumps([{"name": "work", "sample_rate": float(rate)}])
    spans = spans_with(sink, DD_TRACE_SAMPLING_RULES=rules)
    assert spans["work"]["metrics"]["_sampling_priority_v1"] == priority


def test_agent_by_host_and_port(sink: Sink) -> None:
    """`DD_AGENT_HOST` and `DD_TRACE_AGENT_PORT`, without a URL."""
    url = urlsplit(sink.url)
    run(PROGRAM, DD_AGENT_HOST=str(url.hostname), DD_TRACE_AGENT_PORT=str(url.port))
    assert {one["name"] for one in sink.wait_for(2)} == {"work", "inner"}


def test_agent_on_a_unix_socket(tmp_path: Path) -> None:
    """`DD_TRACE_AGENT_URL=unix://...`: the spans leave through the socket."""
    received: list[bytes] = []
    arrived = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if b"content-length" in line
                    ),
                    0,
                )
                while len(body) < length:
                    body += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                received.append(head.split(b"\r\n")[0] + body)
                if b"/traces" in received[-1]:
                    arrived.set()

    path = tmp_path / "apm.socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        run(PROGRAM, DD_TRACE_AGENT_URL=f"unix://{path}")
        assert arrived.wait(5)
        server.shutdown(socket.SHUT_RDWR)
    traces = b"".join(request for request in received if b"/traces" in request)
    assert b"work" in traces
    assert b"inner" in traces


def test_otlp() -> None:
    """`OTEL_TRACES_EXPORTER=otlp` sends the same spans, with the same parents, to the collector named."""
    got: list[tuple[str, bytes]] = []
    arrived = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            if self.path == "/v1/traces":
                arrived.set()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(HTTPServer):
        def server_bind(self) -> None:  # HTTPServer's own looks its host name up
            super(HTTPServer, self).server_bind()

    server = Server(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        run(
            PROGRAM,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{server.server_address[1]}/v1/traces",
        )
        assert arrived.wait(5)
    finally:
        server.shutdown()
        server.server_close()
    sent = b"".join(body for path, body in got if path == "/v1/traces")
    assert b"work" in sent
    assert b"inner" in sent
