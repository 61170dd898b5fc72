"""What a trace says about why it took so long."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asynctrace.agent.analysis.critical import Step, critical_path, shares
from asynctrace.agent.analysis.findings import Case, Finding, findings
from asynctrace.agent.analysis.lanes import Lane, lanes, walk
from asynctrace.agent.analysis.waits import Part, waits
from asynctrace.agent.page_data import TraceView
from asynctrace.agent.spans import Link, Span, Trace
from asynctrace.agent.tree import build
from tests.agent.payloads import MS, START, TRACE_ID, span


def path_of(*spans: Span) -> list[Step]:
    roots = build(list(spans))
    return critical_path(roots[0], waits(walk(roots)))


def told(path: list[Step]) -> list[tuple[int, float, float, str]]:
    """Span id, from and to in milliseconds, kind."""
    return [
        (step.span.span_id, (step.start - START) / MS, (step.end - START) / MS, step.kind) for step in path
    ]


def found_in(*spans: Span) -> list[Finding]:
    nodes = list(walk(build(list(spans))))
    found = waits(nodes)
    return findings(Case(Trace(TRACE_ID, list(spans)), nodes, found, critical_path(nodes[0][0], found)))


def parts_of(*spans: Span) -> dict[int, list[Part]]:
    return waits(walk(build(list(spans))))


# -- the critical path


def test_of_siblings_the_one_that_ended_last_was_waited_for() -> None:
    """Beside a longer sibling a shorter one costs nothing; what lies between is the parent's own time."""
    path = path_of(
        span(1, ms=100), span(2, 1, at=10, ms=20), span(3, 1, at=10, ms=60), span(4, 1, at=75, ms=20)
    )
    assert told(path) == [
        (1, 0, 10, "code"), (3, 10, 70, "code"), (1, 70, 75, "code"), (4, 75, 95, "code"), (1, 95, 100, "code"),
    ]  # fmt: skip


def test_it_goes_down_to_the_leaf_and_on_after_the_parent() -> None:
    """Work that outlives its parent decides when the trace ended; a gap in which nothing was traced is told as such."""
    path = path_of(span(1, ms=30), span(2, 1, at=10, ms=10), span(3, 2, at=40, ms=20, service="worker"))
    assert told(path) == [
        (1, 0, 10, "code"), (2, 10, 20, "code"), (2, 20, 40, "gap"), (3, 40, 60, "code"),
    ]  # fmt: skip


def test_waits_are_told_apart() -> None:
    """Before a query the pool, before a consumer the queue, within a call the first byte."""
    path = path_of(
        span(1, ms=100, meta={"span.kind": "server"}),
        span(2, 1, at=40, ms=10, type="sql", metrics={"db.pool.wait_ms": 30.0}),
        span(
            3,
            1,
            at=50,
            ms=30,
            type="http",
            meta={"span.kind": "client"},
            metrics={"http.client.connect_ms": 5.0, "http.client.ttfb_ms": 20.0},
        ),
        span(4, 1, at=80, ms=1, meta={"span.kind": "producer"}),
        span(
            5,
            4,
            at=91,
            ms=20,
            service="worker",
            meta={"span.kind": "consumer"},
            metrics={"messaging.queue_ms": 10.0},
        ),
    )
    assert told(path) == [
        (1, 0, 10, "code"), (2, 10, 40, "pool"), (2, 40, 50, "database"), (3, 50, 55, "connect"), (3, 55, 75, "answer"),
        (3, 75, 80, "call"), (4, 80, 81, "publish"), (5, 81, 91, "queue"), (5, 91, 111, "code"),
    ]  # fmt: skip
    assert [(one.label, one.time // MS) for one in shares(path)] == [
        ("shop", 10), ("waiting for a pool", 30), ("database", 10), ("connecting", 5), ("waiting for an answer", 20),
        ("HTTP calls", 5), ("publishing", 1), ("in a queue", 10), ("worker", 20),
    ]  # fmt: skip


shapes = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 50), st.integers(0, 50), st.sampled_from([0.0, 3.0]), st.booleans()),
    min_size=1, max_size=30,
)  # fmt: skip


