"""What the environment says of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from asynctrace.aiohttp.client import describe, settings as module
from asynctrace.aiohttp.client.settings import Settings
from tests.web.calls import call, calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace.testing import Recorder
    from tests.web.peer import Asked, Peer


@pytest.fixture
def said(installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Calls under an environment."""

    def under(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        fresh = Settings()
        for name, value in vars(fresh).items():
            monkeypatch.setattr(module.settings, name, value)
        describe._described.cache_clear()
        installed("aiohttp")

    yield under
    describe._described.cache_clear()


async def ask(peer: Peer, path: str = "/", **kwargs: Any) -> None:
    async with aiohttp.ClientSession() as session, session.get(peer.url(path), **kwargs) as reply:
        await reply.read()


async def test_the_service(peer: Peer, traces: Recorder, said: Any) -> None:
    """Inherited, unless DD_AIOHTTP_CLIENT_SERVICE names one, or it is split by domain."""
    said()
    await ask(peer)
    said(DD_AIOHTTP_CLIENT_SERVICE="prices")
    await ask(peer)
    said(DD_AIOHTTP_CLIENT_SPLIT_BY_DOMAIN="true")
    await ask(peer)
    assert [one.service for one in await calls(traces, 3)] == ["tests", "prices", "127.0.0.1"]


async def test_headers_that_are_not_wanted(peer: Peer, traces: Recorder, said: Any) -> None:
    """DD_AIOHTTP_CLIENT_DISTRIBUTED_TRACING=false: what goes out is the caller's, untouched; the call is a span."""
    said(DD_AIOHTTP_CLIENT_DISTRIBUTED_TRACING="false")
    await ask(peer, headers={"traceparent": "mine"})
    [asked] = peer.asked
    assert asked.all("traceparent") == ["mine"]
    assert asked.all("x-datadog-trace-id") == []
    await call(traces)


async def test_which_statuses_are_errors(peer: Peer, traces: Recorder, said: Any) -> None:
    """DD_TRACE_HTTP_CLIENT_ERROR_STATUSES."""

    async def answer(asked: Asked) -> None:
        await asked.answer(f"{asked.target[1:]} Why")

    peer.routes.update({"/404": answer, "/500": answer})
    said(DD_TRACE_HTTP_CLIENT_ERROR_STATUSES="500-599")
    for path in ("/404", "/500"):
        await ask(peer, path)
    assert [one.error for one in await calls(traces, 2)] == [0, 1]


async def test_urls(peer: Peer, traces: Recorder, said: Any) -> None:
    """Without credentials and fragment; the query, `params` too, as ddtrace's setting says."""
    said()
    async with aiohttp.ClientSession() as session:
        url = peer.url("/tea?token=abc&page=2#top").replace("127", "ann:secret@127")
        (await session.get(url, params={"size": "3"})).release()
    said(DD_HTTP_CLIENT_TAG_QUERY_STRING="false")
    await ask(peer, "/tea?page=2")
    shown, hidden = (one.tags["http.url"] for one in await calls(traces, 2))
    assert shown == peer.url("/tea?<redacted>&page=2&size=3")
    assert hidden == peer.url("/tea")


async def test_headers_as_tags(peer: Peer, traces: Recorder, said: Any) -> None:
    """Those that DD_TRACE_HEADER_TAGS names, of the request and of the answer; no others."""

    async def answer(asked: Asked) -> None:
        await asked.answer("200 OK", b"", "X-Cost: 7", "X-Other: 8")

    peer.routes["/"] = answer
    said(DD_TRACE_HEADER_TAGS="X-Tenant:tenant,X-Cost")
    await ask(peer, headers={"X-Tenant": "a", "X-Secret": "b"})
    one = await call(traces)
    assert (one.tags["tenant"], one.tags["http.response.headers.x-cost"]) == ("a", "7")
    assert not {"b", "8"} & set(map(str, one.tags.values()))
