"""What a request's span says: name, resource, tags, outcome, parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from asynctrace import current_span, span, traced_app
from asynctrace.aiohttp import trace_application
from tests.web.helpers import REQUEST, app_with, ask, connection, hello, served

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder

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


async def late(_: web.Request) -> web.Response:
    raise TimeoutError


def shop() -> web.Application:
    app = web.Application()
    app.router.add_get("/hello/{name}", hello)
    app.router.add_get("/status/{code}", status)
    app.router.add_get("/broken", broken)
    app.router.add_get("/late", late)
    return app


async def test_a_request_says_what_datadog_knows(traced: Any, traces: Recorder) -> None:
    """Route, status, and the tags of ddtrace's own integration; what the handler does is below."""
    server = await traced(shop())
    headers = {"User-Agent": "curl", "Referer": "http://search/?q=tea"}
    assert await ask(server, "/hello/ann?page=2&token=secret", headers=headers) == (200, b"hello")
    [request] = await served(traces)
    assert (request.name, request.resource, request.type) == (REQUEST, "GET /hello/{name}", "web")
    assert (request.service, request.error, request.outcome, request.parent_id) == ("tests", 0, "ok", None)
    expected = {
        "component": "aiohttp",
        "span.kind": "server",
        "http.method": "GET",
        "http.route": "/hello/{name}",
        "http.status_code": "200",
        "http.url": f"{server.make_url('/hello/ann')}?page=2&<redacted>",
        "http.useragent": "curl",
        "http.referrer_hostname": "search",
        "_dd.measured": 1,
        "_dd.top_level": 1,
    }
    assert {key: request.tags.get(key) for key in expected} == expected
    assert traces.one("work").parent_id == request.span_id
    assert not {"http.client_ip", "network.client.ip"} & set(request.tags)


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
        ("/late", 504, 1),
    ],
)
async def test_the_status_decides_what_is_an_error(
    traced: Any, traces: Recorder, path: str, code: int, error: int
) -> None:
    """Returned or raised: 5xx is an error, nothing else is; the client gets what it always got."""
    server = await traced(shop())
    assert (await ask(server, path))[0] == code
    [request] = await served(traces)
    assert (request.tags["http.status_code"], request.error) == (str(code), error)
    assert request.outcome == {"/late": "timeout"}.get(path, "error" if error else "ok")
    if path == "/broken":
        assert request.tags["error.type"] == "builtins.RuntimeError"
        assert "out of tea" in request.tags["error.message"]
        assert "in broken" in request.tags["error.stack"]


@pytest.mark.parametrize("name", ["DD_TRACE_HTTP_SERVER_ERROR_STATUSES", "DD_HTTP_SERVER_ERROR_STATUSES"])
async def test_which_statuses_are_errors_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, traced: Any, traces: Recorder, name: str
) -> None:
    """By ddtrace's name and by that of Datadog's other tracers: single statuses and ranges."""
    monkeypatch.setenv(name, "302,404-410")
    server = await traced(shop())
    for path in ("/status/302?raised=1", "/status/404", "/status/503"):
        await ask(server, path)
    assert [one.error for one in await served(traces, 3)] == [1, 1, 0]


async def test_unmatched_requests_share_a_resource(traced: Any, traces: Recorder) -> None:
    """Scanners can't make a resource of every path or method they try."""
    server = await traced(shop())
    await ask(server, "/wp-login.php")
    await ask(server, "/.env")
    await ask(server, "/broken", "POST")
    await ask(server, "/broken", "PROPFIND")
    resources = [one.resource for one in await served(traces, 4)]
    assert resources == ["GET 404", "GET 404", "POST 405", "_OTHER 405"]


async def test_the_handler_may_name_the_resource(traced: Any, traces: Recorder) -> None:
    """What the user has set stays."""

    @web.middleware
    async def fallback(request: web.Request, handler: Any) -> web.Response:
        request_span = current_span()
        assert request_span is not None
        request_span.resource = "page"
        return web.Response()

    server = await traced(web.Application(middlewares=[fallback]))
    await ask(server, "/nowhere")
    [request] = await served(traces)
    assert request.resource == "page"