@given(shapes)
@settings(max_examples=150, deadline=None)
def test_the_path_fills_the_time_from_start_to_end(shape: list[tuple[int, int, int, float, bool]]) -> None:
    """Whatever the trace, step follows step without gap or overlap, from its root's start to the last end below."""
    spans = [span(1, at=0, ms=40)]
    for number, (parent, at, ms, wait, consumer) in enumerate(shape, 2):
        kind = {"span.kind": "consumer" if consumer else "producer"}
        waits = {"db.pool.wait_ms": wait, "messaging.queue_ms": wait, "http.client.ttfb_ms": wait}
        spans.append(span(number, min(parent, number - 1) or 1, at=at, ms=ms, meta=kind, metrics=waits))
    path = path_of(*spans)
    assert path[0].start == START
    assert path[-1].end == max(one.end for one in spans)
    for one, following in pairwise(path):
        assert one.start < one.end == following.start


def test_ten_thousand_levels_are_no_trouble() -> None:
    """Nothing recurses."""
    deep = [span(number, number - 1, ms=20_000 - number) for number in range(1, 10_001)]
    assert path_of(*deep)[-1].end == deep[0].end
    assert TraceView(Trace(TRACE_ID, deep)).columns()["columns"]["parent"][9_999] == 9_998


# -- waits


def test_a_wait_with_a_span_of_its_own_is_told_once() -> None:
    """Where the wait for a connection is a span, the query after it does not tell it again."""
    spans = [
        span(1, ms=100), span(2, 1, at=0, ms=30, name="asyncpg.pool.acquire"),
        span(3, 1, at=30, ms=10, type="sql", metrics={"db.pool.wait_ms": 30.0}),
    ]  # fmt: skip
    found = parts_of(*spans)
    assert [part.kind for part in found[2]] == ["pool"]
    assert 3 not in found


