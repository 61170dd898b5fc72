"""The doors of ddtrace that are not public are still where `_core/tracer.py` looks for them."""

from __future__ import annotations

from ddtrace.trace import Context, tracer

from asynctrace import span
from asynctrace._core.delivery import head, tail
from asynctrace._core.tracer import is_for_one_span, local_root


def test_the_local_root_is_told() -> None:
    """`Span._local_root` is the first span of the trace in this process, not the span itself."""
    with span("root"), span("middle"), tracer.trace("theirs") as theirs:
        assert local_root(theirs).name == "root"


def test_the_list_of_filters_is_there() -> None:
    """`Tracer._span_aggregator.user_processors` is the list that ddtrace runs, with ours at both ends."""
    filters = tracer._span_aggregator.user_processors
    assert (filters[0], filters[-1]) == (head, tail)


def test_a_context_says_whether_it_is_for_one_span() -> None:
    """`Context._reactivate` is off for one made of headers, and on while ddtrace activates it for longer."""
    context = Context(trace_id=7, span_id=8)
    assert hasattr(context, "_reactivate")
    assert is_for_one_span(context)
    with tracer._activate_context(context):
        assert not is_for_one_span(context)
