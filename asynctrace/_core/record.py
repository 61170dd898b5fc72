"""Records become ddtrace spans: when their trace leaves, or early, when somebody asks ddtrace for one.

What `Tracer.start_span` and `Tracer._on_span_finish` (ddtrace/_trace/tracer.py) put on a span of their own making is
put on these here, so that nobody can tell them apart.
"""

from __future__ import annotations

import logging
import sys
import weakref
from typing import TYPE_CHECKING, Any

import ddtrace
from ddtrace.trace import Span as DDSpan

from asynctrace._core import aggregator, tracer as doors
from asynctrace._core.outcome import translate
from asynctrace._core.values import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddtrace.trace import Context

    from asynctrace._core.segment import Buffer, Segment
    from asynctrace._core.span import Span

log = logging.getLogger("asynctrace")

_TOP_LEVEL = "_dd.top_level"
_SERVICE_SOURCE = "_dd.svc_src"
_OURS = "datadog"  # as ddtrace names its own API
_NOT_PASSED_ON = frozenset({"_dd.p.dm", "_dd.p.ts"})
_LOOKED_AT = frozenset({"span.kind", "peer.service", "component"})
"""Tags that ddtrace's own processors look at."""

USER_REJECT = -1

NOBODY: Any = object()
"""Whose service a local root is under."""


def early(record: Span, segment: Segment) -> DDSpan:
    """The ddtrace span that a record will be: a parent for others, a home for what only ddtrace can keep."""
    segment.start()
    span = DDSpan(
        record._name,
        record._service,
        record._resource,
        record._type,
        segment.trace_id,
        record._id,
        record._parent_id,
        None,
        segment.context,
        [ended_by_ddtrace(record)],
    )
    span.start_ns = record._start_ns
    doors.set_tags(span, tags_of(segment, record._service))
    if record._source:
        span.set_tag(_SERVICE_SOURCE, record._source)
    set_tags(span, record._tags or {})
    if record._end_ns:
        span.duration_ns = record._end_ns - record._start_ns
    if segment.first is record:
        segment.root, segment.first = span, None
        doors.set_tags(span, doors.process_tags())
    elif segment.first is not None:
        doors.adopt(span, segment.first.as_parent())
    elif segment.root is not None:
        doors.adopt(span, segment.root)
    return span


def deferred_root(root: Span, place: Context | None, tags: dict[str, Any]) -> DDSpan:
    """The ddtrace span that a deferred local root is from now on: ddtrace ends it."""
    span = DDSpan(
        root._name,
        root._service,
        root._resource,
        root._type,
        root._trace_id,
        root._id,
        root._parent_id or None,
        None,
        place,
        [doors.on_finish],
    )
    span.start_ns = root._start_ns
    service = root._service
    fixed = doors.process_tags()
    fixed.update(_tags_below(place, has_version=service == ddtrace.config.service))
    if root._source:
        fixed[_SERVICE_SOURCE] = root._source
    if AT_ONCE.isdisjoint(tags):
        fixed.update(tags)
        doors.set_tags(span, fixed)
    else:
        doors.set_tags(span, fixed)
        set_tags(span, tags)
    return span


def ended_by_ddtrace(record: Span) -> Callable[[DDSpan], None]:
    """For ddtrace to call when somebody ends the early span, not ours; it must not keep the record."""
    reference = weakref.ref(record)

    def ended(_: DDSpan) -> None:
        if (one := reference()) is not None:
            one.finish()

    return ended


def drained(buffer: Buffer, most: int = sys.maxsize) -> list[DDSpan]:
    """The records that have ended, or so many of them, each taken once, as ddtrace spans."""
    records: list[Span] = []
    done = buffer.done
    try:
        while done and len(records) < most:
            records.append(done.pop())
    except IndexError:  # another thread was quicker
        pass
    if not records:
        return []
    if len(records) > 1:
        records.reverse()
    if _may_be_thinned(records[0]._segment):
        records = [record for record in records if _is_counted(record)]
    return _Chunk().spans_of(records)


def _may_be_thinned(segment: Segment | None) -> bool:
    """Whether the trace is rejected for good, by its user or by a rule, so that the agent counts and forgets it."""
    if segment is None or segment.context.sampling_priority != USER_REJECT:
        return False
    return not aggregator.has_single_span_rules()


def _is_counted(record: Span) -> bool:
    """Whether Datadog computes trace metrics from it: entry spans, measured ones, and those with a kind."""
    tags = record._tags
    if record._dd is not None or _is_entry(record, record._service):
        return True
    return tags is not None and ("span.kind" in tags or "_dd.measured" in tags)


