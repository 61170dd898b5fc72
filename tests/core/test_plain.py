"""Headers that Datadog's tracers write are read without ddtrace's propagator, and come out as if it had read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.propagation.http import HTTPPropagator
from ddtrace.trace import Context
from hypothesis import given, settings, strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from asynctrace import SpanContext, attached, span
from asynctrace._core.carrier import normalised
from asynctrace._core.plain import plain_context, plain_headers
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import Callable

HEX = "0123456789abcdef"

CONTEXTS = st.builds(
    Context,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    sampling_priority=st.sampled_from([-1, 0, 1, 2]),
    dd_origin=st.sampled_from([None, "rum", "synthetics"]),
    meta=st.dictionaries(
        st.sampled_from(["_dd.p.dm", "_dd.p.usr.id", "tracestate"]),
        st.sampled_from(["-1", "-4", "abc", "ot=rv:0123456789abcd;th:8", "dd=s:1,congo=t61"]),
    ),
    baggage=st.sampled_from([{}, {"user": "ann"}]),
)


def written(context: Context) -> dict[str, str]:
    headers: dict[str, str] = {}
    HTTPPropagator.inject(context, headers)
    return headers


def seen(context: Any) -> tuple[Any, ...]:
    """All there is to a context, and what it passes on."""
    return (
        context.trace_id,
        context.span_id,
        context.sampling_priority,
        context.dd_origin,
        dict(context._meta),
        context.get_all_baggage_items(),
        written(context),
    )


def ddtraces(headers: dict[str, str]) -> Any:
    return HTTPPropagator.extract(normalised(headers))  # type: ignore[no-untyped-call]


@settings(max_examples=300, deadline=None)
@given(CONTEXTS)
def test_it_is_what_ddtrace_makes_of_it(context: Context) -> None:
    """Ids, priority, origin, tags, baggage and all that is passed on, for whatever a Datadog tracer writes."""
    headers = written(context)
    assert seen(SpanContext.extract(headers)._context) == seen(ddtraces(headers))


@settings(max_examples=300, deadline=None)
@given(CONTEXTS, st.sampled_from(["traceparent", "tracestate", "x-datadog-tags"]), st.data())
def test_spoilt_headers_too(context: Context, key: str, data: st.DataObject) -> None:
    """The same when some character of one of them is another one."""
    headers = written(context)
    if value := headers.get(key):
        at = data.draw(st.integers(0, len(value) - 1))
        headers[key] = value[:at] + data.draw(st.sampled_from([*HEX, "-", ",", ":", "="])) + value[at + 1 :]
    ours = SpanContext.extract(headers)._context
    theirs = ddtraces(headers)
    if ours is None:  # ddtrace takes what we do not: ids and priorities out of range
        return
    assert seen(ours) == seen(theirs)


OURS = st.builds(
    Context,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
    sampling_priority=st.sampled_from([None, -1, 0, 1, 2, 3]),
    dd_origin=st.sampled_from([None, None, None, "rum"]),
    meta=st.dictionaries(
        st.sampled_from(
            ["_dd.p.dm", "_dd.p.ksr", "_dd.p.tid", "_dd.p.usr.id", "tracestate", "traceparent", "other"]
        ),
        st.sampled_from(
            [
                "-1",
                "-14",
                "0.5",
                "abc",
                "4bf92f3577b34da6",
                "ot=rv:0123456789abcd;th:8",
                "dd=s:1;t.dm:-1",
                "dd=s:1;t.dm:-1,ot=rv:0123456789abcd",
                "dd=s:1,congo=t61",
                "ot=rv:0123456789abcd,dd=s:1",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ]
        ),
    ),
    baggage=st.sampled_from([{}, {}, {"user": "ann"}]),
    is_remote=st.sampled_from([False, False, True]),
)


@settings(max_examples=1000, deadline=None)
@given(OURS)
def test_what_is_written_is_what_ddtrace_writes(context: Context) -> None:
    """Every header and every character of it, where ours are plain; elsewhere ddtrace's propagator writes them."""
    before = dict(context._meta)
    ours = plain_headers(context)
    noted = dict(context._meta)
    context._meta.clear()
    context._meta.update(before)
    if ours is not None:
        assert ours == written(context)
        assert noted == dict(context._meta)


