"""What the tests of requests have in common."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from asynctrace import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from asynctrace.testing import RecordedSpan, Recorder

REQUEST = "aiohttp.request"


class Server:
    """An application, served."""

    def __init__(self, runner: web.AppRunner) -> None:
        self.runner = runner

    @property
    def port(self) -> int:
        port: int = self.runner.addresses[0][1]
        return port

    def make_url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def is_left(self) -> bool:
        """Whether no client is connected any more, as far as the server has noticed."""
        server = self.runner.server
        return server is not None and all(one.transport is None for one in server.connections)

    async def close(self) -> None:
        """As `run_app` ends."""
        await self.runner.cleanup()


async def until(met: Callable[[], object]) -> None:
    """Turn the loop until something is so that nobody tells."""
    end = time.monotonic() + 5
    while not met():
        assert time.monotonic() < end
        await asyncio.sleep(0)


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
    server: Server, path: str = "/", method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """One request on a connection of its own, of a client that nobody traces: status and body."""
    said = {"Host": f"127.0.0.1:{server.port}", "Connection": "close", **(headers or {})}
    lines = (f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", "")
    async with connection(server, "\r\n".join(lines)) as client:
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@contextlib.asynccontextmanager
async def connection(server: Server | int, said: str = "") -> AsyncIterator[Connection]:
    """A bare connection to a server, or a port, on which `said` has been sent."""
    port = server if isinstance(server, int) else server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said.encode())
    await writer.drain()
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def at(port: int) -> None:
    """Come back once somebody listens there."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


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
