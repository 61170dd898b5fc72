"""The end of a call: its body is read, released or dropped."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from asynctrace import span
from tests.web.calls import call, calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asynctrace.testing import Recorder
    from tests.web.peer import Asked, Peer


@pytest.fixture(autouse=True)
def _on(installed: Callable[..., None]) -> None:
    installed("aiohttp")


@pytest.fixture
def more(peer: Peer) -> asyncio.Queue[bytes | None]:
    """`/stream` has 1000 bytes, of which those come that are put here; None cuts the connection."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def stream(asked: Asked) -> None:
        await asked.say("HTTP/1.1 200 OK", "Content-Length: 1000")
        left = 1000
        while left and (piece := await queue.get()) is not None:
            asked.writer.write(piece)
            left -= len(piece)
        if left:
            asked.writer.transport.abort()

    peer.routes["/stream"] = stream
    return queue


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_end_of_the_body_is_the_end_of_the_call(
    peer: Peer, traces: Recorder, session: Any, more: Any
) -> None:
    """However it is read; until then the call goes on, and its span is not the reader's."""
    async with session.get(peer.url("/stream")) as reply:
        assert len(traces.open) == 1
        more.put_nowait(b"a" * 400)
        assert len(await reply.content.readexactly(400)) == 400
        assert len(traces.open) == 1
        more.put_nowait(b"b" * 600)
        assert len(await reply.read()) == 600
        one = await call(traces)
        assert (one.outcome, one.error) == ("ok", 0)
    async with session.get(peer.url("/stream")) as reply:
        more.put_nowait(b"c" * 1000)
        assert sum([len(piece) async for piece in reply.content.iter_any()]) == 1000
        await calls(traces, 2)


async def test_released_or_closed_unread(peer: Peer, traces: Recorder, session: Any, more: Any) -> None:
    """Left early: `closed`, which is no error, and the span ends there and then."""
    for leave in ("release", "close", "block", "broken block"):
        with span(leave):
            reply = await session.get(peer.url("/stream"))
            if leave == "block":
                async with reply:
                    pass
            elif leave == "broken block":
                with pytest.raises(KeyError):
                    async with reply:
                        raise KeyError
            else:
                getattr(reply, leave)()
        assert traces.open == []
        more.put_nowait(None)
    assert [(one.outcome, one.error) for one in await calls(traces, 4)] == [("closed", 0)] * 4


async def test_dropped_unread(peer: Peer, traces: Recorder, session: Any) -> None:
    """A response that nobody holds is freed as it always was, and its call ends."""
    reply = await session.get(peer.url())
    gone = weakref.ref(reply)
    del reply
    assert gone() is None
    one = await call(traces)
    assert one.outcome == "ok"  # its body was there


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_dropped_in_the_midst(peer: Peer, traces: Recorder, more: Any) -> None:
    """With the session closed nothing of the call is left, neither open nor in memory. aiohttp complains as ever."""
    async with aiohttp.ClientSession() as session:
        reply = await session.get(peer.url("/stream"))
        gone = weakref.ref(reply)
        del reply
    gc.collect()  # a body that is not there yet holds its response, in aiohttp itself
    assert gone() is None
    assert traces.open == []
    more.put_nowait(None)
    assert (await call(traces)).outcome in {"closed", "error"}


async def test_a_body_that_breaks_off(peer: Peer, traces: Recorder, session: Any, more: Any) -> None:
    """aiohttp's own exception, for the reader and on the span."""
    async with session.get(peer.url("/stream")) as reply:
        more.put_nowait(b"a")
        more.put_nowait(None)
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
    async with session.get(peer.url("/stream")) as reply:
        more.put_nowait(None)
        with pytest.raises(aiohttp.ClientPayloadError):
            async for _ in reply.content.iter_any():
                pass
    for one in await calls(traces, 2):
        assert (one.outcome, one.error, one.tags["http.status_code"]) == ("error", 1, "200")
        assert one.tags["error.type"] == "aiohttp.client_exceptions.ClientPayloadError"


async def test_deadlines_and_cancellation_while_it_is_read(
    peer: Peer, traces: Recorder, session: Any, more: Any
) -> None:
    """aiohttp's deadline is a timeout; the reader's cancels, and is named; so does a plain cancellation."""
    with pytest.raises(asyncio.TimeoutError):
        async with session.get(peer.url("/stream"), timeout=aiohttp.ClientTimeout(total=0.05)) as reply:
            await reply.read()
    more.put_nowait(None)

    async def read(came: asyncio.Event) -> None:
        with span("reader"):
            async with session.get(peer.url("/stream")) as reply:
                came.set()
                async for _ in reply.content.iter_any():
                    pass

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(read(asyncio.Event()), 0.05)
    more.put_nowait(None)
    task = asyncio.create_task(read(came := asyncio.Event()))
    await came.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    more.put_nowait(None)
    found = await calls(traces, 3)
    assert [(one.outcome, one.error) for one in found] == [("timeout", 1), ("cancelled", 0), ("cancelled", 0)]


async def test_a_body_read_elsewhere(peer: Peer, traces: Recorder, session: Any, more: Any) -> None:
    """Another task reads it, after the caller's span has ended: the call is where it was, and complete."""
    with span("caller"):
        reply = await session.get(peer.url("/stream"))

    async def read() -> int:
        with span("reader"):
            return len(await reply.read())

    task = asyncio.create_task(read())
    more.put_nowait(b"a" * 1000)
    assert await task == 1000
    one = await call(traces)
    assert one.parent_id == traces.one("caller").span_id
    assert (one.outcome, traces.one("reader").trace_id != one.trace_id) == ("ok", True)


async def test_a_websocket_is_its_handshake(traces: Recorder, peer: Peer, session: Any) -> None:
    """`ws_connect`: one span, over when the connection is there; what is sent on it is the caller's. Refused: error."""
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", echo)
    async with TestServer(app) as server:
        with span("caller"):
            async with session.ws_connect(server.make_url("/ws"), heartbeat=30) as socket:
                one = await call(traces)
                with span("talk") as talk:
                    await socket.send_str("tea")
                    assert (await socket.receive()).data == "tea"
    assert (one.resource, one.tags["http.status_code"], one.outcome) == ("GET /ws", "101", "ok")
    assert "http.client.body_ms" not in one.tags
    assert talk.trace_id == one.trace_id
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(peer.url())
