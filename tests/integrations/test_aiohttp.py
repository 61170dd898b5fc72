"""aiohttp, server and client, over real sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from asynctrace import span, traced_app, uninstall
from asynctrace.aiohttp import traced_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asynctrace.testing import RecordedSpan, Recorder

REQUEST = "aiohttp.request"


async def hello(_: web.Request) -> web.Response:
    with span("work"):
        await asyncio.sleep(0)
    return web.Response(text="hello")


async def headers(request: web.Request) -> web.Response:
    return web.json_response([list(pair) for pair in request.headers.items()])


def make_app() -> web.Application:
    app = web.Application()
    app.add_routes(
        [
            web.get("/hello/{name}", hello),
            web.get("/headers", headers),
        ]
    )
    return app


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[web.Application], Any]]:
    """Serve applications on real sockets until the end of the test."""
    servers: list[TestServer] = []

    async def start(app: web.Application) -> TestServer:
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()


async def answered(traces: Recorder, count: int, kind: str = "server") -> list[RecordedSpan]:
    """The server's spans, once there are `count`: the client has its answer a moment before they end."""
    while len(found := [one for one in traces.spans if one.tags.get("span.kind") == kind]) < count:
        await asyncio.sleep(0)
    return found


async def test_the_trace_goes_from_client_to_server(installed: Any, serve: Any, traces: Recorder) -> None:
    """Under install(), unchanged programs: the server's span hangs from the client's, that from the caller's."""
    installed("aiohttp")
    server = await serve(make_app())
    async with aiohttp.ClientSession() as session:
        with span("caller"):
            async with session.get(server.make_url("/hello/ann")) as reply:
                with span("between"):
                    await reply.text()
        [request] = await answered(traces, 1)
        [call] = await answered(traces, 1, "client")
    assert call.parent_id == traces.one("caller").span_id
    assert request.parent_id == call.span_id
    assert traces.one("between").parent_id == traces.one("caller").span_id
    assert len({one.trace_id for one in traces.spans}) == 1
    assert (call.name, call.type, call.service) == (REQUEST, "http", "tests")
    expected = {
        "component": "aiohttp_client",
        "http.method": "GET",
        "http.status_code": "200",
        "http.url": str(server.make_url("/hello/ann")),
        "out.host": "127.0.0.1",
        "network.destination.port": server.port,
    }
    assert {key: call.tags.get(key) for key in expected} == expected


async def test_tracing_twice_is_tracing_once(installed: Any, serve: Any, traces: Recorder) -> None:
    """traced_app twice, installed on top, sub-applications: one span a request and a call."""
    installed("aiohttp")
    inner = make_app()
    outer = traced_app(traced_app(web.Application()))
    outer.add_subapp("/inner", inner)
    server = await serve(outer)
    async with traced_session(traced_session(aiohttp.ClientSession())) as session:
        async with session.get(server.make_url("/inner/hello/ann")) as reply:
            assert reply.status == 200
        [request] = await answered(traces, 1)
    assert request.resource == "GET /inner/hello/{name}"
    assert len([one for one in traces.spans if one.name == REQUEST]) == 2


async def test_uninstalled_is_untraced(installed: Any, serve: Any, traces: Recorder) -> None:
    """What was made under install() goes untraced after uninstall()."""
    installed("aiohttp")
    server = await serve(make_app())
    async with aiohttp.ClientSession() as session:
        uninstall()
        async with session.get(server.make_url("/hello/ann")) as reply:
            assert reply.status == 200
    assert [one.name for one in traces.spans] == ["work"]
    assert not hasattr(web.Application.pre_freeze, "__wrapped__")
    assert not hasattr(aiohttp.ClientSession.__init__, "__wrapped__")