def test_the_usual_headers_are_plain() -> None:
    """Of a trace that began here, and of one that came from a Datadog tracer; those of other styles are not."""
    trace = 0x4BF92F3577B34DA6A3CE929D0E0E4736
    began = Context(trace_id=trace, span_id=7, sampling_priority=1, meta={"_dd.p.dm": "-0"}, is_remote=False)
    assert plain_headers(began) == written(began)
    with attached(SpanContext.extract(written(began))), span("here") as here:
        context = here.context._context
        assert context is not None
        assert plain_headers(context) == written(context)
    assert plain_headers(Context(trace_id=trace, span_id=7)) is None


@settings(max_examples=300, deadline=None)
@given(CONTEXTS, st.sampled_from([str.lower, str.title, str.upper]))
def test_whatever_holds_the_headers(context: Context, spelt: Callable[[str], str]) -> None:
    """A request's multidict, pairs and a plain dict are read alike, however the names are spelt."""
    headers = written(context)
    others = {spelt(key): value for key, value in {"host": "shop", **headers, "cookie": "a=b"}.items()}
    expected = seen(ddtraces(headers))
    for carrier in (others, list(others.items()), CIMultiDictProxy(CIMultiDict(others))):
        assert seen(SpanContext.extract(carrier)._context) == expected


def test_a_requests_headers_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Datadog tracer wrote is read without ddtrace's propagator from a request's multidict, too."""
    monkeypatch.delattr(HTTPPropagator, "extract")
    headers = CIMultiDictProxy(CIMultiDict({key.title(): value for key, value in SOUND.items()}))
    assert SpanContext.extract(headers).trace_id == 0x65A1B2C3000000000000000000000007
    assert SpanContext.extract(CIMultiDict({"Host": "shop"})) == SpanContext.ROOT


SOUND = {
    "x-datadog-trace-id": "7",
    "x-datadog-parent-id": "8",
    "x-datadog-sampling-priority": "1",
    "x-datadog-tags": "_dd.p.dm=-1,_dd.p.ksr=0.5,_dd.p.tid=65a1b2c300000000",
    "traceparent": "00-65a1b2c3000000000000000000000007-0000000000000008-01",
    "tracestate": "dd=s:1;t.dm:-1,ot=rv:0123456789abcd;th:8",
}


def test_these_are_plain() -> None:
    """What the other tests compare is read here, and not by ddtrace."""
    context = plain_context(dict(SOUND))
    assert context is not None
    assert seen(context) == seen(ddtraces(SOUND))
    with span("sent") as sent:
        assert plain_context(sent.context.inject({})) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"traceparent": SOUND["traceparent"].replace("08-", "09-")},
        {"traceparent": SOUND["traceparent"].replace("65a1", "65a2")},
        {"traceparent": SOUND["traceparent"] + "-later"},
        {"tracestate": "dd=s:1,congo=t61"},
        {"tracestate": "congo=t61,dd=s:1"},
        {"x-datadog-tags": "_dd.p.dm=-1"},
        {"x-datadog-tags": "_dd.p.tid=65a1b2c300000000,_dd.p.tid=0"},
        {"x-datadog-tags": "_dd.p.tid=65a1b2c300000000,_dd.p.dm=-934"},
        {"x-datadog-tags": "_dd.p.dm=-1, _dd.p.tid=65a1b2c300000000"},
        {"x-datadog-tags": "_dd.p.dm=-1,_dd.p.tid=65a1b2c300000000,_dd.p.ts=02"},
        {"x-datadog-parent-id": "0"},
        {"baggage": "user=ann"},
        {"b3": "0"},
        {"Traceparent": "stale"},
        {"x-datadog-origin": "rum"},
        {"x-datadog-sampling-priority": "3"},
    ],
)
def test_these_are_not(other: dict[str, str]) -> None:
    """Another span, another trace, other vendors, other styles, baggage, tags that ddtrace would say something of."""
    assert plain_context({**SOUND, "tenant": "a"}) is not None
    assert plain_context({**SOUND, **other}) is None


@pytest.mark.parametrize(
    "setting",
    [
        {"DD_TRACE_PROPAGATION_STYLE_EXTRACT": "tracecontext,datadog"},
        {"DD_TRACE_PROPAGATION_EXTRACT_FIRST": "true"},
        {"DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT": "restart"},
        {"DD_APM_TRACING_ENABLED": "false"},
    ],
)
def test_where_ddtrace_is_told_otherwise(setting: dict[str, str]) -> None:
    """Then it reads the headers."""
    program = (
        f"from asynctrace._core.plain import plain_context, plain_headers; print(plain_context({SOUND!r}))"
    )
    assert run(program, DD_TRACE_AGENT_URL="http://127.0.0.1:9", **setting) == "None"
