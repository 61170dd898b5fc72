"""The HTTP face: what a tracer gets for an answer, and what the read API tells to whom."""

import asyncio
import gzip
import io
import json
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from asynctrace.agent import start_in_thread
from asynctrace.agent.address import host_of, is_loopback, is_stranger
from asynctrace.agent.embedded import Agent
from asynctrace.agent.live import quiet_traces
from asynctrace.agent.spans import Trace
from asynctrace.agent.tracers import MAX_BODY
from asynctrace.agent.waiting import wait_any
from tests.agent.payloads import TRACE_ID, chunk, span, v04, v05, wire

ACCEPTED = {"rate_by_service": {"service:,env:": 1}}
API = "/asynctrace/v1"


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with Agent() as running:
        yield running


@pytest.fixture
async def session(agent: Agent) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(agent.url) as opened:
        yield opened


async def send(session: aiohttp.ClientSession, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with session.request(method, path, **options) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("version", ["v0.3", "v0.4", "v0.5"])
async def test_traces_are_taken(
    agent: Agent, session: aiohttp.ClientSession, method: str, version: str
) -> None:
    """Every version, by PUT and POST, is answered with the rates and ends in the store."""
    body = v05([wire(1)]) if version == "v0.5" else v04([wire(1)])
    assert await send(session, method, f"/{version}/traces", data=body) == (200, ACCEPTED)
    trace = await agent.wait_for(lambda trace: trace.trace_id == TRACE_ID, timeout=5)
    assert [one.span_id for one in trace.spans] == [1]


async def test_the_answer_comes_before_the_decoding(agent: Agent, session: aiohttp.ClientSession) -> None:
    """A tracer waits for nobody: it is answered while the decoder has not even begun."""
    entered, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def stuck() -> None:
        loop.call_soon_threadsafe(entered.set)
        release.wait(10)

    leave = agent.store.subscribe(stuck)
    assert (await send(session, "PUT", "/v0.4/traces", data=v04([wire(1)])))[0] == 200
    await asyncio.wait_for(entered.wait(), 5)
    assert (await send(session, "PUT", "/v0.4/traces", data=v04([wire(2, trace_id=9)])))[0] == 200
    assert len(agent.store) == 1
    leave()
    release.set()
    assert await agent.drain()
    assert len(agent.store) == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v0.5/traces"), ("POST", "/v0.7/config"), ("POST", "/v0.6/stats"), ("POST", "/v1.0/traces"),
     ("DELETE", "/x/../y"), ("POST", "/telemetry/proxy/api/v2/apmtelemetry"), ("POST", "/debugger/v2/input")],
)  # fmt: skip
async def test_everything_else_is_swallowed(session: aiohttp.ClientSession, method: str, path: str) -> None:
    """Nothing a tracer may call is an error."""
    assert await send(session, method, path, data=b"[" * 10_000) == (200, {})


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"junk", {}), (b"", {}), (b"\0" * (MAX_BODY + 1), {}), (b"no gzip", {"Content-Encoding": "gzip"}),
     (gzip.compress(b"\0" * (MAX_BODY * 3)), {"Content-Encoding": "gzip"}), (b"\x92", {"Content-Encoding": "deflate"}),
     (b"junk", {"Content-Encoding": "br"})],
    ids=["junk", "empty", "too large", "no gzip", "gzip bomb", "cut short", "no coding of ours"],
)  # fmt: skip
async def test_bad_bodies_are_counted_not_told_off(
    agent: Agent, session: aiohttp.ClientSession, body: bytes, headers: dict[str, str]
) -> None:
    """A tracer retries what is refused, so it is not: it is answered as ever, and counted."""
    sent = io.BytesIO(body)
    assert await send(session, "POST", "/v0.4/traces", data=sent, headers=headers) == (200, ACCEPTED)
    assert await agent.drain()
    _, counted = await send(session, "GET", f"{API}/counters")
    assert (counted["payloads"], counted["bad_payloads"], counted["spans"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("coding", "wbits"),
    [("gzip", 31), ("X-GZIP", 31), ("deflate", zlib.MAX_WBITS), ("deflate", -zlib.MAX_WBITS)],
    ids=["gzip", "its old name", "deflate", "deflate without a header"],
)
async def test_compressed_bodies_are_read(
    agent: Agent, session: aiohttp.ClientSession, coding: str, wbits: int
) -> None:
    """A compressed body is a body."""
    stream = zlib.compressobj(wbits=wbits)
    body = stream.compress(v04([wire(1)])) + stream.flush()
    status, _ = await send(session, "PUT", "/v0.4/traces", data=body, headers={"Content-Encoding": coding})
    assert status == 200
    assert await agent.drain()
    assert len(agent.store) == 1


async def test_info_keeps_ddtrace_quiet(session: aiohttp.ClientSession) -> None:
    """`/info` lists what ddtrace looks for, and nothing that it would poll, or keep traces back for."""
    status, info = await send(session, "GET", "/info")
    assert status == 200
    assert {"/v0.3/traces", "/v0.4/traces", "/v0.5/traces", "/debugger/v2/input"} <= set(info["endpoints"])
    assert not {"/v0.7/config", "/v0.7/traces", "/v1.0/traces"} & set(info["endpoints"])
    assert info["client_drop_p0s"] is False
    assert info["span_events"] is info["span_meta_structs"] is True


async def test_the_read_api_tells_ids_as_text(agent: Agent, session: aiohttp.ClientSession) -> None:
    """List and trace have every field, and no id that a reader could round."""
    agent.store.add(
        [chunk(span(2**64 - 1, 2**63, error=1), span(1, resource="GET /", ms=5)), chunk(span(3), low=9)]
    )
    status, listed = await send(session, "GET", f"{API}/traces?limit=5")
    assert (status, listed["total"], len(listed["traces"])) == (200, 2, 2)
    first = listed["traces"][1]
    assert (first["trace_id"], first["resource"], first["span_count"]) == (f"{TRACE_ID:032x}", "GET /", 2)
    assert (first["services"], first["errors"], first["duration"]) == (["shop"], 1, 5_000_000)
    _, whole = await send(session, "GET", f"{API}/traces/{TRACE_ID:032x}")
    assert {(one["span_id"], one["parent_id"]) for one in whole["spans"]} == {
        ("18446744073709551615", str(2**63)),
        ("1", "0"),
    }
    assert Trace.from_json(whole).to_json() == whole
    _, last = await send(session, "GET", f"{API}/traces/last")
    assert last["trace_id"].endswith("09")


async def test_the_read_api_says_what_is_wrong(agent: Agent, session: aiohttp.ClientSession) -> None:
    """Not found, ambiguous and unknown are told apart."""
    assert (await send(session, "GET", f"{API}/traces/last"))[0] == 404
    agent.store.add([chunk(span(1)), chunk(span(1), low=9)])
    assert (await send(session, "GET", f"{API}/traces/ffff"))[0] == 404
    status, answer = await send(session, "GET", f"{API}/traces/6b04")
    assert (status, len(answer["candidates"])) == (409, 2)
    assert (await send(session, "GET", f"{API}/traces?limit=x"))[0] == 400
    assert (await send(session, "GET", f"{API}/nothing"))[0] == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Host": "127.0.0.1.evil.example"}],
    ids=str,
)  # fmt: skip
async def test_a_foreign_page_reads_nothing(session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    """The read API refuses strangers, whatever name they resolve to this machine."""
    for path in ("/traces", "/traces/last", "/counters", "/telemetry"):
        assert (await send(session, "GET", API + path, headers=headers))[0] == 403


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Host": "evil.example", "Origin": "http://evil.example"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v0.4/traces", "/v1/traces"])
async def test_a_foreign_page_writes_nothing(
    agent: Agent, session: aiohttp.ClientSession, headers: dict[str, str], path: str
) -> None:
    """What pages post, which always has an origin, is dropped and counted."""
    async with session.post(path, data=v04([wire(1)]), headers=headers) as reply:
        assert reply.status == 200
    assert await agent.drain()
    assert len(agent.store) == 0
    assert agent.store.counters.snapshot()["dropped_payloads"] == 1


async def test_a_tracer_may_know_us_by_any_name(agent: Agent, session: aiohttp.ClientSession) -> None:
    """Envoy names its cluster where a host would be, a container its service."""
    await send(session, "POST", "/v0.4/traces", data=v04([wire(1)]), headers={"Host": "agent"})
    await agent.wait_for(lambda trace: len(trace.spans) == 1, timeout=5)


def test_names_of_this_machine() -> None:
    """Loopback names and addresses are of this machine, whatever looks like one is not."""
    assert all(
        map(
            is_loopback,
            ("localhost", "LOCALHOST.", "app.localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"),
        )
    )
    assert not any(map(is_loopback, ("", "evil", "localhost.evil", "10.0.0.1", "0.0.0.0", "127.0.0.1.evil")))
    assert [host_of(one) for one in ("a:1", "[::1]:8126", "[broken")] == ["a", "::1", ""]
    own = {"Host": "127.0.0.1:8126", "Origin": "http://127.0.0.1:8126", "Sec-Fetch-Site": "same-origin"}
    assert not is_stranger(own, loopback_only=True)
    assert not is_stranger({"Host": "viewer:8126"}, loopback_only=False)
    assert is_stranger({"Host": "viewer:8126", "Origin": "http://[broken"}, loopback_only=False)


@pytest.mark.parametrize("batch", [False, True])
async def test_the_last_start_is_kept(session: aiohttp.ClientSession, batch: bool) -> None:
    """What a tracer says of its configuration when it starts is kept, alone or from a batch."""
    started = {"request_type": "app-started", "payload": {"configuration": [{"name": "DD_SERVICE"}]}}
    body = (
        {"request_type": "message-batch", "payload": [{"request_type": "x"}, started]} if batch else started
    )
    await send(session, "POST", "/telemetry/proxy/api/v2/apmtelemetry", json=body)
    await send(session, "POST", "/telemetry/proxy/api/v2/apmtelemetry", json={"request_type": "app-closing"})
    _, kept = await send(session, "GET", f"{API}/telemetry")
    assert kept["payload"] == started["payload"]


async def test_wait_for_in_the_loop_says_what_came(agent: Agent) -> None:
    """A trace that never comes is a TimeoutError with what came instead."""
    agent.store.add([chunk(span(1))])
    with pytest.raises(TimeoutError, match="1 spans of shop"):
        await agent.wait_for(lambda trace: len(trace.spans) == 2, timeout=0.01)


def test_a_taken_port_is_an_error_and_leaves_no_thread() -> None:
    """Two agents cannot have one port; a second stop does nothing."""
    with start_in_thread() as first:
        with pytest.raises(OSError, match="address already in use"):
            start_in_thread(port=first.port)
        first.stop()


async def test_quiet_traces_come_once_and_again_when_they_grow() -> None:
    """A trace is told when it has come to rest, and again, with what was known, when more comes."""
    async with Agent() as agent:
        told = quiet_traces(agent.store, quiet=0.01)
        agent.store.add([chunk(span(1))])
        trace, before = await asyncio.wait_for(anext(told), 5)
        assert (trace.span_count, before) == (1, 0)
        agent.store.add([chunk(span(2), high=None)])
        trace, before = await asyncio.wait_for(anext(told), 5)
        assert (trace.span_count, before) == (2, 1)
        await told.aclose()  # type: ignore[attr-defined]


async def test_waiting_loses_no_cancellation() -> None:
    """Also one that comes in the moment of the time-out, or of the event."""
    for delay in (0, 0.001, 0.002):
        for event in (asyncio.Event(), asyncio.Event()):
            waiting = asyncio.ensure_future(wait_any(event, timeout=0.001))
            await asyncio.sleep(delay)
            event.set()
            if waiting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await waiting


PROGRAM = """
import sys
from ddtrace.trace import tracer
count = int(sys.argv[1])
with tracer.trace("root", service="shop", resource="GET /") as root:
    for number in range(count - 1):
        with tracer.trace("work", resource=str(number)):
            pass
    print(f"{root.trace_id:032x}")
"""


def program(url: str, count: int, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(count)],
        env={"PATH": "", "DD_TRACE_AGENT_URL": url, **env},
        capture_output=True, text=True, check=True, timeout=15,
    )  # fmt: skip


