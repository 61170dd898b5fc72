"""Calls: what their spans say, where they hang, and how they end."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import ddtrace
import pytest
from ddtrace.trace import tracer

from asynctrace import UsageError, atraced, current_span, install, span, uninstall
from asynctrace.aiohttp import traced_session
from asynctrace.aiohttp.client import connections
from tests.web.calls import CALL, call, calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from tests.web.peer import Asked, Peer


@pytest.fixture(autouse=True)
def _on(installed: Callable[..., None]) -> None:
    installed("aiohttp")


async def test_a_call_is_a_span_with_the_tags_that_datadog_knows(peer: Peer, traces: Recorder) -> None:
    """Name, type, service, resource, and ddtrace's tags."""
    async with aiohttp.ClientSession() as session, session.get(peer.url("/tea")) as reply:
        assert await reply.text() == "hello"
    one = await call(traces)
    assert (one.name, one.resource, one.type, one.service) == (CALL, "GET /tea", "http", "tests")
    expected = {
        "component": "aiohttp_client",
        "span.kind": "client",
        "http.method": "GET",
        "http.url": peer.url("/tea"),
        "http.status_code": "200",
        "http.status_msg": "OK",
        "out.host": "127.0.0.1",
        "server.address": "127.0.0.1",
        "network.destination.port": peer.port,
    }
    assert {key: one.tags.get(key) for key in expected} == expected
    assert (one.error, one.outcome) == (0, "ok")


async def test_every_way_to_ask_is_one_call(peer: Peer, traces: Recorder) -> None:
    """Every method of a session, `aiohttp.request`, a base URL, `params`, URLs as text and as objects."""
    async with aiohttp.ClientSession(peer.url("/")) as session:
        for method in ("get", "options", "head", "post", "put", "patch", "delete"):
            async with getattr(session, method)("/tea", params={"a": "b"}) as reply:
                assert reply.status == 200
        async with session.request("get", peer.url("/tea")) as reply:
            assert reply.status == 200
        (await session.get("/tea")).release()
    async with aiohttp.request("GET", peer.url("/tea")) as reply:
        assert reply.status == 200
    found = await calls(traces, 10)
    methods = ["GET", "OPTIONS", "HEAD", "POST", "PUT", "PATCH", "DELETE", "GET", "GET", "GET"]
    assert [one.resource for one in found] == [f"{method} /tea" for method in methods]


async def test_it_is_current_in_aiohttps_code_only(peer: Peer, traces: Recorder) -> None:
    """Hooks and uploads of the user's hang from the call; what its caller does until the body is read does not."""
    came = asyncio.Event()

    async def slowly(asked: Asked) -> None:
        await asked.say("HTTP/1.1 200 OK", "Content-Length: 5")
        await came.wait()
        asked.writer.write(b"hello")

    async def hook(*_: object) -> None:
        with span("hook"):
            await asyncio.sleep(0)

    @atraced
    async def upload() -> Any:
        with span("upload"):
            yield b"tea"

    peer.routes["/"] = slowly
    hooks = aiohttp.TraceConfig()
    hooks.on_request_start.append(hook)
    hooks.on_connection_create_end.append(hook)
    async with aiohttp.ClientSession(trace_configs=[hooks]) as session:
        with span("caller"):
            async with session.post(peer.url(), data=upload(), headers={"Content-Length": "3"}) as reply:
                with span("between"):
                    came.set()
                    assert await reply.text() == "hello"
    one = await call(traces)
    caller = traces.one("caller")
    assert one.parent_id == caller.span_id
    assert traces.one("between").parent_id == caller.span_id
    assert [hook.parent_id for hook in traces.spans if hook.name == "hook"] == [one.span_id] * 2
    assert (one.end_ns or 0) >= traces.one("between").start_ns


async def test_a_call_of_ddtraces_spans(peer: Peer, traces: Recorder) -> None:
    """A span of `tracer.trace()` is a call's parent, and has its children after it again."""
    async with aiohttp.ClientSession() as session:
        with tracer.trace("caller"):
            async with session.get(peer.url()) as reply:
                with tracer.trace("between"):
                    await reply.read()
            assert tracer.current_span().name == "caller"  # type: ignore[union-attr]
    one = await call(traces)
    assert one.parent_id == traces.one("between").parent_id == traces.one("caller").span_id


async def test_a_call_of_its_own_is_a_trace_of_its_own(peer: Peer, traces: Recorder) -> None:
    """Without a caller's span two calls are two traces, the second one not below the first."""
    async with aiohttp.ClientSession() as session:
        first = await session.get(peer.url())
        assert current_span() is None
        second = await session.get(peer.url())
        await first.read()
        await second.read()
    assert len({one.trace_id for one in await calls(traces, 2)}) == 2


