"""How a span begins: written down as a record, or started by ddtrace."""

from __future__ import annotations

import copy
from contextlib import suppress
from time import time_ns
from typing import TYPE_CHECKING

import ddtrace
from ddtrace.trace import Span as DDSpan, tracer

from asynctrace._core import deferred
from asynctrace._core.early import send_soon, watch
from asynctrace._core.handover import handover
from asynctrace._core.provider import provider
from asynctrace._core.record import NOBODY, set_tags, source_at_end
from asynctrace._core.segment import new_id
from asynctrace._core.tracer import service_of, source_of
from asynctrace._core.values import AT_ONCE

if TYPE_CHECKING:
    from ddtrace.trace import Context

    from asynctrace._core.provider import Entry
    from asynctrace._core.segment import Segment
    from asynctrace._core.span import Span


def renewed(span: Span) -> bool:
    """Opened again: after its end, what it was then is another now; while it is open, it is that already."""
    if span._is_open():
        return False
    if span._dd is None and not span._written:  # deferred: it waits to be handed over
        handover.finish()
    if span._written and span._segment is not None:
        buffer, past = span._segment.buffer, copy.copy(span)
        with suppress(ValueError):  # it has been taken
            buffer.done.remove(span)
            buffer.done.append(past)
            if buffer.left:
                send_soon(buffer)
    span._tags, span._end_ns, span._written = span._given, 0, False
    span._dd = span._segment = None
    span._id = 0
    return True


def write_down(span: Span, above: Entry | None, segment: Segment, start_ns: int | None) -> None:
    """It is a record."""
    span._written = True
    span._segment = segment
    span._id = new_id(64) or 1
    if isinstance(above, type(span)):
        span._parent_id = above._id
        begun = above._start_ns
        source = above._source
        parent = above._dd
        service = span._under = above._service if parent is None else parent.service
        if above._end_ns:
            component = (above._tags or {}).get("component")
            source = source_at_end(source, service, component) if parent is None else source_of(parent)
    else:
        span._parent_id, begun, service, source = _below(span, above, segment)
    start = start_ns or time_ns()
    span._start_ns = start if start > begun else begun  # the wall clock may be stepped back
    if span._chosen is None:
        span._service, span._source = service, source if service else ""
    else:
        span._service, span._source = service_of(span._chosen)
    if span._tags and not AT_ONCE.isdisjoint(span._tags):
        span._known()


def _below(span: Span, above: Entry | None, segment: Segment) -> tuple[int, int, str | None, str]:
    """Of what ddtrace knows above: id, start, service, and who chose that."""
    parent = None if above is None else above.as_parent()
    if isinstance(parent, DDSpan):
        service = span._under = parent.service
        return parent.span_id, parent.start_ns, service, source_of(parent)
    segment.first, span._under = span, NOBODY
    if above is not None:
        above.opened()
    return segment.context.span_id or 0, 0, ddtrace.config.service, ""


def _defer(span: Span, start_ns: int | None) -> None:
    deferred.begin(span, start_ns)
    if span._tags and not AT_ONCE.isdisjoint(span._tags):
        span._known()


def at_last(span: Span) -> DDSpan:
    """The ddtrace span of one that was deferred."""
    dd = deferred.start(span)
    if watch.asleep:
        watch.wake()
    return dd


def segment_of(span: Span) -> Segment | None:
    """Where records below one that is deferred wait."""
    segment = deferred.segment_of(span)
    if watch.asleep:
        watch.wake()
    return segment


def start(span: Span, above: Entry | None, start_ns: int | None, *, activate: bool) -> None:
    """It is a ddtrace span, from its start or, if it is a local root, when it must be one."""
    if above is None and tracer.context_provider is provider and deferred.may_be(span._parent):
        _defer(span, start_ns)
        return
    parent: DDSpan | Context | None
    if span._parent is not None:
        parent = span._parent._context
    elif above is not None:
        parent = above.as_parent()
    else:
        parent = None if tracer.context_provider is provider else tracer.context_provider.active()
    dd = span._dd = tracer.start_span(
        span._name,
        child_of=parent,
        service=span._chosen,
        resource=span._resource,
        span_type=span._type,
        activate=activate,
    )
    if above is not None:
        for context in above.opened():
            dd.link_span(context)
    if start_ns is not None:
        dd.start_ns = start_ns
    if isinstance(parent, DDSpan) and dd.start_ns < parent.start_ns:  # as above
        dd.start_ns = parent.start_ns
    span._id, span._start_ns = dd.span_id, dd.start_ns
    span._source = "" if parent is None and span._chosen is None else source_of(dd)
    if span._tags:
        set_tags(dd, span._tags)
    if watch.asleep:
        watch.wake()
