"""Real proxies between two services: the trace goes through, and what traces there stands in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace.agent import start_in_thread
from demos.envoy import start_chain
from demos.processes import plain_environment
from demos.services import _envoy, _nginx, envoy, fetched, nginx
from demos.services.process import StartError
from demos.traces import known, new_trace
from tests.demos.rows import drawings
from tests.services.helpers import processes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace.agent import AgentThread, Trace
    from demos.processes import Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
"""A proxy that is not here is fetched, once."""

CALLS = [
    "front GET /greeting",
    "front GET /greeting",
    "back GET /greeting",
    "back demos.back.greet",
]
"""What the two services do, each below the one before it."""

Chain = tuple["AgentThread", "Running"]


@pytest.fixture(scope="module")
def nginx_here() -> None:
    here(_nginx.installed, fetched.nginx)


@pytest.fixture(scope="module")
def envoy_here() -> None:
    here(_envoy.installed, fetched.envoy)


def here(*places: Callable[[], Iterator[Any]]) -> None:
    """Skips where there is no such program and none can be fetched; one that does not start is a failure."""
    try:
        found = any(True for place in places for _ in place())
    except StartError as error:
        pytest.skip(f"not here, and not to be fetched: {error}")
    if not found:
        pytest.skip("not here, and nothing on this machine could fetch it")


@pytest.fixture(scope="module", params=[nginx, envoy])
def untraced(request: pytest.FixtureRequest) -> Iterator[Chain]:
    """Two services, a proxy that traces nothing, and the agent."""
    request.getfixturevalue(f"{request.param.__name__}_here")
    with start_in_thread() as agent, ExitStack() as running:
        yield agent, start_chain(running, agent.url, request.param)


@pytest.fixture(scope="module")
def traced(envoy_here: None) -> Iterator[Chain]:
    """Two services and an Envoy that traces, too."""
    with start_in_thread() as agent, ExitStack() as running:
        yield agent, start_chain(running, agent.url, partial(envoy, agent=agent.url))


def ask(chain: Chain, services: set[str], body: bytes | None = None) -> tuple[dict[str, Any], Trace]:
    """Send a request; gives what reached `back`, and the trace."""
    agent, running = chain
    before = known(agent)
    status, _, answer = running.ask("/greeting", body)
    assert status == 200
    return json.loads(answer), new_trace(agent, before, services, running)


def line_of(trace: Trace) -> list[str]:
    """Service and resource of each span, from the root on; each has one child at most."""
    below = {span.parent_id: span for span in trace.spans}
    assert len(below) == len(trace.spans), "somebody has two children"
    line, parent = [], 0
    while parent in below:
        span = below[parent]
        line.append(f"{span.service} {span.resource}")
        parent = span.span_id
    assert len(line) == len(trace.spans), "the trace is in pieces"
    return line


def sent_by(headers: dict[str, str]) -> tuple[set[int], set[str]]:
    """The span and the trace that the headers name, in both families."""
    _, trace_id, parent, _ = headers["traceparent"].split("-")
    datadog = f"{int(headers['x-datadog-trace-id']):016x}"
    high = re.findall(r"_dd\.p\.tid=([0-9a-f]{16})", headers["x-datadog-tags"])[0]
    return {int(parent, 16), int(headers["x-datadog-parent-id"])}, {trace_id, high + datadog}


def test_a_proxy_passes_the_context(untraced: Chain) -> None:
    """One trace through nginx and through Envoy; both families of headers arrive, and name the caller's span."""
    reached, trace = ask(untraced, {"front", "back"})
    assert line_of(trace) == CALLS
    [call] = [span for span in trace.spans if span.service == "front" and span.parent_id]
    assert sent_by(reached["headers"]) == ({call.span_id}, {trace.id})
    assert re.search(r"\bdd=[^,]*\bs:1\b", reached["headers"]["tracestate"])
    assert reached["headers"]["x-datadog-sampling-priority"] == "1"