async def test_a_session_of_one_request_used_in_another(peer: Peer, traces: Recorder) -> None:
    """Who opened session and connection does not matter: a call is below whoever makes it."""
    with span("opener"):
        session = aiohttp.ClientSession()
        (await session.get(peer.url())).release()

    async def use(number: int) -> None:
        with span(f"user {number}"):
            async with session.get(peer.url()) as reply:
                await reply.read()

    await asyncio.gather(use(1), use(2))
    await session.close()
    found = await calls(traces, 3)
    users = [traces.one(name).span_id for name in ("opener", "user 1", "user 2")]
    assert sorted(one.parent_id or 0 for one in found) == sorted(users)


async def test_redirects_are_one_call_that_counts_them(peer: Peer, traces: Recorder) -> None:
    """One span, its status the last one's, every request with its headers."""

    async def moved(asked: Asked) -> None:
        await asked.answer("302 Found", b"", "Location: /moved-again")

    async def moved_again(asked: Asked) -> None:
        await asked.answer("307 Temporary Redirect", b"there", "Location: /")

    peer.routes.update({"/moved": moved, "/moved-again": moved_again})
    async with aiohttp.ClientSession() as session, session.get(peer.url("/moved")) as reply:
        assert (await reply.text(), len(reply.history)) == ("hello", 2)
    one = await call(traces)
    assert (one.resource, one.tags["http.status_code"]) == ("GET /moved", "200")
    assert (one.tags["http.client.redirects"], one.tags["http.client.attempts"]) == (2, 3)
    assert [asked.all("x-datadog-parent-id") for asked in peer.asked] == [[str(one.span_id)]] * 3


async def test_too_many_redirects(peer: Peer, traces: Recorder) -> None:
    """An error, with as many as there were."""

    async def round_and_round(asked: Asked) -> None:
        await asked.answer("302 Found", b"", "Location: /")

    peer.routes["/"] = round_and_round
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.TooManyRedirects):
            await session.get(peer.url(), max_redirects=3)
    one = await call(traces)
    assert (one.outcome, one.tags["http.client.attempts"]) == ("error", 3)
    assert one.tags["error.type"] == "aiohttp.client_exceptions.TooManyRedirects"


@pytest.mark.parametrize(("status", "error"), [(204, 0), (304, 0), (399, 0), (400, 1), (404, 1), (503, 1)])
async def test_the_status_says_whether_it_is_an_error(
    peer: Peer, traces: Recorder, status: int, error: int
) -> None:
    """4xx and 5xx are, whether aiohttp raises them or not."""

    async def answer(asked: Asked) -> None:
        await asked.answer(f"{status} Why")

    peer.routes["/"] = answer
    async with aiohttp.ClientSession() as session:
        (await session.get(peer.url())).release()
        if error:
            with pytest.raises(aiohttp.ClientResponseError):
                await session.get(peer.url(), raise_for_status=True)
    for one in await calls(traces, 1 + error):
        assert (one.tags["http.status_code"], one.tags["http.status_msg"]) == (str(status), "Why")
        assert (one.error, one.outcome) == (error, "error" if error else "ok")


@pytest.mark.parametrize("message", [{"code": "gone"}, ["gone"], b"gone", None, "gone"])
async def test_an_exception_with_a_status(peer: Peer, traces: Recorder, message: object) -> None:
    """One of the user's, raised for an answer: its status is the call's, whatever else it says."""

    class Gone(Exception):
        status = HTTPStatus.GONE

        def __init__(self) -> None:
            self.message = message

    async def refuse(_: aiohttp.ClientResponse) -> None:
        raise Gone

    async with aiohttp.ClientSession() as session:
        with pytest.raises(Gone):
            await session.get(peer.url(), raise_for_status=refuse)
    one = await call(traces)
    assert (one.tags["http.status_code"], one.error) == ("410", 1)
    assert one.tags["error.type"].endswith("Gone")


async def test_a_call_that_gets_no_answer(peer: Peer, traces: Recorder, unused_tcp_port: int) -> None:
    """Nobody listens, or hangs up: aiohttp's own exception, on the span as well."""

    async def hang_up(asked: Asked) -> None:
        asked.writer.transport.abort()

    peer.routes["/"] = hang_up
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{unused_tcp_port}/")
        with pytest.raises(aiohttp.ClientError):
            await session.post(peer.url())
    nobody, gone = await calls(traces, 2)
    assert (nobody.error, nobody.outcome) == (gone.error, gone.outcome) == (1, "error")
    assert nobody.tags["error.type"] == "aiohttp.client_exceptions.ClientConnectorError"


async def test_what_is_no_url(traces: Recorder) -> None:
    """aiohttp's own exception; nothing was called."""
    async with aiohttp.ClientSession() as session:
        for wrong in ("", "http://", "tea", 7, "ftp://localhost/"):
            with pytest.raises((aiohttp.ClientError, ValueError, TypeError)):
                await session.get(wrong)  # type: ignore[arg-type]
    assert all(one.error for one in traces.spans)
    traces.assert_finished()


