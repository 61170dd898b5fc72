"""Requests over real sockets, under each contender's own integration of aiohttp; server and client in one process."""

from __future__ import annotations

import asyncio
import functools
import importlib
from typing import TYPE_CHECKING, Any

from tests.bench.rows import LOT, Row, below_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import ClientSession, web

    from tests.bench.kits import Kit
    from tests.bench.rows import Operations


def application() -> web.Application:
    from aiohttp import web  # not above: `--help` needs no environment

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"hello {request.match_info['name']}")

    app = web.Application()
    app.router.add_get("/hello/{name}", hello)
    return app


class Site:
    """An application that serves; the port it is given."""

    def __init__(self, app: web.Application) -> None:
        from aiohttp import web

        self.web, self.runner = web, web.AppRunner(app)

    async def start(self) -> int:
        await self.runner.setup()
        site = self.web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        port: int = self.runner.addresses[0][1]
        return port


class Wire:
    """One connection that stays, without a client library on it: what asking costs is the same for everyone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> bytes:
        """The answer's body."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        return await self.reader.readexactly(length)


def by_ddtrace(app: web.Application) -> None:
    import ddtrace
    from ddtrace.contrib.aiohttp import trace_app

    ddtrace.patch(aiohttp=True)
    trace_app(app)  # type: ignore[no-untyped-call]


@functools.cache
def instrumented() -> str:
    """Once a process: it complains of a second time. "" when it is."""
    try:
        for side, name in (("server", "AioHttpServer"), ("client", "AioHttpClient")):
            module: Any = importlib.import_module(f"opentelemetry.instrumentation.aiohttp_{side}")
            getattr(module, f"{name}Instrumentor")().instrument()
    except ImportError:
        return "no instrumentation installed"
    return ""


class Served(Row):
    """What rows with a server have in common: each contender's way to trace an application."""

    sites: tuple[Site, ...] = ()

    def operations(self, kit: Kit, trace: Callable[[web.Application], object]) -> Operations:
        raise NotImplementedError

    def bare(self, kit: Kit) -> Operations | str:
        return self.operations(kit, lambda _: None)

    def ddtrace(self, kit: Kit) -> Operations | str:
        return self.operations(kit, by_ddtrace)

    def opentelemetry(self, kit: Kit) -> Operations | str:
        return instrumented() or self.bare(kit)

    def asynctrace(self, kit: Kit) -> Operations | str:
        return self.bare(kit)

    async def serve(self, app: web.Application) -> int:
        site = Site(app)
        self.sites += (site,)
        return await site.start()

    async def close(self) -> None:
        for site in self.sites:
            await site.runner.cleanup()


class Hello(Served):
    """server hello"""

    note = "GET /hello/{name} over a kept connection, asked by bare bytes: what is traced is the server only"

    def operations(self, kit: Kit, trace: Callable[[web.Application], object]) -> Operations:
        wire: Wire | None = None

        async def operations(count: int) -> None:
            nonlocal wire
            if wire is None:
                trace(app := application())
                wire = await Wire.to(await self.serve(app))
            for _ in range(count):
                await wire.ask(b"GET /hello/ann HTTP/1.1\r\nHost: localhost\r\n\r\n")

        return operations


class Fetch(Served):
    """client to server"""

    note = (
        "the same asked by an aiohttp session, traced too, in the same process; with its share of a root span"
    )

    session: ClientSession | None = None

    def operations(self, kit: Kit, trace: Callable[[web.Application], object]) -> Operations:
        url = ""

        async def lot() -> None:
            nonlocal url
            if self.session is None:
                from aiohttp import ClientSession

                trace(app := application())
                url = f"http://127.0.0.1:{await self.serve(app)}/hello/ann"
                self.session = ClientSession()
            for _ in range(LOT):
                async with self.session.get(url) as reply:
                    await reply.read()

        return below_root(kit, lot)

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()
        await super().close()


ROWS = (Hello, Fetch)