def test_an_upload_keeps_its_context(untraced: Chain) -> None:
    """Larger than the proxy's buffers: all of the body and the same trace arrive."""
    reached, trace = ask(untraced, {"front", "back"}, b"x" * 300_000)
    assert reached["body"] == 300_000
    assert line_of(trace) == [*(name.replace("GET", "POST") for name in CALLS)]


def test_requests_that_share_a_connection_share_no_trace(untraced: Chain) -> None:
    """The proxy keeps its connection to the service; each request on it is in its caller's trace."""
    first, second, third = [ask(untraced, {"front", "back"}) for _ in range(3)]
    assert first[0]["connection"] == second[0]["connection"] == third[0]["connection"]
    assert len({trace.trace_id for _, trace in (first, second, third)}) == 3
    assert all(line_of(trace) == CALLS for _, trace in (first, second, third))


@pytest.mark.alone
def test_envoys_own_span_stands_between_the_services_spans(traced: Chain) -> None:
    """Envoy's tracer takes our context and hands on its own: child of front's call, parent of back's request."""
    reached, trace = ask(traced, {"front", "envoy", "back"})
    front, call, proxy, back, _ = sorted(trace.spans, key=lambda span: span.start)
    assert [span.service for span in (front, call, proxy, back)] == ["front", "front", "envoy", "back"]
    assert (proxy.name, proxy.type) == ("envoy.proxy", "web")
    assert len(line_of(trace)) == 5
    assert (proxy.parent_id, back.parent_id) == (call.span_id, proxy.span_id)
    assert sent_by(reached["headers"]) == ({proxy.span_id}, {trace.id})
    assert call.duration >= proxy.duration >= back.duration


def test_what_the_caller_drops_is_dropped_behind_envoy(traced: Chain) -> None:
    """The decision is made once: Envoy hands on the caller's, in both families."""
    headers = {"x-datadog-trace-id": "77", "x-datadog-parent-id": "7", "x-datadog-sampling-priority": "-1"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{traced[1].address}/greeting", headers=headers)
    ) as answer:
        reached = json.load(answer)["headers"]
    assert (reached["x-datadog-trace-id"], reached["x-datadog-sampling-priority"]) == ("77", "-1")
    assert reached["traceparent"].startswith(f"00-{77:032x}-")
    assert reached["traceparent"].endswith("-00")


@pytest.mark.parametrize("name", ["nginx", "envoy"])
def test_a_proxy_ends_with_a_program_that_is_killed(name: str, request: pytest.FixtureRequest) -> None:
    """Nobody is left to stop it: its processes and its folder go all the same."""
    request.getfixturevalue(f"{name}_here")
    program = f"""if True:
        import time
        from demos.services import {name}
        proxy = {name}("http://127.0.0.1:9")
        print(proxy.server.folder, flush=True)
        time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = process.stdout.readline().strip()
        assert any(name in line for line in processes_of(folder))
        process.kill()
    while Path(folder).exists() or processes_of(folder):
        pass


def demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demos", "envoy", *arguments]
    environment = {**plain_environment(), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("envoy_here")
def test_the_demo_draws_the_trace() -> None:
    """`python3 -m demos envoy`: exit code 0, five rows, the line for scripts at the end, nothing on stderr."""
    ran = demo(COLUMNS="80")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(
        r"trace [0-9a-f]{32}: 5 spans, 3 services \(back, envoy, front\)",
        ran.stdout.rstrip().splitlines()[-1],
    )
    [rows] = drawings(ran.stdout)
    assert [row.split()[0] for row in rows] == ["front", "front", "envoy", "back", "back"]
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_without_envoy_the_demo_says_what_to_do() -> None:
    """A message that names the ways out, exit code 1, no traceback."""
    ran = demo(ASYNCTRACE_SERVICES_HIDE="installed,wheel")
    assert ran.returncode == 1
    assert ran.stderr.startswith("demo: no Envoy here.")
    assert "pip" in ran.stderr
    assert "Traceback" not in ran.stderr
