"""A request's span lasts until its response is out: plain, streamed, server-sent events, files."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.log import server_logger

from asynctrace import current_span, span, spawn, trace_id
from asynctrace.aiohttp import trace_application
from asynctrace.aiohttp.server.connections import _in_hand
from tests.web.helpers import GET, app_with, ask, connection, is_server, served, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asynctrace.testing import Recorder

BIG = 30_000_000
"""Bytes that no socket's buffers hold."""


def is_open(traces: Recorder) -> bool:
    return any(map(is_server, traces.open))


def plain(_: Path) -> Callable[[web.Request], Any]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * BIG)

    return handler


def streamed(_: Path) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(30):
            await response.write(b"x" * (BIG // 30))
        return response

    return handler


def generated(_: Path) -> Callable[[web.Request], Any]:
    async def body() -> Any:
        for _ in range(30):
            yield b"x" * (BIG // 30)

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body())

    return handler


def file(folder: Path) -> Callable[[web.Request], Any]:
    path = folder / "big"
    path.write_bytes(b"x" * BIG)

    async def handler(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    return handler


@pytest.mark.parametrize("kind", [plain, streamed, generated, file])
async def test_a_slow_client(traced: Any, traces: Recorder, tmp_path: Path, kind: Any) -> None:
    """The span is open as long as the client has not taken the body, whichever kind of response it is."""
    server = await traced(app_with(kind(tmp_path)))
    async with connection(server, GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")) as client:
        await client.reader.readuntil(b"\r\n\r\n")
        assert is_open(traces)
        assert len(await client.reader.read()) >= BIG
    [request] = await served(traces)
    assert (request.outcome, request.tags["http.status_code"]) == ("ok", "200")
    traces.assert_finished()


async def test_events_as_they_come(traced: Any, traces: Recorder) -> None:
    """Server-sent events: one span for the whole stream, with what happened meanwhile below it."""
    more = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(2):
            with span("event"):
                await response.write(b"data: %d\n\n" % number)
            await more.wait()
        await response.write_eof()
        return response

    server = await traced(app_with(events))
    async with connection(server, GET) as client:
        await client.reader.readuntil(b"data: 0")
        assert is_open(traces)
        more.set()
        await client.reader.readuntil(b"0\r\n\r\n")
    [request] = await served(traces)
    assert [one.parent_id for one in traces.spans if one.name == "event"] == [request.span_id] * 2


async def test_an_error_after_the_headers(traced: Any, traces: Recorder) -> None:
    """The client has been told 200, and that is the status; the span is an error all the same."""

    async def torn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise RuntimeError("out of tea")

    server = await traced(app_with(torn))
    async with connection(server, GET) as client:
        assert b" 200 " in await client.reader.read()
    [request] = await served(traces)
    assert (request.error, request.outcome) == (1, "error")
    assert (request.tags["http.status_code"], request.tags["error.message"]) == ("200", "out of tea")


async def test_a_response_that_can_not_be_sent(traced: Any, traces: Recorder) -> None:
    """A signal handler or a body that raises while the response goes out makes the span an error, and ends it."""

    async def refuse(request: web.Request, response: web.StreamResponse) -> None:
        raise RuntimeError("not that one")

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    app = app_with(handler)
    app.on_response_prepare.append(refuse)
    server = await traced(app)
    async with connection(server, GET) as client:
        assert await client.reader.read() == b""
    [request] = await served(traces)
    assert (request.error, request.tags["error.message"]) == (1, "not that one")


async def test_nothing_that_is_a_response(traced: Any, traces: Recorder) -> None:
    """aiohttp makes a 500 of it, and so says the span."""

    async def handler(_: web.Request) -> None:
        return None

    server = await traced(app_with(handler))
    assert (await ask(server))[0] == 500
    [request] = await served(traces)
    assert (request.error, request.tags["http.status_code"]) == (1, "500")


async def test_chunked_uploads(traced: Any, traces: Recorder) -> None:
    """A body that arrives slowly is read within the span, also after the response went out."""

    async def upload(request: web.Request) -> web.Response:
        with span("read"):
            return web.Response(text=str(len(await request.read())))

    server = await traced(app_with(upload))
    head = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    async with connection(server, head) as client:
        await client.say("3\r\nabc\r\n")
        await traces.wait_for(is_open)
        await client.say("2\r\nde\r\n0\r\n\r\n")
        assert (await client.reader.read()).endswith(b"5")
    [request] = await served(traces)
    assert traces.one("read").parent_id == request.span_id
    assert request.outcome == "ok"


async def test_signals_run_within_the_span(traced: Any, traces: Recorder) -> None:
    """`on_response_prepare`, of the application's own, while the response is prepared by aiohttp."""

    async def stamp(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Trace"] = trace_id()

    async def handler(_: web.Request) -> web.Response:
        return web.Response(headers={"X-Here": trace_id()})

    app = app_with(handler)
    app.on_response_prepare.append(stamp)
    server = await traced(app)
    async with connection(server, GET) as client:
        head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
    [request] = await served(traces)
    assert head.count(f"{request.trace_id:032x}") == 2


async def test_background_tasks(traced: Any, traces: Recorder) -> None:
    """They do not stretch the request's span, and stay in its trace."""
    go = asyncio.Event()

    async def mail() -> None:
        await go.wait()
        with span("mail"):
            pass

    async def handler(_: web.Request) -> web.Response:
        spawn(mail())
        return web.Response()

    server = await traced(app_with(handler))
    assert (await ask(server))[0] == 200
    [request] = await served(traces)
    go.set()
    await traces.wait_for("mail")
    late = traces.one("mail")
    assert (late.trace_id, late.parent_id) == (request.trace_id, request.span_id)
    assert request.end_ns is not None
    assert request.end_ns < late.start_ns


async def test_nothing_stays_active(traced: Any, traces: Recorder) -> None:
    """Neither the next request of the connection nor its tasks find the last one's span."""
    seen = []

    @web.middleware
    async def look(request: web.Request, handler: Any) -> web.StreamResponse:
        seen.append(current_span())
        response: web.StreamResponse = await handler(request)
        return response

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    server = await traced(app_with(handler, middlewares=[look]))
    async with connection(server, GET * 2) as client:
        for _ in range(2):
            await client.reader.readuntil(b"\r\n\r\n")
    await served(traces, 2)
    assert len({one.trace_id for one in seen if one is not None}) == 2
    assert current_span() is None


async def test_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, traced: Any, traces: Recorder) -> None:
    """Neither request nor response: with its end a request is gone, however it ended."""
    monkeypatch.setattr(server_logger, "disabled", True)  # pytest keeps what is logged, with the frames
    alive: list[weakref.ref[Any]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        alive.append(weakref.ref(request))
        if request.query:
            raise RuntimeError(request.query["x"])
        response = web.StreamResponse()
        alive.append(weakref.ref(response))
        await response.prepare(request)
        return response

    server = await traced(app_with(handler))
    await ask(server)
    await ask(server, "/?x=1")
    await served(traces, 2)
    await until(server.is_left)
    gc.collect()
    assert [one() for one in alive] == [None] * 3
    assert not _in_hand


@pytest.mark.parametrize(
    ("path", "status"), [("/", "200"), ("/gone", "404"), ("/raised", "403"), ("/broken", "500")]
)
async def test_without_a_server_of_ours(traces: Recorder, path: str, status: str) -> None:
    """Where nobody sees the response out, as when a test calls the application, the middleware's end is the end."""
    from aiohttp.test_utils import make_mocked_request

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/raised":
            raise web.HTTPForbidden
        if request.path == "/broken":
            raise RuntimeError
        return web.Response()

    app = web.Application()
    for one in ("/", "/raised", "/broken"):
        app.router.add_get(one, handler)
    trace_application(app)
    app.freeze()
    try:
        await app._handle(make_mocked_request("GET", path, app=app))
    except (web.HTTPException, RuntimeError):
        pass
    [request] = await served(traces)
    assert (request.tags["http.status_code"], request.error) == (status, int(status == "500"))
