"""What integrations do at every request: the short ways lead where the long ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ddtrace.trace import tracer
from multidict import CIMultiDict, CIMultiDictProxy

from asynctrace import SpanContext, span
from asynctrace._core.outgoing import write
from asynctrace._core.tags import tag
from asynctrace._core.values import Fit
from asynctrace.aiohttp.server import headers as reading
from asynctrace.aiohttp.server.headers import context_in, known

if TYPE_CHECKING:
    from asynctrace.testing import Recorder

SENT: dict[str, dict[str, str] | None] = {
    "none": {},
    "of ours": None,
    "64 bits": {"x-datadog-trace-id": "7", "x-datadog-parent-id": "8", "x-datadog-sampling-priority": "2"},
    "baggage": {"x-datadog-trace-id": "7", "x-datadog-parent-id": "8", "baggage": "user=ann"},
    "half of it": {"X-Datadog-Trace-Id": "7"},
    "wrong": {"Traceparent": "00-1-2-3", "x-datadog-trace-id": "7", "x-datadog-parent-id": "8"},
    "B3": {"b3": "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"},
}


@pytest.fixture(params=SENT)
def sent(request: pytest.FixtureRequest) -> CIMultiDict[str]:
    """Headers as they come from a sender."""
    headers = SENT[request.param]
    if headers is None:
        with span("sender") as sender:
            headers = sender.context.inject({})
    return CIMultiDict({"Host": "tea", **headers, "User-Agent": "x"})


@pytest.mark.parametrize("asked", [False, True])
def test_headers_of_a_span(sent: CIMultiDict[str], asked: bool) -> None:
    """A span's headers are those of its context, below a first span and as one, asked for by ddtrace or not."""
    with span("first", parent=SpanContext.extract(sent)) as first, span("below") as below:
        if asked:
            assert tracer.current_span() is not None
        for one in (below, first):
            stale = {"Accept": "*/*", "Traceparent": "old", "X-B3-TraceId": "old"}
            short, long = CIMultiDict(stale), CIMultiDict(stale)
            write(one, short)
            one.context.inject(long)
            assert short == long
            assert "old" not in short.values()


def test_the_context_in_headers(sent: CIMultiDict[str]) -> None:
    """A request's context is what `extract` finds in all of its headers; of repeated ones the first."""
    sent.extend([(name, "0") for name in tuple(sent)])
    headers = CIMultiDictProxy(sent)
    short, long = context_in(headers, known(tuple(headers))), SpanContext.extract(headers)
    assert short == long
    assert short.inject({}) == long.inject({})


def test_tags_all_at_once(traces: Recorder) -> None:
    """They are there whatever is behind a span, beside those it had; what it was made with stays as it is."""
    given = Fit({"a": "1", "b": "1"})
    with span("first", tags=given) as first, span("below", tags=given) as below:
        with span("bare") as bare:
            pass
        for one in (first, below, bare):
            tag(one, Fit({"b": "2", "c": 0.5}))
            tag(one, Fit({"d": "4"}))
    assert given == {"a": "1", "b": "1"}
    for name in ("first", "below", "bare"):
        assert {"b": "2", "c": 0.5, "d": "4"}.items() <= traces.one(name).tags.items()
    assert traces.one("below").tags["a"] == traces.one("first").tags["a"] == "1"


def test_headers_with_long_names_are_not_remembered() -> None:
    """They are read like all others, and forgotten: a stranger's names would stay in memory."""
    names = ("Traceparent", *(f"X-{'a' * 1000}-{number}" for number in range(3)))
    before = reading._remembered.cache_info().currsize
    assert reading.known(names).trace == ("traceparent",)
    assert reading._remembered.cache_info().currsize == before
