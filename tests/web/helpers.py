"""What the tests of requests have in common."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from aiohttp import web

from asynctrace import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from aiohttp.test_utils import TestServer

    from asynctrace.testing import RecordedSpan, Recorder

REQUEST = "aiohttp.request"


def is_server(one: RecordedSpan) -> bool:
    return one.tags.get("span.kind") == "server"


async def served(traces: Recorder, count: int = 1) -> list[RecordedSpan]:
    """The server's spans, once there are `count`: the client has its answer a moment before they end."""
    await traces.wait_for(lambda recorder: len(list(filter(is_server, recorder.spans))) >= count)
    found = list(filter(is_server, traces.spans))
    assert len(found) == count, traces.report()
    return found


def app_with(
    handler: Callable[[web.Request], Awaitable[Any]], path: str = "/", **kwargs: Any
) -> web.Application:
    """An application of one handler, for every method."""
    app = web.Application(**kwargs)
    app.router.add_route("*", path, handler)
    return app


async def hello(_: web.Request) -> web.Response:
    with span("work"):
        await asyncio.sleep(0)
    return web.Response(text="hello")


async def ask(
    server: TestServer, path: str = "/", method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """One request on a connection of its own, of a client that nobody traces: status and body."""
    said = {"Host": f"127.0.0.1:{server.port}", "Connection": "close", **(headers or {})}
    lines = (f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", "")
    async with connection(server, "\r\n".join(lines)) as client:
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@contextlib.asynccontextmanager
async def connection(server: TestServer, said: str = "") -> AsyncIterator[Connection]:
    """A bare connection, on which `said` has been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(said.encode())
    await writer.drain()
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class Connection:
    """A client that may misbehave."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def abort(self) -> None:
        """Gone, without a word."""
        self.writer.transport.abort()

    async def say(self, text: str | bytes) -> None:
        """More of the request."""
        self.writer.write(text.encode() if isinstance(text, str) else text)
        await self.writer.drain()


GET = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
