"""The filter of lists: what each term means, and that nobody's typing breaks it."""

import pytest
from hypothesis import given, settings, strategies as st

from asynctrace.agent.query import QueryError, parse
from asynctrace.agent.spans import Span, Trace
from tests.agent.payloads import TRACE_ID, span

SPANS = [
    span(
        1,
        name="web.request",
        resource="GET /cart/{id}",
        type="web",
        ms=120,
        meta={"http.status_code": "503"},
        error=1,
    ),
    span(
        2,
        1,
        name="postgres.query",
        resource="SELECT price",
        type="sql",
        at=5,
        ms=30,
        metrics={"db.pool.wait_ms": 12.5, "rows": 3.0},
    ),
    span(
        3,
        1,
        name="amqp.command",
        service="worker",
        resource="basic.deliver",
        at=20,
        ms=90,
        meta={"async.outcome": "timeout", "error.type": "builtins.TimeoutError", "note": "50% off"},
        error=1,
    ),
]


def passes(text: str, spans: list[Span] = SPANS) -> bool:
    """Whether the trace of these spans passes the filter, asked as lists ask."""
    query = parse(text)
    return query.may_match(Trace(TRACE_ID, spans).summary()) and query.matches(spans)


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "service:shop", "service:SHOP", "service:worker,billing", "service:w*", 'resource:"GET /cart/{id}"',
        "resource:GET*", "name:postgres.query", "type:sql", "duration:>100ms", "duration:120ms", "duration:0.1s..2s",
        "duration:<1s", "duration:>=120", "spans:3", "spans:>2", "errors:2", "error:true", "error:false",
        "error:*Timeout*", "status:503", "status:5xx", "status:>=500", "status:error", "status:ok", "status:timeout",
        "@http.status_code:503", "@rows:3", "@rows:>2", "@rows:2..4", "@note:50%*", 'note "50% off"', "timeout", "CART",
        "wait.pool:>10ms", "wait.pool:12.5", "span.duration:<40ms", "-service:billing", "-@rows:4", "-timeoutx",
        "-duration:>1s", f"trace:{TRACE_ID:032x}", f"trace:{TRACE_ID:032x}"[:14], "service:worker error:*Timeout*",
    ],
)  # fmt: skip
def test_terms_that_let_the_trace_pass(text: str) -> None:
    """What each term means, seen from a trace that it means."""
    assert passes(text)


@pytest.mark.parametrize(
    "text",
    [
        "service:sho",
        "service:billing",
        "resource:cart",
        "duration:>200ms",
        "duration:<100ms",
        "duration:1s..2s",
        "spans:<3",
        "errors:>2",
        "error:*Value*",
        "status:404",
        "status:4xx",
        "status:>=600",
        "status:cancelled",
        "@http.status_code:404",
        "@nothing:*",
        "@rows:>3",
        "@note:>3",
        "nowhere",
        "wait.pool:>20ms",
        "wait.queue:>0",
        "span.duration:>1s",
        "-service:worker",
        "-error:true",
        "-cart",
        "trace:ffff",
        "service:shop error:*Timeout*",
        "type:sql duration:>1s",
        "-duration:>100ms",
    ],
)
def test_terms_that_keep_the_trace_out(text: str) -> None:
    """What each term means, seen from a trace that it does not mean; terms of spans must hold for one span together."""
    assert not passes(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense:1", "nonsense: is none of duration:"),
        ("service:", "service: of what?"),
        ('"half', "other half"),
        ("duration:>fast", "fast is no duration"),
        ("spans:many", "many is no number"),
        ("-", "a - before nothing"),
        ('""', '""'),
        ("@rows:>few", "few is no number"),
        ("wait.pool:>", "nothing is no duration"),
        ('a"b', "other half"),
    ],
)
def test_what_cannot_be_understood_is_told(text: str, said: str) -> None:
    """A filter that means nothing says which part of it, and what it may be."""
    with pytest.raises(QueryError) as told:
        parse(text)
    assert said in str(told.value)


def test_the_spans_that_are_meant() -> None:
    """Within a trace a filter finds spans."""
    assert [one.span_id for one in parse("error:true").find(SPANS)] == [1, 3]
    assert [one.span_id for one in parse("service:shop error:true").find(SPANS)] == [1]


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from([*'a:"@->..*,%5ms ', "service:", "duration:>", "@a:", "status:"])).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_typed_is_a_filter_or_told_why_not(text: str) -> None:
    """No text is anything but a filter or a QueryError, and a filter can be asked."""
    try:
        query = parse(text)
    except QueryError:
        return
    query.may_match(Trace(TRACE_ID, SPANS).summary())
    query.matches(SPANS)
    assert query.find(SPANS) is not None
