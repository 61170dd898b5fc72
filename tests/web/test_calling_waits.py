"""Where the time of a call goes."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from asynctrace import span
from asynctrace.agent.analysis import waits as viewer
from asynctrace.aiohttp.client import waits
from tests.web.calls import call, calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import RecordedSpan, Recorder
    from tests.web.peer import Asked, Peer

CONNECTING = {waits.CONNECT, waits.TTFB, waits.BODY}


@pytest.fixture(autouse=True)
def _on(installed: Callable[..., None]) -> None:
    installed("aiohttp")


def figures(one: RecordedSpan) -> dict[str, float]:
    return {key: value for key, value in one.tags.items() if key.startswith("http.client.")}


class Resolver(AbstractResolver):
    """Every name is this machine; a span of the user's in it."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
        with span("resolve"):
            await asyncio.sleep(0)
        return [
            {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        ]

    async def close(self) -> None: ...


def test_the_viewer_knows_these_names() -> None:
    """What is measured here is drawn there, in this order."""
    names = (waits.POOL, waits.DNS, waits.CONNECT, waits.TTFB, waits.BODY)
    assert tuple(name for name, *_ in viewer._CLIENT) == names


async def test_a_new_connection_and_one_of_the_pool(peer: Peer, traces: Recorder) -> None:
    """Connecting is told where there was some; the figures are parts of the span."""
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(peer.url()) as reply:
                await reply.read()
    new, pooled = await calls(traces, 2)
    assert figures(new).keys() == CONNECTING
    assert figures(pooled).keys() == CONNECTING - {waits.CONNECT}
    for one in (new, pooled):
        assert all(value >= 0 for value in figures(one).values())
        assert sum(figures(one).values()) <= ((one.end_ns or 0) - one.start_ns) / 1e6


async def test_a_name_that_is_looked_up(peer: Peer, traces: Recorder) -> None:
    """DNS has its own figure, and none when the address is known; the resolver runs in the call."""
    connector = aiohttp.TCPConnector(resolver=Resolver(), force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        for _ in range(2):
            async with session.get(peer.url(host="tea.example")) as reply:
                await reply.read()
    first, second = await calls(traces, 2)
    assert figures(first).keys() == CONNECTING | {waits.DNS}
    assert figures(second).keys() == CONNECTING
    assert traces.one("resolve").parent_id == first.span_id


async def test_waiting_for_the_pool(peer: Peer, traces: Recorder) -> None:
    """Where all connections are taken; one that waits in vain has the figure, too."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        came, goes_on = asyncio.Event(), asyncio.Event()

        async def slow(asked: Asked) -> None:
            came.set()
            await goes_on.wait()
            await asked.answer()

        peer.routes["/slow"] = slow
        first = asyncio.ensure_future(session.get(peer.url("/slow")))
        await came.wait()
        with pytest.raises(asyncio.TimeoutError):
            await session.get(peer.url("/vain"), timeout=aiohttp.ClientTimeout(connect=0.02))
        second = asyncio.ensure_future(session.get(peer.url("/second")))
        await asyncio.sleep(0)
        goes_on.set()
        (await first).release()
        (await second).release()
    by_path = {one.resource: figures(one) for one in await calls(traces, 3)}
    assert by_path["GET /vain"].keys() == {waits.POOL}
    assert by_path["GET /vain"][waits.POOL] > 0
    assert by_path["GET /second"].keys() == {waits.POOL, waits.TTFB, waits.BODY}
    assert waits.POOL not in by_path["GET /slow"]


async def test_the_first_byte_and_the_body(peer: Peer, traces: Recorder) -> None:
    """The server's work is the wait for the first byte; what comes after the headers is the body's."""
    answer, body = asyncio.Event(), asyncio.Event()
    clock: list[int] = []

    async def in_two(asked: Asked) -> None:
        clock.append(perf_counter_ns())
        await answer.wait()
        clock.append(perf_counter_ns())
        await asked.say("HTTP/1.1 200 OK", "Content-Length: 3")
        await body.wait()
        clock.append(perf_counter_ns())
        asked.writer.write(b"tea")

    peer.routes["/"] = in_two
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        loop.call_later(0.03, answer.set)
        async with session.get(peer.url()) as reply:
            clock.append(perf_counter_ns())
            loop.call_later(0.05, body.set)
            await reply.read()
    asked, answered, came, over = clock
    found = figures(await call(traces))
    assert found[waits.TTFB] >= (answered - asked) / 1e6
    assert found[waits.BODY] >= (over - came) / 1e6


async def test_the_user_is_told_what_the_user_asks_for(peer: Peer, traces: Recorder) -> None:
    """Hooks of the user's see what they always saw; the list of them is not written to."""
    seen: list[str] = []
    theirs = aiohttp.TraceConfig()
    for name in ("request_start", "connection_create_start", "connection_create_end", "request_end"):

        async def hook(*_: object, name: str = name) -> None:
            seen.append(name)

        getattr(theirs, f"on_{name}").append(hook)
    shared = [theirs]
    async with aiohttp.ClientSession(trace_configs=shared) as session:
        (await session.get(peer.url())).release()
        assert session.trace_configs is shared
    assert shared == [theirs]
    assert seen == ["request_start", "connection_create_start", "connection_create_end", "request_end"]
    await call(traces)
