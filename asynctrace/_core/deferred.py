"""Local roots that ddtrace has yet to be told of: to start one takes ddtrace longer than all that we do for it.

Such a root has its ids from the beginning, its tags wait in its handle, and records below it in a buffer of its own.
It is started, as if it had been from the beginning, when somebody asks ddtrace for it, when it is named in headers, by
the thread of `early.py` when there are records below it and it is open for long, and else when it is handed over.
"""

from __future__ import annotations

import logging
import os
import threading
from time import time_ns
from typing import TYPE_CHECKING

import ddtrace
from ddtrace.trace import Span as DDSpan, tracer

from asynctrace._core import aggregator, lean, segment
from asynctrace._core.handover import handover
from asynctrace._core.record import NOBODY, deferred_root, set_tags
from asynctrace._core.segment import Buffer, Segment, join, new_id, new_trace_id, running
from asynctrace._core.tracer import is_from_elsewhere, is_linked, service_of

if TYPE_CHECKING:
    from ddtrace.trace import Context

    from asynctrace._core.context import SpanContext
    from asynctrace._core.span import Span

log = logging.getLogger("asynctrace")

MOST = 100
"""So many are started in a row, because they are open for long."""

parents: dict[int, Span] = {}
"""Those with records below, by span id: these are to leave, whatever becomes of the root. Nobody else is kept here."""

_starting = threading.RLock()  # each is started once


def may_be(parent: SpanContext | None) -> bool:
    """Whether a span that begins with nothing above it here, but what came in headers, may be told of later."""
    if not (handover.takes and lean.may_defer and lean.is_on() and tracer.enabled):
        return False
    if parent is None or (context := parent._context) is None:
        return True
    has_ids = bool(context.trace_id and context.span_id)
    return has_ids and is_from_elsewhere(context) and not is_linked(context)


def begin(span: Span, start_ns: int | None) -> None:
    """It begins, with ids of its own."""
    context = _place(span)
    span._start_ns = start_ns or time_ns()
    span._id = new_id(64) or 1
    if context is None:
        span._trace_id, span._parent_id = new_trace_id(span._start_ns), 0
    else:
        span._trace_id, span._parent_id = context.trace_id or 0, context.span_id or 0
    span._under = NOBODY
    if span._chosen is None:
        span._service, span._source = ddtrace.config.service, ""
    else:
        span._service, span._source = service_of(span._chosen)


def segment_of(span: Span) -> Segment | None:
    """Where records below it wait."""
    with _starting:
        if span._dd is not None:  # meanwhile
            return segment.segment_of(span._dd)
        if span._segment is None:
            parents[span._id] = span
            buffer = Buffer(span._trace_id, left=False)
            span._segment = Segment(buffer, decided(span), None, span)
            buffer.segments.append(span._segment)
        return span._segment


def _place(span: Span) -> Context | None:
    """What came in headers."""
    return None if span._parent is None else span._parent._context


def is_decided(span: Span) -> bool:
    """Whether somebody else has decided to keep its trace or not: then its context needs no ddtrace span."""
    place = _place(span)
    return place is not None and place.sampling_priority is not None


def decided(span: Span) -> Context | None:
    """The context of such a one."""
    place = _place(span)
    return place.copy(span._trace_id, span._id) if place is not None and is_decided(span) else None


def ids(span: Span) -> Context:
    """Who it is, to be read at once by whoever wants to know no more."""
    place, told = _place(span), running.ids
    told.trace_id, told.span_id = span._trace_id, span._id
    told.sampling_priority = None if place is None else place.sampling_priority
    return told


def start(span: Span) -> DDSpan:
    """The ddtrace span that it is from now on."""
    with _starting:
        if span._dd is not None:
            return span._dd
        tags, resource = dict(span._tags or ()), span._resource
        dd = deferred_root(span, _place(span), tags)
        if span._end_ns:
            dd.duration_ns = span._end_ns - span._start_ns
        if span._start_ns >= _forked_ns:
            aggregator.begin(dd)
        if (below := span._segment) is not None:
            below.root, below.place, below.deferred = dd, dd.context, None
            join(below)
            parents.pop(span._id, None)
        span._dd = dd
    if span._resource is not resource:  # set meanwhile, by another thread, as are these
        dd.resource = span._resource or span._name
    if len(late := span._tags or ()) != len(tags) or late != tags:
        set_tags(dd, {key: value for key, value in dict(late).items() if tags.get(key) is not value})
    return dd


def end(span: Span) -> None:
    """Hand it over, now that it has ended. Must not raise."""
    try:
        if span._end_ns:  # else it was opened again
            dd = span._dd or start(span)
            if dd.duration_ns is None:
                dd.duration_ns = span._end_ns - span._start_ns
            aggregator.end(dd)
    except Exception:
        log.debug("span %r could not be handed over", span.name, exc_info=True)
        drop(span)


def drop(span: Span) -> None:
    """It has ended while the tracer is off, say: ddtrace never hears of it, nor of what has ended below it."""
    if parents.pop(span._id, None) is not None and span._segment is not None:
        buffer = span._segment.buffer
        buffer.left = True
        buffer.done.clear()


def start_parents(quiet_ns: int) -> None:
    """Start those that are open for so long, and have records below: these are for ddtrace to send."""
    before, started = time_ns() - quiet_ns, 0
    for span in tuple(parents.values()):
        if span._start_ns <= before and not span._end_ns:
            start(span)
            started += 1
            if started >= MOST and quiet_ns:
                break


_forked_ns = 0


def _in_child() -> None:
    """What was begun before, the parent process delivers."""
    global _forked_ns, _starting
    _forked_ns, _starting = time_ns(), threading.RLock()  # another thread may have held it
    parents.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
