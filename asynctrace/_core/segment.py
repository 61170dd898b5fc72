"""The part of a trace that is made in this process, below one local root: what its records share.

A record is a span of ours that ddtrace does not know yet. It waits in its trace's buffer until ddtrace hands that trace
over, or until it is sent ahead. No locks: whoever ends a record appends it, *then* looks whether the trace has left;
whoever takes the records away says that it has left, *then* takes them one by one.
"""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING

from asynctrace._core import lean
from asynctrace._core.tracer import local_root, partial_flush_most

if TYPE_CHECKING:
    from ddtrace.trace import Context, Span as DDSpan

    from asynctrace._core.span import Span


class Buffer:
    """The ended records of a trace of which ddtrace holds open spans."""

    __slots__ = ("done", "left", "most", "segments")

    def __init__(self) -> None:
        self.most = partial_flush_most()
        self.done: list[Span] = []
        self.left = False
        """ddtrace has handed its spans over, and will not again: what ends now leaves by itself."""
        self.segments: list[Segment] = []


class Segment:
    """One local root, and where the records below it wait."""

    __slots__ = ("buffer", "context", "root", "takes", "trace_id")

    def __init__(self, root: DDSpan, buffer: Buffer) -> None:
        self.root: DDSpan | None = root
        self.buffer = buffer
        self.context: Context = root.context
        self.trace_id = root.trace_id
        self.takes = lean.is_on()
        """Whether spans below become records: no more once the trace has left."""


class _Hole(list["Span"]):
    """Swallows: in a process that was forked off, the records are the parent process's to deliver."""

    def append(self, _: Span) -> None: ...


buffers: dict[int, Buffer] = {}
"""By trace id."""


def segment_of(span: DDSpan) -> Segment | None:
    """Where records below this ddtrace span wait; None when no more are taken."""
    trace_id = span.trace_id
    buffer = buffers.get(trace_id)
    if buffer is None or buffer.left:
        if span.duration_ns is not None:  # ddtrace may have nothing more of that trace to hand over
            return None
        buffer = buffers[trace_id] = Buffer()
    root = local_root(span)
    for segment in buffer.segments:
        if segment.root is root:
            return segment
    segment = Segment(root, buffer)
    buffer.segments.append(segment)
    return segment


def leave(trace_id: int) -> Buffer | None:
    """Ddtrace hands a trace over, all that was left of it: its buffer, to which nobody adds any more."""
    if (buffer := buffers.pop(trace_id, None)) is not None:
        _close(buffer)
    return buffer


def _close(buffer: Buffer) -> None:
    buffer.left = True
    for segment in buffer.segments:
        segment.takes = False


def let_go(buffer: Buffer) -> None:
    """Nothing of the trace is held any longer, however long somebody keeps one of its spans."""
    for segment in buffer.segments:
        segment.root = None
    buffer.segments = []


class _Running(threading.local):
    """What ddtrace's listeners (profiler, native thread context) were told last that runs in this thread."""

    segment: Segment | None = None


running = _Running()

_random = random.Random()  # noqa: S311 - ids, not secrets; not the module's own: the user may seed that
new_id = _random.getrandbits


def _in_child() -> None:
    _random.seed()
    for buffer in buffers.values():
        buffer.done = _Hole()
        _close(buffer)
        let_go(buffer)
    buffers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
