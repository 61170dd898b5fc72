"""aiohttp, server and client, over real sockets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from asynctrace import UsageError, span, traced_app, uninstall
from asynctrace.aiohttp import traced_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asynctrace.testing import RecordedSpan, Recorder

REQUEST = "aiohttp.request"


async def hello(_: web.Request) -> web.Response:
    with span("work"):
        await asyncio.sleep(0)
    return web.Response(text="hello")


RAISED: dict[int, Callable[[], web.HTTPException]] = {
    404: web.HTTPNotFound,
    302: lambda: web.HTTPFound("/"),
    503: web.HTTPServiceUnavailable,
}


async def status(request: web.Request) -> web.Response:
    code = int(request.match_info["code"])
    if request.query.get("raised"):
        raise RAISED[code]()  # noqa: RSE102 - its result is raised
    return web.Response(status=code)


async def broken(_: web.Request) -> web.Response:
    raise RuntimeError("out of tea")


async def headers(request: web.Request) -> web.Response:
    return web.json_response([list(pair) for pair in request.headers.items()])


def make_app() -> web.Application:
    app = web.Application()
    app.add_routes(
        [
            web.get("/hello/{name}", hello),
            web.get("/status/{code}", status),
            web.get("/broken", broken),
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


async def test_a_served_request_has_its_route_as_resource(serve: Any, traces: Recorder) -> None:
    """traced_app traces the application it gives back: route, status, and the tags Datadog knows."""
    server = await serve(traced_app(make_app)())
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/hello/ann?secret=1")) as reply,
    ):
        assert reply.status == 200
    [request] = await answered(traces, 1)
    assert (request.name, request.resource, request.type) == (REQUEST, "GET /hello/{name}", "web")
    assert (request.service, request.error, request.outcome) == ("tests", 0, "ok")
    expected = {
        "component": "aiohttp",
        "span.kind": "server",
        "http.method": "GET",
        "http.route": "/hello/{name}",
        "http.status_code": "200",
        "http.url": str(server.make_url("/hello/ann")),
        "_dd.measured": 1,
        "_dd.top_level": 1,
    }
    assert {key: request.tags.get(key) for key in expected} == expected
    assert "aiohttp" in request.tags["http.useragent"]
    assert traces.one("work").parent_id == request.span_id


@pytest.mark.parametrize(
    ("path", "code", "error"),
    [
        ("/status/204", 204, 0),
        ("/status/404", 404, 0),
        ("/status/500", 500, 1),
        ("/status/302?raised=1", 302, 0),
        ("/status/404?raised=1", 404, 0),
        ("/status/503?raised=1", 503, 1),
        ("/broken", 500, 1),
    ],
)
async def test_the_status_decides_what_is_an_error(
    serve: Any, traces: Recorder, path: str, code: int, error: int
) -> None:
    """Returned or raised: 5xx is an error, nothing else is; the client gets what it always got."""
    server = await serve(traced_app(make_app)())
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.make_url(path), allow_redirects=False) as reply,
    ):
        assert reply.status == code
    [request] = await answered(traces, 1)
    assert (request.tags["http.status_code"], request.error) == (str(code), error)
    if path == "/broken":
        assert request.tags["error.type"] == "builtins.RuntimeError"
        assert "out of tea" in request.tags["error.message"]


async def test_unknown_paths_share_one_resource(serve: Any, traces: Recorder) -> None:
    """Scanners can't make a resource of every path they try."""
    server = await serve(traced_app(make_app)())
    async with aiohttp.ClientSession() as session:
        for path in ("/wp-login.php", "/.env"):
            async with session.get(server.make_url(path)) as reply:
                assert reply.status == 404
    assert [one.resource for one in await answered(traces, 2)] == ["GET 404", "GET 404"]


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


async def test_requests_belong_to_their_senders_not_to_the_server(serve: Any, traces: Recorder) -> None:
    """A server started inside a span serves every request in its own trace."""
    with span("startup"):
        server = await serve(traced_app(make_app)())
    async with aiohttp.ClientSession() as session:
        for _ in range(2):  # over one kept-alive connection
            async with session.get(server.make_url("/hello/ann")) as reply:
                await reply.read()
    requests = await answered(traces, 2)
    assert len({one.trace_id for one in (*requests, traces.one("startup"))}) == 3


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


async def test_factories_of_every_kind(serve: Any, traces: Recorder) -> None:
    """Sync and async factories, with arguments, as decorator with brackets; the service is the one named."""

    @traced_app(service="shop")
    async def make(path: str) -> web.Application:
        app = web.Application()
        app.router.add_get(path, hello)
        return app

    server = await serve(await make("/tea"))
    async with aiohttp.ClientSession() as session, session.get(server.make_url("/tea")) as reply:
        assert reply.status == 200
    [request] = await answered(traces, 1)
    assert (request.resource, request.service) == ("GET /tea", "shop")
    assert traces.one("work").service == "shop"


def test_what_is_no_factory_is_refused() -> None:
    """A clear error that says what to pass."""
    with pytest.raises(UsageError, match="app factory, got int"):
        traced_app(7)


PROGRAM = """
import asyncio
from asynctrace import current_span, span, traced_app

@traced_app(service="job")
async def main(code):
    assert current_span() is None
    with span("work"):
        await asyncio.sleep(0)
    return code

raise SystemExit(asyncio.run(main(7)))
"""


def test_a_program_under_traced_app_delivers_its_spans(sink: Any) -> None:
    """`async def main()`: result as ever, no span around it, everything sent at its end."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (7, "")
    [work] = sink.wait_for(1)
    assert (work["name"], work["service"], work["parent_id"]) == ("work", "job", 0)
