"""The part of a trace that is made in this process, below one local root: what its records share.

A record is a span of ours that ddtrace does not know yet. It waits in its trace's buffer until ddtrace hands that trace
over, or until it is sent ahead or after. No locks: whoever ends a record appends it, *then* looks whether the trace has
left; whoever takes the records away says that it has left, *then* takes them one by one.
"""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from time import time_ns
from typing import TYPE_CHECKING

from ddtrace.trace import Context

from asynctrace._core import lean
from asynctrace._core.aggregator import holds, partial_flush_most
from asynctrace._core.tracer import is_from_elsewhere, local_root, setting

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan

    from asynctrace._core.span import Span


LOT = 100
"""So many records leave at once, ahead of their trace: to make as many spans of them as ddtrace's own partial flush has
(300) would hold up the loop for longer than that does."""


class Buffer:
    """The ended records of a trace."""

    __slots__ = ("done", "left", "limit", "most", "segments", "trace_id")

    def __init__(self, trace_id: int, *, left: bool) -> None:
        self.trace_id = trace_id
        self.left = left
        """`left`: ddtrace has handed its spans over, so that nobody takes these along."""
        self.limit = partial_flush_most()
        self.most = min(LOT, self.limit)
        """So many wait; more than that leave ahead."""
        self.done: list[Span] = []
        self.segments: list[Segment] = []


class Segment:
    """One local root, and where the records below it wait."""

    __slots__ = ("buffer", "deferred", "first", "place", "root", "service", "takes", "trace_id")

    def __init__(
        self, buffer: Buffer, place: Context | None, root: DDSpan | None, deferred: Span | None = None
    ) -> None:
        self.buffer = buffer
        self.place = place
        """The local root's context; while that is a record, the one it is below; None where it is deferred and needs a
        ddtrace span for that."""
        self.root = root
        self.deferred = deferred
        """The local root, while ddtrace has not been told of it."""
        self.trace_id = buffer.trace_id
        self.service = root.service if root is not None else None if deferred is None else deferred._service
        """The local root's, as the first record below it began; it may be set again."""
        self.first: Span | None = None
        """The local root, while it is a record."""
        self.takes = deferred is not None or lean.is_on()
        """Whether spans below become records."""

    @property
    def context(self) -> Context:
        """What the contexts of its spans have in common."""
        if self.place is None:
            self.start()
        return self.place  # type: ignore[return-value]  # there is one, once it has a root

    def start(self) -> None:
        """Have ddtrace know of the local root."""
        if self.deferred is not None:
            self.deferred.as_parent()

    def shown(self) -> DDSpan | Context:
        """What stands for its records with those who want to know no more than which trace runs."""
        return (self.root or self.context) if self.deferred is None else self.deferred.shown()


class _Hole(list["Span"]):
    """In a process that was forked off: swallows what was begun before, the parent process delivers that."""

    def __init__(self) -> None:
        super().__init__()
        self._forked_ns = time_ns()

    def append(self, record: Span) -> None:
        if record._start_ns >= self._forked_ns:
            super().append(record)


buffers: dict[int, Buffer] = {}
"""Of traces that ddtrace will hand over, by trace id."""

late: dict[int, Buffer] = {}
"""Of traces that it has handed over, and of which more has ended since."""


def segment_of(span: DDSpan) -> Segment | None:
    """Where records below this ddtrace span wait; None when it must not have any."""
    trace_id = span.trace_id
    buffer = buffers.get(trace_id) or _begun(trace_id)
    if buffer is None:
        return _late_segment(span.context, local_root(span))
    root = local_root(span)
    for segment in buffer.segments:
        if segment.root is root:
            return segment
    segment = Segment(buffer, root.context, root)
    buffer.segments.append(segment)
    return segment


def segment_from(context: Context) -> Segment | None:
    """A segment for a local root under a context of this process: what was taken from a queue, say."""
    if not context.trace_id or not context.span_id or is_from_elsewhere(context) or not lean.may_begin:
        return None
    buffer = buffers.get(context.trace_id) or _begun(context.trace_id)
    return _late_segment(context, None) if buffer is None else Segment(buffer, context, None)


def _begun(trace_id: int) -> Buffer | None:
    """The buffer of a trace of which ddtrace will hand over more; None where nobody would take records along."""
    if not holds(trace_id):  # it has left long ago, or began while the tracer was off
        return None
    buffer = buffers.setdefault(trace_id, Buffer(trace_id, left=False))
    if not holds(trace_id):  # it has left meanwhile
        leave(trace_id)
        return None
    return buffer


def _late_segment(context: Context, root: DDSpan | None) -> Segment | None:
    if (
        context.sampling_priority is None or context.trace_id is None
    ):  # it is still to be decided, on a ddtrace span
        return None
    buffer = late.get(context.trace_id) or Buffer(context.trace_id, left=True)
    return Segment(buffer, context, root)


def join(segment: Segment) -> None:
    """A deferred local root is one of ddtrace's from now on: what waits below it leaves as that does."""
    own = segment.buffer
    if (buffer := buffers.setdefault(own.trace_id, own)) is own:
        return
    buffer.segments.append(segment)
    segment.buffer = buffer
    own.left = True  # whoever ends a record now, and has looked before, sends it
    with suppress(IndexError):
        while own.done:
            buffer.done.append(own.done.pop())


def leave(trace_id: int) -> Buffer | None:
    """A trace is handed over, all that was left of it: its buffer."""
    if (buffer := buffers.pop(trace_id, None)) is not None:
        buffer.left = True
        buffer.segments = []
    return buffer


class _Running(threading.local):
    """What ddtrace's listeners (profiler, native thread context) were told last that runs in this thread."""

    segment: Segment | None = None
    span_id: int | None = None

    def __init__(self) -> None:
        self.ids = Context(is_remote=False)
        """The ids of a root that ddtrace does not know of yet, for as long as it takes to read them."""


running = _Running()


def new_trace_id(now_ns: int) -> int:
    """As ddtrace makes them: the upper half is the second the trace begins in, unless ids have 64 bits."""
    lower = new_id(64) or 1
    return (now_ns // 10**9 << 96) | lower if _LONG_IDS else lower


_LONG_IDS = setting("_128_bit_trace_id_enabled", default=True)

_random = random.Random()  # noqa: S311 - ids, not secrets; not the module's own: the user may seed that
new_id = _random.getrandbits


def let_go() -> None:
    """Nothing is handed over while the tracer is off: what waits is dropped. Traces that are open may go on later."""
    for buffer in (*buffers.values(), *late.values()):
        buffer.done.clear()
    late.clear()
    for buffer in tuple(buffers.values()):
        if not any(one.root is not None and one.root.duration_ns is None for one in buffer.segments):
            leave(buffer.trace_id)


def _in_child() -> None:
    _random.seed()
    for buffer in (*buffers.values(), *late.values()):
        buffer.left, buffer.done, buffer.segments = True, _Hole(), []
    buffers.clear()
    late.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
