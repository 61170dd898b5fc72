"""Servers on real sockets, gone at the end of the test: traced, untraced, and bare ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asynctrace import aiohttp as traced_aiohttp, traced_app
from tests.web.helpers import Server
from tests.web.peer import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.web.peer import Peer


@pytest.fixture(autouse=True)
def by_hand_too() -> Iterator[None]:
    """What tracing by hand patches, where nothing is installed, comes off, too."""
    yield
    traced_aiohttp.uninstall()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Serve applications on real sockets until the end of the test; keywords are the runner's."""
    servers: list[Server] = []

    async def start(app: web.Application, **kwargs: Any) -> Server:
        runner = web.AppRunner(app, access_log=None, **{"shutdown_timeout": 1, **kwargs})
        server = Server(runner)
        servers.append(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def traced(serve: Callable[..., Any]) -> Callable[..., Any]:
    """Serve an application that `traced_app` has traced."""

    async def start(app: web.Application, **kwargs: Any) -> Server:
        server: Server = await serve(traced_app(app), **kwargs)
        return server

    return start


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A server on a bare socket."""
    async with listening() as listener:
        yield listener