async def test_deadlines(peer: Peer, traces: Recorder) -> None:
    """aiohttp's timeouts, of any kind, are `timeout`; one of the caller's cancels, and is named."""

    async def never(_: Asked) -> None:
        await asyncio.Event().wait()

    peer.routes["/"] = never
    async with aiohttp.ClientSession() as session:
        for timeout in (aiohttp.ClientTimeout(total=0.02), aiohttp.ClientTimeout(sock_read=0.02)):
            with pytest.raises(asyncio.TimeoutError):
                await session.get(peer.url(), timeout=timeout)
        with pytest.raises(asyncio.TimeoutError), span("caller"):
            await asyncio.wait_for(session.get(peer.url()), 0.02)
    total, read, theirs = await calls(traces, 3)
    assert [(one.outcome, one.error) for one in (total, read)] == [("timeout", 1)] * 2
    assert (theirs.outcome, theirs.error) == ("cancelled", 0)
    assert traces.one("caller").outcome == "timeout"


async def test_cancelled(peer: Peer, traces: Recorder) -> None:
    """Cancelled is no error."""
    waiting = asyncio.Event()

    async def never(_: Asked) -> None:
        waiting.set()
        await asyncio.Event().wait()

    peer.routes["/"] = never
    async with aiohttp.ClientSession() as session:
        task = asyncio.ensure_future(session.get(peer.url()))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    one = await call(traces)
    assert (one.outcome, one.error) == ("cancelled", 0)


async def test_by_hand(peer: Peer, traces: Recorder) -> None:
    """One session is traced, others are not; twice, and installed beneath, it is once; it stays what it was."""
    uninstall()
    mine, other = aiohttp.ClientSession(), aiohttp.ClientSession()
    assert traced_session(traced_session(mine)) is mine
    assert type(mine) is aiohttp.ClientSession
    for session in (mine, other):
        async with session.get(peer.url()) as reply:
            assert await reply.text() == "hello"
    await call(traces)
    install("aiohttp")
    (await mine.get(peer.url())).release()
    uninstall()
    (await mine.get(peer.url())).release()
    (await other.get(peer.url())).release()
    found = await calls(traces, 3)
    assert [asked.all("x-datadog-parent-id") for asked in peer.asked] == [
        [str(found[0].span_id)],
        [],
        [str(found[1].span_id)],
        [str(found[2].span_id)],
        [],
    ]
    await mine.close()
    await other.close()


def test_what_is_no_session_is_refused() -> None:
    """A clear error that says what to pass."""
    with pytest.raises(UsageError, match="ClientSession, got int"):
        traced_session(7)  # type: ignore[arg-type]


async def test_uninstalled_is_untraced(peer: Peer, traces: Recorder) -> None:
    """Sessions that were made under `install()`, too; aiohttp's own methods are back."""
    async with aiohttp.ClientSession() as session:
        uninstall()
        (await session.get(peer.url())).release()
    assert traces.spans == []
    for owner, name in ((aiohttp.ClientSession, "_request"), (aiohttp.BaseConnector, "connect")):
        assert not hasattr(vars(owner)[name], "__wrapped__")


async def test_beside_ddtraces_own_integration(peer: Peer, traces: Recorder) -> None:
    """One span a call, not two: ddtrace's."""
    ddtrace.patch(aiohttp=True)
    try:
        async with traced_session(aiohttp.ClientSession()) as session, session.get(peer.url()) as reply:
            await reply.read()
    finally:
        from ddtrace.contrib.internal.aiohttp.patch import unpatch

        unpatch()  # type: ignore[no-untyped-call]
    one = await call(traces)
    assert "network.destination.port" not in one.tags


async def test_an_aiohttp_with_other_insides(
    peer: Peer, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what we know of is not there, calls go untraced, or with less told of them; they work as ever."""
    uninstall()
    request = vars(aiohttp.ClientSession)["_request"]

    class Other(aiohttp.BaseConnector):
        """Without what we replace."""

    monkeypatch.setattr(connections, "DOORS", ((Other, "gone", connections.apart),))
    monkeypatch.setattr(connections, "IS_TOLD", False)
    install("aiohttp")
    async with aiohttp.ClientSession() as session, session.get(peer.url()) as reply:
        assert await reply.text() == "hello"
    assert (await call(traces)).outcome == "ok"
    uninstall()
    monkeypatch.delattr(aiohttp.ClientSession, "_request")
    install("aiohttp")
    monkeypatch.setattr(aiohttp.ClientSession, "_request", request, raising=False)
    async with aiohttp.ClientSession() as session, session.get(peer.url()) as reply:
        assert await reply.text() == "hello"
    await call(traces)
