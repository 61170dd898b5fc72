"""The test kit: what a Recorder sees, and how it says so."""

from __future__ import annotations

import asyncio
import threading

import pytest
from ddtrace.trace import TraceFilter, tracer

from asynctrace import SpanContext, span, start_span
from asynctrace._core.delivery import listeners
from asynctrace.testing import Recorder


def test_what_is_recorded(traces: Recorder) -> None:
    """A span as plain data: names, ids, parent, times, outcome, tags and links."""
    there = SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})
    with span("a", resource="r", service="s", type="web", tags={"text": "x", "number": 7}) as a:
        a.link(there, {"why": "batch"})
        with pytest.raises(ValueError), span("b") as b:
            raise ValueError
    one, child = traces.spans
    assert (one.name, one.resource, one.service, one.type) == ("a", "r", "s", "web")
    assert (one.trace_id, one.span_id, one.parent_id) == (a.trace_id, a.span_id, None)
    assert (child.trace_id, child.span_id, child.parent_id) == (a.trace_id, b.span_id, a.span_id)
    assert one.trace_id >= 2**64
    assert (one.outcome, one.error, child.outcome, child.error) == ("ok", 0, "error", 1)
    assert {"text": "x", "number": 7}.items() <= one.tags.items()
    assert child.end_ns is not None
    assert one.end_ns is not None
    assert one.start_ns <= child.start_ns <= child.end_ns <= one.end_ns
    assert one.duration_ns == one.end_ns - one.start_ns
    (link,) = one.links
    assert (link.trace_id, link.span_id, link.attributes) == (7, 8, {"why": "batch"})


def test_only_what_was_handed_over(traces: Recorder) -> None:
    """An open span is in `open`; in `spans` it is when its trace has gone to the writer."""
    outer, inner = start_span("outer"), start_span("inner")
    assert ([one.name for one in traces.open], traces.spans) == (["outer", "inner"], [])
    assert traces.open[0].end_ns is None
    assert traces.open[0].duration_ns == 0
    inner.finish()
    assert ([one.name for one in traces.open], traces.spans) == (["outer"], [])
    outer.finish()
    assert (traces.open, [one.name for one in traces.spans]) == ([], ["outer", "inner"])


def test_open_spans_of_ddtrace(traces: Recorder) -> None:
    """`open` knows those that ddtrace's integrations, or `tracer.trace()`, have opened."""
    theirs = tracer.trace("theirs")
    names = [one.name for one in traces.open]
    theirs.finish()
    assert names == ["theirs"]


def test_spans_of_ddtrace_are_recorded(traces: Recorder) -> None:
    """Once they end, whoever made them."""
    with tracer.trace("theirs", service="s"):
        pass
    assert traces.one("theirs").service == "s"


def test_after_all_filters() -> None:
    """What a user's filter drops or changes is dropped or changed here, too."""

    class Users(TraceFilter):
        def process_trace(self, trace):  # type: ignore[no-untyped-def]
            trace[0].set_tag("seen", "yes")
            return None if trace[0].name == "dropped" else trace

    tracer.configure(trace_processors=[Users()])
    try:
        with Recorder() as traces:
            for name in ("dropped", "kept"):
                with span(name):
                    pass
    finally:
        tracer.configure(trace_processors=[])
    assert traces.names() == {"kept"}
    assert traces.one("kept").tags["seen"] == "yes"


def test_start_and_stop() -> None:
    """`start()` and `stop()` may be called twice; what was recorded stays; nothing is recorded in between."""
    traces = Recorder()
    for name in ("before", "during"):
        with span(name):
            pass
        assert traces.start() is traces
        traces.start()
    with span("during"):
        pass
    traces.stop()
    traces.stop()
    with span("after"):
        pass
    assert [one.name for one in traces.spans] == ["during", "during"]
    assert listeners == []


def test_two_recorders(traces: Recorder) -> None:
    """Each records on its own."""
    with span("a"):
        pass
    with Recorder() as other, span("b"):
        pass
    assert (traces.names(), other.names()) == ({"a", "b"}, {"b"})


def test_a_test_that_fails_stops_its_recorder() -> None:
    """The block passes the exception on."""
    with pytest.raises(AssertionError), Recorder():
        raise AssertionError
    assert listeners == []


def test_the_tree(traces: Recorder) -> None:
    """Children below parents, in the order of their starts, two spaces a level, the outcome when it is not ok."""
    with span("first"):
        with span("child"), span("grandchild"):
            pass
        with pytest.raises(asyncio.CancelledError), span("cancelled"):
            raise asyncio.CancelledError
    with span("second"):
        pass
    assert traces.tree() == "first\n  child\n    grandchild\n  cancelled (cancelled)\nsecond"
    traces.clear()
    assert (traces.tree(), traces.spans, traces.open) == ("", [], [])


def test_the_tree_of_part_of_a_trace(traces: Recorder) -> None:
    """A span whose parent was not recorded (a remote one, say) is at the top."""
    with span("a", parent=SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})):
        pass
    assert traces.tree() == "a"
    assert traces.one("a").parent_id == 8


def test_the_tree_of_a_deep_trace(traces: Recorder) -> None:
    """Depth is no problem."""
    handles = [start_span("a") for _ in range(2000)]
    for handle in reversed(handles):
        handle.finish()
    assert traces.tree().splitlines()[-1] == "  " * 1999 + "a"


def test_one_tells_what_there_is(traces: Recorder) -> None:
    """Asked for a span that is not there, or there twice, it fails with the tree."""
    with span("a"), span("b"):
        pass
    with pytest.raises(AssertionError, match="0 spans named 'c' in\na\n  b"):
        traces.one("c")
    with span("b"):
        pass
    with pytest.raises(AssertionError, match="2 spans named 'b'"):
        traces.one("b")
    traces.clear()
    with pytest.raises(AssertionError, match="nothing"):
        traces.one("a")


def test_recorded_from_threads(traces: Recorder) -> None:
    """Spans of all threads are there, each once."""

    def work() -> None:
        for _ in range(50):
            with span("a"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.span_id for one in traces.spans}) == len(traces.spans) == 200
