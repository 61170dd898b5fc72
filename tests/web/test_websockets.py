"""WebSockets: one span for the connection; by option one for each message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from asynctrace import current_span, span
from asynctrace.aiohttp import install
from tests.web.helpers import app_with, is_server, served, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctrace.testing import RecordedSpan, Recorder


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        with span("work"):
            if message.data == "break":
                raise RuntimeError("out of tea")
            if message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            else:
                await socket.send_str(message.data)
    return socket


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """One that nobody traces: made before anything is installed."""
    async with aiohttp.ClientSession() as made:
        yield made


def messages(traces: Recorder) -> list[RecordedSpan]:
    return [one for one in traces.spans if one.name == "websocket.receive"]


async def test_the_connections_span_lasts_until_it_is_closed(
    session: aiohttp.ClientSession, traced: Any, traces: Recorder
) -> None:
    """One span, with its messages' work below it; upgraded is no error."""
    server = await traced(app_with(echo))
    async with session.ws_connect(server.make_url("/")) as socket:
        for text in ("a", "b"):
            await socket.send_str(text)
            assert await socket.receive_str() == text
        assert any(map(is_server, traces.open))
    [request] = await served(traces)
    assert (request.outcome, request.tags["http.status_code"]) == ("ok", "101")
    assert (request.tags["http.upgraded"], request.tags["websocket.close.code"]) == ("websocket", 1000)
    assert [one.parent_id for one in traces.spans if one.name == "work"] == [request.span_id] * 2
    assert messages(traces) == []


async def test_a_client_that_drops_the_connection(
    session: aiohttp.ClientSession, traced: Any, traces: Recorder
) -> None:
    """Without a word: disconnected."""
    server = await traced(app_with(echo))
    socket = await session.ws_connect(server.make_url("/"))
    await socket.send_str("a")
    await socket.receive_str()
    transport = socket.get_extra_info("socket") and socket._writer.transport
    transport.abort()
    await until(server.is_left)
    [request] = await served(traces)
    assert (request.outcome, request.error) == ("disconnected", 0)
    assert request.tags["websocket.close.code"] == 1006
    await socket.close()


async def test_a_handler_that_fails(session: aiohttp.ClientSession, traced: Any, traces: Recorder) -> None:
    """The connection's span has the error, and its status is what the client was told."""
    server = await traced(app_with(echo))
    async with session.ws_connect(server.make_url("/")) as socket:
        await socket.send_str("break")
        await socket.receive()
    [request] = await served(traces)
    assert (request.error, request.tags["http.status_code"]) == (1, "101")


async def test_a_handshake_that_is_none(traced: Any, traces: Recorder) -> None:
    """A plain request is answered with 400, and ends as one."""
    from tests.web.helpers import ask

    server = await traced(app_with(echo))
    assert (await ask(server))[0] == 400
    [request] = await served(traces)
    assert (request.outcome, request.tags["http.status_code"]) == ("ok", "400")
    assert "http.upgraded" not in request.tags


@pytest.mark.parametrize(
    "name", ["ASYNCTRACE_AIOHTTP_WEBSOCKET_MESSAGES", "DD_TRACE_WEBSOCKET_MESSAGES_ENABLED", ""]
)
async def test_a_span_for_each_message(
    monkeypatch: pytest.MonkeyPatch, session: aiohttp.ClientSession, serve: Any, traces: Recorder, name: str
) -> None:
    """By option: a trace of its own, linked to the connection's span, active until the next message is asked for."""
    if name:
        monkeypatch.setenv(name, "true")
        install()
    else:
        install(websocket_messages=True)
    server = await serve(app_with(echo, "/ws/{room}"))
    async with session.ws_connect(server.make_url("/ws/7")) as socket:
        await socket.send_str("tea ☕")
        await socket.receive()
        await socket.send_bytes(b"xyz")
        await socket.receive()
    [request] = await served(traces)
    text, binary = messages(traces)
    assert (text.resource, text.type, text.parent_id) == ("websocket /ws/{room}", "websocket", None)
    assert (text.tags["websocket.message.type"], text.tags["websocket.message.length"]) == ("text", 7)
    assert (binary.tags["websocket.message.type"], binary.tags["websocket.message.length"]) == ("binary", 3)
    for one in (text, binary):
        [link] = one.links
        assert (link.trace_id, link.span_id) == (request.trace_id, request.span_id)
        assert link.attributes["dd.kind"] == "executed_by"
    assert [one.parent_id for one in traces.spans if one.name == "work"] == [text.span_id, binary.span_id]
    traces.assert_finished()


async def test_the_message_in_hand_when_the_handler_fails(
    session: aiohttp.ClientSession, serve: Any, traces: Recorder
) -> None:
    """Its span has the error, and ends."""
    install(websocket_messages=True)
    server = await serve(app_with(echo))
    async with session.ws_connect(server.make_url("/")) as socket:
        await socket.send_str("break")
        await socket.receive()
    await served(traces)
    [message] = messages(traces)
    assert (message.error, message.tags["error.message"]) == (1, "out of tea")


async def test_messages_are_received_as_ever(
    session: aiohttp.ClientSession, serve: Any, traces: Recorder
) -> None:
    """By `receive_json`, with a timeout, in a task: what was asked for comes, and between messages nothing stays."""
    install(websocket_messages=True)
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        with pytest.raises(asyncio.TimeoutError):
            await socket.receive(timeout=0.01)
        seen.append(current_span())
        await socket.send_str("go")
        seen.append(await socket.receive_json())
        seen.append(await asyncio.create_task(socket.receive_str()))
        return socket

    server = await serve(app_with(handler))
    async with session.ws_connect(server.make_url("/")) as socket:
        await socket.receive()
        await socket.send_json({"a": 1})
        await socket.send_str("b")
        await socket.receive()
    [request] = await served(traces)
    assert seen[0] is not None
    assert (seen[0].name, seen[1:]) == (request.name, [{"a": 1}, "b"])
    assert len(messages(traces)) == 2
    traces.assert_finished()