@pytest.mark.parametrize("env", [{}, {"DD_TRACE_API_VERSION": "v0.4"}], ids=["defaults", "v0.4"])
def test_ddtrace_itself_is_understood(env: dict[str, str]) -> None:
    """A trace of real ddtrace, sent in several chunks, is one trace, and ddtrace has nothing to complain about."""
    with start_in_thread() as agent:
        done = program(agent.url, 1_000, **env)
        trace = agent.wait_for(lambda trace: len(trace.spans) == 1_000)
        assert done.stderr == ""
        assert trace.id == done.stdout.strip()
        assert len(agent.store) == 1
        assert trace.root is not None
        assert (trace.root.resource, trace.services) == ("GET /", ["shop"])
        counted = agent.store.counters.snapshot()
        assert {
            name: counted[name] for name in ("bad_payloads", "bad_spans", "duplicate_spans")
        } == dict.fromkeys(("bad_payloads", "bad_spans", "duplicate_spans"), 0)


JOINED = """
import subprocess, sys
from ddtrace.propagation.http import HTTPPropagator
from ddtrace.trace import tracer
headers = dict(arg.split("=", 1) for arg in sys.argv[2:])
parent = HTTPPropagator.extract(headers)
tracer.context_provider.activate(parent)
with tracer.trace("hop", service=sys.argv[1]) as span:
    if not headers:
        HTTPPropagator.inject(span.context, headers)
        again = [sys.executable, "-c", CODE, "worker", *map("=".join, headers.items())]
        subprocess.run(again, check=True)
"""


def test_processes_of_one_trace_are_joined() -> None:
    """What two programs send of one trace is one trace."""
    once = f"CODE = {JOINED!r}\n{JOINED}"
    with start_in_thread() as agent:
        done = subprocess.run(
            [sys.executable, "-c", once, "shop"], env={"PATH": "", "DD_TRACE_AGENT_URL": agent.url},
            capture_output=True, text=True, check=True, timeout=15,
        )  # fmt: skip
        trace = agent.wait_for(lambda trace: len(trace.services) == 2)
        assert done.stderr == ""
        assert trace.services == ["shop", "worker"]
        assert json.dumps(trace.to_json())
