"""What ddtrace does at the end of a trace is done by a thread, not by whoever ends its first span.

Tags, filters, sampling and encoding take longer than all that was done for the trace before, and nothing that the loop
does next needs them done. So a local root of ours that ends is only marked as ended, and waits here for the thread of
`early.py`, which works in slices: the loop waits for the GIL no longer than for one of them. Where the thread can't
keep up, or where somebody in ddtrace watches spans as they end, they are handed over at once.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING

from asynctrace._core import aggregator, lean
from asynctrace._core.tracer import watchers

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan

MOST = 500
"""So many wait for the thread."""

MANY = 100
"""With more than that the thread has fallen behind, and takes a longer turn."""

SLICE_NS = 500_000
LONG_SLICE_NS = 3_000_000


class Handover:
    """The ended spans that ddtrace has yet to be told of, oldest first."""

    def __init__(self) -> None:
        self.waiting: deque[DDSpan] = deque()
        self.takes = False  # read on the hot path

    def look(self) -> None:
        """Whether spans may wait; asked by the thread, every time it wakes."""
        self.takes = lean.may_wait()

    def add(self, span: DDSpan, end_ns: int) -> bool:
        """The span ends now, for everybody who looks at it; whether the thread will see to the rest."""
        if len(self.waiting) >= MOST or watchers():
            return False
        begun = span.start_ns
        span.duration_ns = end_ns - begun if end_ns > begun else 1
        self.waiting.append(span)
        return True

    def take_turn(self) -> bool:
        """Hand over for the length of a slice; whether there is more."""
        waiting = self.waiting
        until = perf_counter_ns() + (SLICE_NS if len(waiting) < MANY else LONG_SLICE_NS)
        while waiting and perf_counter_ns() < until:
            self._next()
        return bool(waiting)

    def finish(self) -> None:
        """Hand over all of them."""
        while self.waiting:
            self._next()

    def forget(self) -> None:
        """In a process that was forked off: the parent process hands them over."""
        self.__init__()  # type: ignore[misc]

    def _next(self) -> None:
        try:
            span = self.waiting.popleft()
        except IndexError:  # somebody else has taken the last one
            return
        aggregator.end(span)


handover = Handover()
