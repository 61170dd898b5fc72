"""Client middlewares: one call, and each request that it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from asynctrace import span
from asynctrace.aiohttp.client import waits
from tests.web.calls import ATTEMPT, call, calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from tests.web.peer import Asked, Peer

pytestmark = pytest.mark.skipif(
    not hasattr(aiohttp, "ClientMiddlewareType"), reason="aiohttp has client middlewares from 3.12 on"
)


@pytest.fixture(autouse=True)
def _on(installed: Callable[..., None]) -> None:
    installed("aiohttp")


@pytest.fixture
def flaky(peer: Peer) -> None:
    """Answers when it is asked a third time."""

    async def answer(asked: Asked) -> None:
        await asked.answer("503 Busy" if len(peer.asked) < 3 else "200 OK", b"there")

    peer.routes["/"] = answer


async def retry(request: Any, handler: Any) -> Any:
    """As people write it."""
    for number in range(3):
        response = await handler(request)
        if response.status == 200:
            break
        if number < 2:
            with span("pause"):
                response.release()
    return response


async def test_a_retry_middleware_shows_its_attempts(peer: Peer, traces: Recorder, flaky: None) -> None:
    """Each is a span in the call's, with its own status and waits; the peer's spans are below their own attempt."""
    async with aiohttp.ClientSession(middlewares=(retry,)) as session:
        with span("caller"):
            async with session.get(peer.url()) as reply:
                assert await reply.text() == "there"
    one, attempts = await call(traces), await calls(traces, 3, ATTEMPT)
    assert [each.tags["http.status_code"] for each in attempts] == ["503", "503", "200"]
    assert [each.tags.get("http.request.resend_count") for each in attempts] == [None, 1, 2]
    assert [each.error for each in attempts] == [1, 1, 0]
    assert {each.parent_id for each in attempts} == {one.span_id}
    assert [asked.all("x-datadog-parent-id") for asked in peer.asked] == [
        [str(each.span_id)] for each in attempts
    ]
    assert (one.error, one.tags["http.status_code"], one.tags["http.client.attempts"]) == (0, "200", 3)
    assert all(waits.TTFB in each.tags for each in attempts)
    traces.assert_tree(
        """
        caller
          aiohttp.request
            aiohttp.attempt (error)
            pause
            aiohttp.attempt (error)
            pause
            aiohttp.attempt
        """
    )


async def test_a_middleware_that_answers_by_itself(peer: Peer, traces: Recorder) -> None:
    """Nothing goes out, nothing is shown but the call; a middleware given with the call counts, too."""
    kept: list[Any] = []

    async def remember(request: Any, handler: Any) -> Any:
        if not kept:
            kept.append(await handler(request))
            await kept[0].read()
        return kept[0]

    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(peer.url(), middlewares=[remember]) as reply:
                assert await reply.text() == "hello"
    first, second = await calls(traces, 2)
    [attempt] = await calls(traces, 1, ATTEMPT)
    assert attempt.parent_id == first.span_id
    assert second.outcome == "ok"


async def test_a_middleware_that_fails(peer: Peer, traces: Recorder) -> None:
    """The caller gets that very exception, the call has it as its error."""
    exc = ValueError("of the user's")

    async def fail(request: Any, handler: Any) -> Any:
        raise exc

    async with aiohttp.ClientSession(middlewares=(fail,)) as session:
        with pytest.raises(ValueError, match="of the user's") as caught:
            await session.get(peer.url())
    assert caught.value is exc
    one = await call(traces)
    assert (one.outcome, one.tags["error.type"]) == ("error", "builtins.ValueError")


async def test_a_middleware_that_calls_somebody_else(peer: Peer, traces: Recorder) -> None:
    """A token that is fetched on the way: a call of its own, in the call that needed it."""

    async def authorize(request: Any, handler: Any) -> Any:
        async with request.session.get(peer.url("/token"), middlewares=()) as reply:
            request.headers["Authorization"] = await reply.text()
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=(authorize,)) as session:
        (await session.get(peer.url("/tea"))).release()
    tea, token = await calls(traces, 2)
    [attempt] = await calls(traces, 1, ATTEMPT)
    assert (tea.resource, token.resource) == ("GET /tea", "GET /token")
    assert token.parent_id == attempt.parent_id == tea.span_id
    assert [asked.all("x-datadog-parent-id") for asked in peer.asked] == [
        [str(token.span_id)],
        [str(attempt.span_id)],
    ]


async def test_aiohttps_own_second_try_is_counted(peer: Peer, traces: Recorder) -> None:
    """A pooled connection that turns out to be dead: one call, two requests."""

    async def once(asked: Asked) -> None:
        if len(peer.asked) == 2:
            asked.writer.transport.abort()
        else:
            await asked.answer()

    peer.routes["/"] = once
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            (await session.get(peer.url())).release()
    first, second = await calls(traces, 2)
    assert ("http.client.attempts" in first.tags, second.tags["http.client.attempts"]) == (False, 2)
    assert "http.client.redirects" not in second.tags
