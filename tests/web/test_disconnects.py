"""Clients that leave, and servers that do: told apart, and delivered at once."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asynctrace import span
from tests.web.helpers import GET, app_with, connection, served, until

if TYPE_CHECKING:
    from asynctrace.testing import Recorder

LEAVING = {
    "abort": lambda client: client.abort(),
    "close": lambda client: client.writer.close(),
    "half-close": lambda client: client.writer.write_eof(),
    "reset": lambda client: reset(client),  # noqa: PLW0108 - defined below
}


def reset(client: Any) -> None:
    """The peer is told so: RST instead of FIN."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.abort()


class Waiting:
    """A handler that waits, and says when it does."""

    def __init__(self) -> None:
        self.waits, self.go = asyncio.Event(), asyncio.Event()

    async def handle(self, _: web.Request) -> web.Response:
        with span("wait"):
            self.waits.set()
            await self.go.wait()
        return web.Response(text="late")


@pytest.fixture
async def waiting() -> Waiting:
    return Waiting()


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
async def test_a_handler_that_is_cancelled_when_the_client_leaves(
    traced: Any, traces: Recorder, waiting: Waiting, leave: Any
) -> None:
    """`handler_cancellation` on: the request ends at once, disconnected, no error; what it waited for was cancelled."""
    server = await traced(app_with(waiting.handle), handler_cancellation=True)
    async with connection(server, GET) as client:
        await waiting.waits.wait()
        leave(client)
        [request] = await served(traces)
    wait = traces.one("wait")
    assert (request.outcome, request.error) == ("disconnected", 0)
    assert "http.status_code" not in request.tags
    assert (wait.outcome, wait.tags["async.cancel.source"]) == ("cancelled", "client_disconnected")
    traces.assert_finished()


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
async def test_a_handler_that_goes_on_when_the_client_leaves(
    traced: Any, traces: Recorder, waiting: Waiting, leave: Any
) -> None:
    """`handler_cancellation` off, the default: the handler ends as it will, and the response finds nobody."""
    server = await traced(app_with(waiting.handle))
    async with connection(server, GET) as client:
        await waiting.waits.wait()
        leave(client)
        await until(server.is_left)
        waiting.go.set()
        [request] = await served(traces)
    assert (request.outcome, request.error) == ("disconnected", 0)
    assert traces.one("wait").outcome == "ok"
    traces.assert_finished()


async def test_a_stream_whose_client_leaves(traced: Any, traces: Recorder) -> None:
    """Writing to nobody raises in the handler: the request is disconnected, and was answered with 200."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)
            await asyncio.sleep(0)

    server = await traced(app_with(stream))
    async with connection(server, GET) as client:
        await client.reader.readuntil(b"\r\n\r\n")
        client.abort()
        [request] = await served(traces)
    assert (request.outcome, request.error) == ("disconnected", 0)
    assert request.tags["http.status_code"] == "200"


async def test_an_upload_whose_client_leaves(traced: Any, traces: Recorder) -> None:
    """The body never comes: reading it raises in the handler, and the request is disconnected."""

    async def upload(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    server = await traced(app_with(upload))
    async with connection(server, "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nabc") as client:
        await traces.wait_for(lambda recorder: recorder.open)
        client.abort()
        [request] = await served(traces)
    assert (request.outcome, request.error) == ("disconnected", 0)


async def test_a_file_whose_client_leaves(traced: Any, traces: Recorder, tmp_path: Any) -> None:
    """Sent by the system, it is cut off by the client."""
    path = tmp_path / "big"
    path.write_bytes(b"x" * 30_000_000)

    async def file(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    server = await traced(app_with(file))
    async with connection(server, GET) as client:
        await client.reader.readuntil(b"\r\n\r\n")
        client.abort()
        [request] = await served(traces)
    assert (request.outcome, request.error) == ("disconnected", 0)


async def test_an_error_is_one_also_when_the_client_has_left(
    traced: Any, traces: Recorder, waiting: Waiting
) -> None:
    """A fault of the handler's is nobody else's."""

    async def handler(request: web.Request) -> web.Response:
        await waiting.handle(request)
        raise RuntimeError("out of tea")

    server = await traced(app_with(handler))
    async with connection(server, GET) as client:
        await waiting.waits.wait()
        client.abort()
        await until(server.is_left)
        waiting.go.set()
        [request] = await served(traces)
    assert (request.outcome, request.error) == ("error", 1)


async def test_a_server_that_shuts_down(traced: Any, traces: Recorder, waiting: Waiting) -> None:
    """A request it gives up is cancelled, and says by whom; the client is still there."""
    server = await traced(app_with(waiting.handle), shutdown_timeout=0.01)
    async with connection(server, GET) as client:
        await waiting.waits.wait()
        await server.close()
        [request] = await served(traces)
        assert await client.reader.read() == b""
    for one in (request, traces.one("wait")):
        assert (one.outcome, one.error) == ("cancelled", 0)
        assert one.tags["async.cancel.source"] == "server_shutdown"
    traces.assert_finished()


async def test_a_server_that_waits_for_its_requests(traced: Any, traces: Recorder, waiting: Waiting) -> None:
    """One that ends within the server's patience is answered, and ok."""
    server = await traced(app_with(waiting.handle), shutdown_timeout=10)
    async with connection(server, GET) as client:
        await waiting.waits.wait()
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        waiting.go.set()
        assert (await client.reader.read()).endswith(b"late")
        await closing
    [request] = await served(traces)
    assert (request.outcome, request.tags["http.status_code"]) == ("ok", "200")


async def test_a_handler_that_is_cancelled_by_the_program(traced: Any, traces: Recorder) -> None:
    """Neither client nor server has left: cancelled, and nobody is accused."""

    async def handler(_: web.Request) -> web.Response:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()
        raise AssertionError

    server = await traced(app_with(handler))
    async with connection(server, GET) as client:
        await client.reader.read()
        [request] = await served(traces)
    assert (request.outcome, request.error) == ("cancelled", 0)
    assert "async.cancel.source" not in request.tags


async def test_upstream_that_resets_is_an_error(traced: Any, traces: Recorder) -> None:
    """A ConnectionError of another connection is the handler's, while the client is there."""

    async def handler(_: web.Request) -> web.Response:
        raise ConnectionResetError("the database's")

    server = await traced(app_with(handler))
    async with connection(server, GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")) as client:
        assert b" 500 " in await client.reader.read()
    [request] = await served(traces)
    assert (request.outcome, request.tags["http.status_code"]) == ("error", "500")


async def test_requests_before_the_last_one_keep_their_outcome(traced: Any, traces: Recorder) -> None:
    """A client that leaves between two requests has disconnected from none."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    server = await traced(app_with(handler))
    async with connection(server, GET) as client:
        await client.reader.readuntil(b"\r\n\r\n")
        client.abort()
        await until(server.is_left)
    [request] = await served(traces)
    assert request.outcome == "ok"
