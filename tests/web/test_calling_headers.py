"""Trace headers of requests sent: the caller's own stay as they are, and arrive complete."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from ddtrace.trace import tracer
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict

from asynctrace import SpanContext, attached, span
from tests.web.calls import call, calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from tests.web.peer import Asked, Peer

PAIRS = (("X-Tenant", "a"), ("X-Many", "1"), ("X-Many", "2"), ("Traceparent", "stale"), ("b3", "0"))
ONCE = dict(PAIRS)
LEGAL: dict[str, Any] = {
    "dict": ONCE,
    "pairs": list(PAIRS),
    "tuple": PAIRS,
    "CIMultiDict": CIMultiDict(PAIRS),
    "MultiDict": MultiDict(PAIRS),
    "CIMultiDictProxy": CIMultiDictProxy(CIMultiDict(PAIRS)),
}


@pytest.fixture(autouse=True)
def _on(installed: Callable[..., None]) -> None:
    installed("aiohttp")


def replaced(asked: Asked, one: Any) -> bool:
    """Whether a request names this call, once, and nothing else."""
    [traceparent], [state] = asked.all("traceparent"), asked.all("tracestate")
    return (
        traceparent.startswith(f"00-{one.trace_id:032x}-{one.span_id:016x}-")
        and f"p:{one.span_id:016x}" in state
        and asked.all("x-datadog-trace-id") == [str(one.trace_id % 2**64)]
        and asked.all("x-datadog-parent-id") == [str(one.span_id)]
        and f"_dd.p.tid={one.trace_id >> 64:016x}" in asked.all("x-datadog-tags")[0]
        and len(asked.all("x-datadog-sampling-priority")) == 1
        and not asked.all("b3")
    )


@pytest.mark.parametrize("kind", LEGAL)
async def test_headers_of_every_legal_type(peer: Peer, traces: Recorder, kind: str) -> None:
    """They are not changed, each of them arrives, and stale trace headers are replaced, whatever their case."""
    given = LEGAL[kind]
    before = list(given.items() if hasattr(given, "items") else given)
    async with aiohttp.ClientSession() as session:
        (await session.get(peer.url(), headers=given)).release()
    assert list(given.items() if hasattr(given, "items") else given) == before
    [asked] = peer.asked
    assert asked.all("x-tenant") == ["a"]
    assert asked.all("x-many") == (["2"] if kind == "dict" else ["1", "2"])
    assert replaced(asked, await call(traces))


async def test_headers_of_the_session(peer: Peer, traces: Recorder) -> None:
    """A session made with the headers of some request names its own calls, and keeps what it was given."""
    stale = {"traceparent": "stale", "b3": "0", "X-Tenant": "a", "x-datadog-origin": "rum"}
    async with aiohttp.ClientSession(headers=stale) as session:
        (await session.get(peer.url(), headers=None)).release()
        assert dict(session.headers) == stale
    [asked] = peer.asked
    assert asked.all("x-tenant") == ["a"]
    assert asked.all("x-datadog-origin") == []
    assert replaced(asked, await call(traces))


async def test_headers_that_concurrent_calls_share(peer: Peer, traces: Recorder) -> None:
    """Each of fifty calls names itself, and the headers stay as they were."""
    shared = CIMultiDict({"X-Tenant": "a"})
    async with aiohttp.ClientSession() as session:
        replies = await asyncio.gather(*(session.get(peer.url(), headers=shared) for _ in range(50)))
        for reply in replies:
            await reply.read()
    assert dict(shared) == {"X-Tenant": "a"}
    by_id = {str(one.span_id): one for one in await calls(traces, 50)}
    assert all(replaced(asked, by_id.pop(asked.all("x-datadog-parent-id")[0])) for asked in peer.asked)
    assert by_id == {}


async def test_what_came_with_the_trace_goes_on(peer: Peer, traces: Recorder) -> None:
    """128 bits, other vendors' tracestate, origin, baggage."""
    came = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "congo=t61rcWkgMzE,dd=s:2;o:rum;t.dm:-4",
        "baggage": "tenant=a",
    }
    with attached(SpanContext.extract(came)):
        async with aiohttp.ClientSession() as session:
            (await session.get(peer.url())).release()
    one = await call(traces)
    [asked] = peer.asked
    assert one.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert asked.all("traceparent") == [f"00-{one.trace_id:032x}-{one.span_id:016x}-01"]
    assert "congo=t61rcWkgMzE" in asked.all("tracestate")[0]
    assert asked.all("x-datadog-origin") == ["rum"]
    assert asked.all("baggage") == ["tenant=a"]


async def test_a_trace_that_is_sampled_out_says_so(peer: Peer, traces: Recorder) -> None:
    """Both families say that it is not kept."""
    with span("caller") as caller:
        caller.set_tag("manual.drop")
        async with aiohttp.ClientSession() as session:
            (await session.get(peer.url())).release()
    [asked] = peer.asked
    assert asked.all("traceparent")[0].endswith("-00")
    assert asked.all("x-datadog-sampling-priority") == ["-1"]
    assert traces is not None


async def test_the_headers_are_those_that_ddtrace_would_write(peer: Peer, traces: Recorder) -> None:
    """All of them, as its own propagator has them."""
    with tracer.trace("caller"):
        async with aiohttp.ClientSession() as session:
            (await session.get(peer.url())).release()
    one = await call(traces)
    [asked] = peer.asked
    ours = {
        key.lower(): value
        for key, value in asked.headers
        if key.lower().startswith(("x-datadog", "trace", "bagg"))
    }
    again = SpanContext.extract(ours).inject({})
    assert (int(again["x-datadog-parent-id"]), again["x-datadog-tags"]) == (
        one.span_id,
        ours["x-datadog-tags"],
    )
    assert ours.keys() == {
        "x-datadog-trace-id",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-tags",
        "traceparent",
        "tracestate",
    }


async def test_a_connector_with_ways_of_its_own(peer: Peer, traces: Recorder) -> None:
    """Whose requests are not seen on their way: they have their headers, too."""

    class Own(aiohttp.TCPConnector):
        connect = vars(aiohttp.BaseConnector)["connect"].__wrapped__

    mine = {"X-Tenant": "a", "Traceparent": "stale"}
    async with aiohttp.ClientSession(connector=Own()) as session:
        (await session.get(peer.url(), headers=mine)).release()
        (await session.get(peer.url())).release()
    assert mine == {"X-Tenant": "a", "Traceparent": "stale"}
    for asked, one in zip(peer.asked, await calls(traces, 2), strict=True):
        assert replaced(asked, one)
    assert peer.asked[0].all("x-tenant") == ["a"]