async def test_a_request_belongs_to_its_sender(traced: Any, traces: Recorder) -> None:
    """Not to the server: one that was started inside a span serves each request in a trace of its own."""
    with span("startup"):
        server = await traced(shop())
    async with aiohttp.ClientSession() as session:
        for _ in range(2):  # over one kept-alive connection
            async with session.get(server.make_url("/hello/ann")) as reply:
                await reply.read()
    requests = await served(traces, 2)
    assert len({one.trace_id for one in (*requests, traces.one("startup"))}) == 3


async def test_a_request_without_a_host(traced: Any, traces: Recorder) -> None:
    """HTTP/1.0 has none: the socket's name will do, and no resolver is asked."""
    server = await traced(app_with(hello))
    async with connection(server, "GET / HTTP/1.0\r\n\r\n") as client:
        assert (await client.reader.read()).endswith(b"hello")
    [request] = await served(traces)
    assert request.tags["http.url"] == f"http://127.0.0.1:{server.port}/"


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("http://ann:secret@shop/a", "http://shop/a"),
        ("/a?x=%FF%20y", "http://shop/a?x=%FF%20y"),
        ("/a%2Fb/../c", "http://shop/a%2Fb/../c"),
        ("//evil/a", "http://shop//evil/a"),
    ],
)
async def test_odd_targets(traced: Any, traces: Recorder, target: str, url: str) -> None:
    """Whatever a client asks for is told as it was said, without credentials."""
    server = await traced(app_with(hello, "/{tail:.*}"))
    async with connection(
        server, f"GET {target} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
    ) as client:
        assert b"hello" in await client.reader.read()
    [request] = await served(traces)
    assert request.tags["http.url"] == url


async def test_headers_of_any_bytes(traced: Any, traces: Recorder) -> None:
    """A request whose headers are no text is served and traced; what is on the wire can be sent on."""
    server = await traced(app_with(hello))
    raw = b"GET / HTTP/1.1\r\nHost: shop\r\nUser-Agent: caf\xe9\r\nTraceparent: \xff\r\nConnection: close\r\n\r\n"
    async with connection(server) as client:
        await client.say(raw)
        assert b"hello" in await client.reader.read()
    [request] = await served(traces)
    assert request.tags["http.useragent"].encode().startswith(b"caf")


class Hostile(Exception):
    """Answers no question."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


async def test_an_exception_that_answers_nothing(traces: Recorder) -> None:
    """It stays the user's, whatever we ask of it, and ends the span as an error."""

    async def handler(_: web.Request) -> web.Response:
        raise Hostile

    app = trace_application(app_with(handler))
    app.freeze()
    caught = None
    try:
        await app._handle(make_mocked_request("GET", "/", app=app))
    except Exception as exc:
        caught = type(exc)
    assert caught is Hostile
    [request] = await served(traces)
    assert (request.error, request.tags["http.status_code"]) == (1, "500")


async def test_where_aiohttps_insides_are_others(
    monkeypatch: pytest.MonkeyPatch, serve: Any, traces: Recorder
) -> None:
    """Without the door at which a response is seen out, a request ends with its application."""
    from aiohttp.web_protocol import RequestHandler

    original = RequestHandler._handle_request

    async def otherwise(self: Any, *args: Any) -> Any:
        return await original(self, *args)

    monkeypatch.setattr(RequestHandler, "_handle_request", otherwise)
    server = await serve(traced_app(shop()))
    assert vars(RequestHandler)["_handle_request"] is otherwise
    assert (await ask(server, "/hello/ann"))[0] == 200
    assert (await ask(server, "/late"))[0] == 504
    assert [one.tags["http.status_code"] for one in await served(traces, 2)] == ["200", "504"]