def set_tags(span: DDSpan, tags: dict[str, Any]) -> None:
    """Tags that are fit for the wire; those that have an effect as they are set, have it now."""
    if AT_ONCE.isdisjoint(tags):
        doors.set_tags(span, tags)
    else:
        for key, value in tags.items():
            span.set_tag(key, value)


def _is_entry(record: Span, service: str | None) -> bool:
    """Whether it is what a service begins with: its parent, if it has one here, had another as it began."""
    under = record._under
    return under is NOBODY or (service is not None and under != service)


class _Chunk:
    """Makes the ddtrace spans of one chunk."""

    def __init__(self) -> None:
        self._conspicuous: list[DDSpan] = []  # ddtrace's own processors may have something to say about them
        self._segment: Segment | None = None

    def spans_of(self, records: list[Span]) -> list[DDSpan]:
        spans = []
        for record in records:
            try:
                spans.append(self._new(record) if record._dd is None else self._early(record, record._dd))
            except Exception:  # noqa: PERF203 - one that can't be built is not to take the others with it
                log.debug("the span %r could not be delivered", record._name, exc_info=True)
        aggregator.process(self._conspicuous)
        return spans

    def _new(self, record: Span) -> DDSpan:
        segment, service, source, tags = record._segment, record._service, record._source, record._tags
        if segment is not self._segment:
            self._enter(segment)
        if service is not self._service or source is not self._source:
            self._learn(service, source)
        begun = record._start_ns
        span = record._dd = DDSpan(
            record._name,
            service,
            record._resource,
            record._type,
            self._trace_id,
            record._id,
            record._parent_id,
            None,
            self._context,
        )
        span.start_ns = begun
        span.duration_ns = record._end_ns - begun
        unusual = self._unusual
        if self._fixed:
            doors.set_tags(span, self._fixed)
        if tags:
            set_tags(span, tags)
            unusual = unusual or not _LOOKED_AT.isdisjoint(tags)
        if _is_entry(record, service):
            span.set_metric(_TOP_LEVEL, 1)
            if segment is not None and segment.first is record:
                segment.root, segment.first = span, None
                doors.set_tags(span, doors.process_tags())
        if unusual:
            self._conspicuous.append(span)
            self._say_source(span, source)
        return span

    def _early(self, record: Span, span: DDSpan) -> DDSpan:
        if span.duration_ns is None:
            span.duration_ns = record._end_ns - record._start_ns
        if _is_entry(record, span.service):
            span.set_metric(_TOP_LEVEL, 1)
        translate(span)
        self._conspicuous.append(span)
        self._say_source(span, record._source)
        return span

    def _enter(self, segment: Segment | None) -> None:
        """The next spans are of this segment; one of the same trace and local root has the same tags."""
        assert segment is not None
        before, self._segment, self._context = self._segment, segment, segment.context
        if before is None or before.trace_id != segment.trace_id or before.root is not segment.root:
            self._trace_id, self._service = segment.trace_id, NOBODY

    def _learn(self, service: str | None, source: str) -> None:
        """What spans like the next ones have in common."""
        assert self._segment is not None
        self._service, self._source = service, source
        self._fixed = tags_of(self._segment, service)
        if source := source_at_end(source, service, None):
            self._fixed[_SERVICE_SOURCE] = source
        self._unusual = (service or "").lower() != aggregator.ordinary_service()

    @staticmethod
    def _say_source(span: DDSpan, source: str) -> None:
        source = span.get_tag(_SERVICE_SOURCE) or source  # an integration may say it was its default
        if source := source_at_end(source, span.service, span.get_tag("component")):
            span.set_tag(_SERVICE_SOURCE, source)


def source_at_end(source: str, service: str | None, component: str | None) -> str:
    """Who chose the service of a span that ends: where nobody did, whoever made the span."""
    if doors.is_inferred(service) and not source.startswith("opt."):
        return component or source or _OURS
    return source


def tags_of(segment: Segment, service: str | None) -> dict[str, Any]:
    """What ddtrace gives every span of that service in that segment at its start."""
    return _tags_below(segment.context, has_version=_has_version(segment, service))


def _tags_below(place: Context | None, *, has_version: bool) -> dict[str, Any]:
    config, fixed = ddtrace.config, doors.propagated_tags(place)
    if fixed:
        for key in _NOT_PASSED_ON:
            fixed.pop(key, None)
    fixed.update(doors.global_tags())
    if (config.env or config.version) and not doors.as_opentelemetry():
        if config.env:
            fixed["env"] = config.env
        if config.version and has_version:
            fixed["version"] = config.version
    return fixed


def _has_version(segment: Segment, service: str | None) -> bool:
    root = segment.root
    if root is None:
        return service == ddtrace.config.service
    return service in {segment.service, root.service} and root.get_tag("version") is not None
