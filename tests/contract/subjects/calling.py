"""aiohttp's client: a request sent, and its answer read."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp

from asynctrace import span
from asynctrace.aiohttp import traced_session
from asynctrace.aiohttp.client.connections import DOORS
from tests.contract.subjects import Base
from tests.web.peer import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from demos.services import Service
    from tests.web.peer import Asked


class Subject(Base):
    integration = "aiohttp"
    component = "aiohttp_client"
    spans = 1

    @contextlib.asynccontextmanager
    async def open(self, service: Service | None) -> AsyncIterator[None]:
        self.hanging = asyncio.Event()
        async with listening() as self.peer, aiohttp.ClientSession() as self.session:
            self.peer.routes.update({"/echo": self.echo, "/hang": self.hang_on})
            yield

    async def echo(self, asked: Asked) -> None:
        await asked.answer(body=asked.body)

    async def hang_on(self, _: Asked) -> None:
        self.hanging.set()
        await asyncio.get_running_loop().create_future()

    async def operate(self, number: int) -> object:
        async with self.session.post(self.peer.url("/echo"), data=b"%d" % number) as reply:
            with span("read", tags={"request": number}):
                return type(reply), reply.status, await reply.read()

    async def fail(self, exc: Exception) -> None:
        async def hook(*_: object) -> None:
            raise exc

        hooks = aiohttp.TraceConfig()
        hooks.on_request_start.append(hook)
        async with aiohttp.ClientSession(trace_configs=[hooks]) as session:
            await session.get(self.peer.url())

    async def hang(self, hanging: asyncio.Event) -> None:
        self.hanging = hanging
        await self.session.get(self.peer.url("/hang"))

    def doors(self) -> dict[str, Any]:
        doors = [(aiohttp.ClientSession, "_request"), *((owner, name) for owner, name, _ in DOORS)]
        return {f"{owner.__name__}.{name}": vars(owner)[name] for owner, name in doors if name in vars(owner)}

    def by_hand(self) -> list[tuple[object, object]]:
        return [(self.session, traced_session(self.session))]
