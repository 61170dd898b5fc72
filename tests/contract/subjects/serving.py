"""aiohttp's server: a request served, asked for by a client on the same machine."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.web_protocol import RequestHandler

from asynctrace import span, traced_app
from asynctrace.aiohttp import trace_application
from tests.contract.subjects import Base

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from demos.services import Service


class Subject(Base):
    integration = component = "aiohttp"
    spans = 1

    @contextlib.asynccontextmanager
    async def open(self, service: Service | None) -> AsyncIterator[None]:
        self.hanging = asyncio.Event()
        app = self.app = web.Application()
        app.router.add_get("/items/{number}", self.item)
        app.router.add_get("/broken", self.broken)
        app.router.add_get("/hang", self.stay)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        async with aiohttp.ClientSession() as self.session:
            yield
        await runner.cleanup()

    async def item(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        with span("item", tags={"request": number}):
            await asyncio.sleep(0)
        return web.json_response(
            {"number": number, "query": dict(request.query), "keys": len(request.headers)}
        )

    async def broken(self, _: web.Request) -> web.Response:
        raise self.exc

    async def stay(self, _: web.Request) -> web.Response:
        self.hanging.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def operate(self, number: int) -> object:
        async with self.session.get(f"{self.url}/items/{number}?page=2") as reply:
            body = await reply.json()
            del body["keys"]  # the client's trace headers are among them
            return reply.status, body, sorted(reply.headers)

    async def fail(self, exc: Exception) -> None:
        self.exc = exc
        await self.app._handle(make_mocked_request("GET", "/broken", app=self.app))

    async def hang(self, hanging: asyncio.Event) -> None:
        self.hanging = hanging
        await self.app._handle(make_mocked_request("GET", "/hang", app=self.app))

    def doors(self) -> dict[str, Any]:
        doors: dict[type, tuple[str, ...]] = {
            web.Application: ("pre_freeze", "startup", "cleanup"),
            web.WebSocketResponse: ("receive",),
            RequestHandler: ("_handle_request", "connection_lost", "shutdown"),
        }
        return {
            f"{owner.__name__}.{name}": vars(owner)[name] for owner, names in doors.items() for name in names
        }

    def by_hand(self) -> list[tuple[object, object]]:
        return [(app, trace(app)) for trace in (trace_application, traced_app) for app in [web.Application()]]