def test_a_client_s_waits_follow_each_other_and_end_with_it() -> None:
    """Pool, DNS, connect, first byte, body, in this order; figures that say more than the span lasted are cut."""
    figures = {"http.client.body_ms": 99.0, "http.client.dns_ms": 2.0, "http.client.pool_wait_ms": 1.0}
    found = parts_of(span(1, ms=10, metrics=figures))[1]
    assert [(part.kind, part.offset // MS, part.duration // MS) for part in found] == [
        ("pool", 0, 1), ("dns", 1, 2), ("body", 3, 7),
    ]  # fmt: skip


def test_a_message_without_figures_shows_the_gap_after_its_publish() -> None:
    """Tracers that carry no time in queue still have a publish and a consumer."""
    publish, consume = {"span.kind": "producer"}, {"span.kind": "consumer"}
    (part,) = parts_of(span(1, ms=5, meta=publish), span(2, 1, at=12, ms=5, meta=consume))[2]
    assert (part.kind, part.offset, part.duration) == ("queue", -7 * MS, 7 * MS)


def test_a_prefetched_message_was_in_the_queue_before() -> None:
    """First the broker's queue, then the consumer's own buffer, then the work."""
    found = parts_of(span(1, metrics={"messaging.queue_ms": 4.0, "messaging.buffer_ms": 6.0}))[1]
    assert [(part.kind, part.offset // MS) for part in found] == [("queue", -10), ("buffer", -6)]


# -- lanes


def test_a_process_id_holds_for_what_is_below_it() -> None:
    """ddtrace says it on the first span of a process; another service's entry does not inherit it."""
    spans = [
        span(1, metrics={"process_id": 10.0}),
        span(2, 1),
        span(3, 2, service="postgres", meta={"span.kind": "client"}),
        span(4, 2, service="pricing", meta={"span.kind": "server"}),
        span(5, 4, service="pricing", metrics={"process_id": 11.0}),
    ]
    found = lanes(walk(build(spans)))
    assert [found[number] for number in range(1, 6)] == [
        Lane("shop", "10"), Lane("shop", "10"), Lane("postgres", "10"), Lane("pricing", "11"), Lane("pricing", "11"),
    ]  # fmt: skip


def test_an_orphan_is_in_its_service_s_process_if_there_is_only_one() -> None:
    """Where nobody said the process of a span, and its service has one only, it is that; of two it may be either."""
    spans = [span(1, metrics={"process_id": 10.0}), span(2, 99), span(3, 99, service="other")]
    assert set(lanes(walk(build(spans))).values()) == {Lane("shop", "10"), Lane("other", "")}
    assert len(set(lanes(walk(build([*spans, span(4, 98, metrics={"process_id": 11.0})]))).values())) == 4


# -- findings


def test_an_error_is_found_where_it_came_from() -> None:
    """The spans an exception passed through are not told again; the same error elsewhere is counted."""
    fields: dict[str, Any] = {
        "error": 1,
        "meta": {"error.type": "shop.errors.ValueError", "error.message": "no"},
    }
    (one,) = found_in(
        span(1, ms=9, **fields),
        span(2, 1, **fields),
        span(3, 2, resource="deep", **fields),
        span(4, 1, at=1, **fields),
    )
    assert (one.kind, one.title, one.spans) == ("errors", "ValueError: no", [3, 4])
    assert "deep, 2 times" in one.text


def test_the_same_query_one_by_one_is_found() -> None:
    """N+1: five or more alike under one parent in sequence, worth all but the longest; side by side it is none."""

    def query(number: int, at: float) -> Span:
        return span(number, 1, at=at, ms=10, type="sql", resource="SELECT 1", meta={"span.kind": "client"})

    root = span(1, ms=100)
    (one,) = found_in(root, *(query(number, number * 11) for number in range(2, 9)))
    assert (one.kind, one.time, len(one.spans)) == ("repeated", 60 * MS, 7)
    assert one.title == "7 times the same query, one by one"
    assert found_in(root, *(query(number, number) for number in range(2, 9))) == []
    assert found_in(root, *(query(number, number * 11) for number in range(2, 6))) == []


def test_a_starved_pool_a_long_queue_an_orphan_and_late_work_are_found() -> None:
    """Each with the time on the critical path that it may be worth, the dearest first."""
    found = found_in(
        span(1, ms=100),
        span(2, 1, at=40, ms=10, type="sql", metrics={"db.pool.wait_ms": 35.0}),
        span(3, 1, at=60, ms=1, meta={"span.kind": "producer"}),
        span(
            4,
            3,
            at=120,
            ms=40,
            service="worker",
            meta={"span.kind": "consumer"},
            metrics={"messaging.queue_ms": 59.0},
        ),
        span(5, 1, at=90, ms=30, resource="audit"),
        span(6, 999, at=5, resource="lost"),
    )
    assert [(one.kind, one.time // MS, one.spans) for one in found] == [
        ("queue", 59, [4]), ("pool", 35, [2]), ("orphans", 0, [6]), ("late", 0, [5]),
    ]  # fmt: skip
    assert "audit went on 20.0 ms after" in found[3].text


def test_a_quiet_trace_has_no_findings() -> None:
    """Nothing is found where nothing is."""
    assert found_in(span(1, ms=20), span(2, 1, at=1, ms=5), span(3, 1, at=7, ms=5)) == []


# -- what the page is given


def test_the_columns_say_everything_that_is_drawn() -> None:
    """Parents before children, times from the start of the trace, ids as text, links as numbers of spans."""
    spans = [
        span(
            2**63 + 1,
            1,
            at=5,
            ms=2,
            error=1,
            service="pricing",
            meta={"async.outcome": "timeout", "span.kind": "server"},
        ),
        span(1, ms=10, links=(Link(TRACE_ID, 2**63 + 1), Link(5, 5))),
    ]
    data = TraceView(Trace(TRACE_ID, spans)).columns()
    columns, texts = data["columns"], data["texts"]
    assert columns["id"] == ["1", str(2**63 + 1)]
    assert (columns["parent"], columns["start"], columns["duration"]) == (
        [-1, 0],
        [0, 5 * MS],
        [10 * MS, 2 * MS],
    )
    assert [texts[number] for number in columns["service"]] == ["shop", "pricing"]
    assert [texts[number] for number in columns["outcome"]] == ["", "timeout"]
    assert (data["lanes"], columns["lane"]) == (
        [{"service": "shop", "process": ""}, {"service": "pricing", "process": ""}],
        [0, 1],
    )
    assert data["links"] == [[0, 1]]
    assert (columns["error"], columns["orphan"]) == ([0, 1], [0, 0])


@pytest.mark.parametrize(
    "spans", [[], [span(1, 1)], [span(1, 2), span(2, 1)]], ids=["none", "own parent", "circle"]
)
def test_odd_traces_can_be_looked_at(spans: list[Span]) -> None:
    """A trace of nothing, or whose parents go in circles, has columns and an analysis, too."""
    view = TraceView(Trace(TRACE_ID, spans))
    assert len(view.columns()["columns"]["id"]) == len(spans)
    assert set(view.analysis()) == {"path", "shares", "findings"}
