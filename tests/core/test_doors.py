"""The doors of ddtrace that are not public are still where `_core` (`tracer.py`, `aggregator.py`) looks for them."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any, cast

import ddtrace
import pytest
from ddtrace.trace import Context, tracer

from asynctrace import SpanContext, span
from asynctrace._core import aggregator, tracer as doors
from asynctrace._core.aggregator import (
    holds,
    may_decide_early,
    open_traces,
    partial_flush,
    sample,
    start_writer,
    take_finished,
)
from asynctrace._core.delivery import head, tail
from asynctrace._core.handover import handover
from asynctrace._core.tracer import (
    as_opentelemetry,
    integration,
    is_for_one_span,
    is_remote,
    local_root,
    set_up,
    sql_commenter,
)


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


def test_a_remote_parent_is_told() -> None:
    """`Span._parent_context._is_remote` says of a span that its parent is elsewhere, and of others that it is not."""
    there = SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})
    with span("root", parent=there), tracer.trace("inner") as inner:
        root = tracer.current_root_span()
        assert root is not None
        assert is_remote(root)
        assert not is_remote(inner)


def test_the_traces_it_holds_are_told() -> None:
    """`_span_aggregator._traces`, with how many spans of each have ended, its lock, and ddtrace's processors."""
    with span("root") as root:
        with tracer.trace("child") as child:
            pass
        (waiting,) = [one for one in open_traces() if one[0] == root.trace_id]
        assert waiting[1] == 1
        assert waiting[2].span_id == root.span_id
        assert [one.span_id for one in take_finished(root.trace_id)] == [child.span_id]
        assert take_finished(root.trace_id) == []
        assert partial_flush()
        assert holds(root.trace_id)
    handover.finish()
    assert take_finished(root.trace_id) == []
    assert not holds(root.trace_id)


def test_it_says_whether_opentelemetrys_names_are_wanted() -> None:
    """`config._otel_trace_semantics_enabled`."""
    assert ddtrace.config._otel_trace_semantics_enabled is False
    assert not as_opentelemetry()


def test_the_writer_says_whether_it_runs() -> None:
    """`_span_aggregator.writer.status`, and `_sync_mode`, in which it never does."""
    writer: Any = tracer._span_aggregator.writer
    start_writer()
    assert writer.status.value == "running"
    assert writer._sync_mode is False


@pytest.mark.parametrize("name", ["logging", "structlog"])
def test_its_integrations_come_off_again(name: str) -> None:
    """`ddtrace.contrib.internal.*.patch` has both ways, and the library says which it is: not on here."""
    door = integration(name)
    assert callable(door.patch)
    assert callable(door.unpatch)
    door.patch()
    assert importlib.import_module(name)._datadog_patch is True
    door.unpatch()
    assert importlib.import_module(name)._datadog_patch is False


def test_an_early_decision_needs_the_rules() -> None:
    """`_span_aggregator.sampling_processor.sampler.rules`: none, so the trace is sampled, and kept."""
    with tracer.trace("root") as root:
        assert root.context.sampling_priority is None
        assert may_decide_early(root)
        assert root.context.sampling_priority == 1


@pytest.mark.parametrize("mode", ["service", "full"])
def test_database_monitoring_has_a_comment(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """`_DBM_Propagator(...).inject` and `dbm_config`: a comment before the query, of the span that is active."""
    module = importlib.import_module("ddtrace.propagation._database_monitoring")
    monkeypatch.setattr(module.dbm_config, "propagation_mode", mode)
    commented = sql_commenter()
    assert commented is not None
    with tracer.trace("query", service="db") as query:
        found = re.fullmatch(r"/\*(.*)\*/ SELECT 1", commented("SELECT 1"))
    assert found
    assert "dddbs='db'" in found[1]
    assert (f"{query.span_id:016x}" in found[1]) == (mode == "full")


def test_database_monitoring_off_or_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off, or not where it was: no comment. One that fails leaves the query as it is."""
    assert sql_commenter() is None
    name = "ddtrace.propagation._database_monitoring"
    module = importlib.import_module(name)
    monkeypatch.setattr(module.dbm_config, "propagation_mode", "full")
    commented = sql_commenter()
    assert commented is not None
    assert commented("SELECT 1") == "SELECT 1"  # no span is active
    monkeypatch.setitem(sys.modules, name, None)
    assert sql_commenter() is None


def test_no_early_decision_without_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should they move, spans wait for their trace."""
    with tracer.trace("root") as root:
        monkeypatch.setattr(tracer._span_aggregator, "sampling_processor", Nothing())
        assert not may_decide_early(root)
        monkeypatch.undo()


def test_nothing_is_taken_that_our_filter_would_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it among the filters, finished spans wait for their trace."""
    with span("root") as root:
        with tracer.trace("child"):
            pass
        monkeypatch.setattr(tracer._span_aggregator, "user_processors", [])
        assert take_finished(root.trace_id) == []
        monkeypatch.undo()
        assert len(take_finished(root.trace_id)) == 1


def test_set_up_is_once_a_process() -> None:
    """A second time changes nothing."""
    before = tracer.configure, tracer.context_provider, list(tracer._span_aggregator.user_processors)
    set_up()
    assert before == (tracer.configure, tracer.context_provider, tracer._span_aggregator.user_processors)


class Nothing:
    """A tracer of a later ddtrace, of which nothing is where it was."""


def test_without_any_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans wait for their trace, then; nothing raises."""
    with tracer.trace("root") as root:
        monkeypatch.setattr(aggregator, "tracer", Nothing())
        assert open_traces() == []
        assert partial_flush()
        assert not may_decide_early(root)
        sample(root)
        start_writer()
        aggregator.process([root])
        aggregator.decide_by_rules(root)
        assert aggregator.partial_flush_most() == 300
        assert aggregator.has_single_span_rules()
        monkeypatch.undo()
    assert local_root(cast("Any", Nothing())) is not None
    assert not is_remote(cast("Any", Nothing()))


def test_without_the_modules_that_are_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local root has its process's number, then, and nobody is taken to watch spans."""

    def moved(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", moved)
    doors._runtime.cache_clear()
    assert doors.process_tags() == {"process_id": os.getpid()}
    watchers, listens = doors._watching()
    assert (watchers(), listens("trace.span_start")) == (False, False)


class Plain:
    """A span of a later ddtrace: its tags go one by one, and what its local root is can't be told."""

    __slots__ = ("tags",)

    def __init__(self) -> None:
        self.tags: dict[str, Any] = {}

    def set_tag(self, key: str, value: Any) -> None:
        self.tags[key] = value


def test_a_span_without_its_private_sides() -> None:
    """It gets its tags by the public way, and keeps the local root that it has."""
    plain = Plain()
    doors.set_tags(cast("Any", plain), {"a": "1", "b": 2})
    assert plain.tags == {"a": "1", "b": 2}
    with tracer.trace("root") as root:
        doors.adopt(cast("Any", plain), root)


def test_filters_without_their_door() -> None:
    """`configure()` then: it takes our filters, and leaves a tracer that is off as it is."""
    configured = []

    class Later:
        enabled = False

        def configure(self, trace_processors: list[Any]) -> None:
            configured.extend(trace_processors)
            self.enabled = True

    later = Later()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doors, "tracer", later)
        doors.register(head, tail)
    assert configured == [head, tail]
    assert not later.enabled
