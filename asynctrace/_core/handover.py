"""What ddtrace does at the end of a trace is done by a thread, not by whoever ends its first span.

Tags, filters, sampling and encoding take longer than all that was done for the trace before, and nothing that the loop
does next needs them done. So a local root of ours that ends is only marked as ended, and waits here for the thread of
`early.py`, which works in slices: the loop waits for the GIL no longer than for one of them. So do records of which
there are many. Where the thread can't keep up, or where somebody in ddtrace watches spans as they end, they are handed
over at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from time import perf_counter_ns, sleep, time_ns
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrace._core import aggregator, lean
from asynctrace._core.tracer import watched_at_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddtrace.trace import Span as DDSpan

    T = TypeVar("T")

log = logging.getLogger("asynctrace")

MOST = 1000
"""So many wait for the thread."""

MANY = 100
"""With more than that the thread has fallen behind, and takes a longer turn."""

SLICE_NS = 500_000
LONG_SLICE_NS = 3_000_000

PAUSE = 1e-4
"""Seconds between two slices: a thread that gives up the GIL and asks for it at once, would have it again."""


class Handover:
    """What ddtrace has yet to be told of, oldest first."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        self.takes = False  # read on the hot path
        self._in_hand = threading.RLock()  # held by whoever has spans in hand
        self._turn = 0  # the thread that hands over what waits

    def look(self) -> None:
        """Whether spans may wait; asked by the thread, every time it wakes."""
        self.takes = lean.may_wait()

    def end(self, span: DDSpan, end_ns: int, *, may_wait: bool) -> None:
        """A span ends: ddtrace is told by the thread, or now."""
        if may_wait and self.takes and self.add(span, end_ns):
            return
        try:
            if span.start_ns > time_ns():  # the wall clock was stepped back: no negative durations
                span.finish(finish_time=(span.start_ns + 500) / 1e9)  # floats of this size are 240 ns apart
            else:
                span.finish()
        except Exception:
            log.debug("span %r could not be handed over", span.name, exc_info=True)

    def may_wait(self) -> bool:
        """Whether what ends now may."""
        return self.takes and len(self.waiting) < MOST and not watched_at_end()

    def wait(self, send: Callable[[T], None], what: T) -> None:
        """The thread will do this. It must not raise."""
        self.waiting.append((send, what))

    def add(self, span: DDSpan, end_ns: int) -> bool:
        """The span ends now, for everybody who looks at it; whether the thread will see to the rest."""
        if len(self.waiting) >= MOST or watched_at_end():
            return False
        begun = span.start_ns
        span.duration_ns = end_ns - begun if end_ns > begun else 1
        self.waiting.append((aggregator.end, span))
        return True

    def postpone(self, send: Callable[[T], None], what: T) -> bool:
        """Whether the thread will send this. `send` must not raise."""
        if not self.takes or len(self.waiting) >= MOST:
            return False
        self.waiting.append((send, what))
        return True

    def take_turns(self) -> None:
        """Hand over all of them, a slice at a time: in between, the GIL is the loop's."""
        goes_on = bool(self.waiting)
        while goes_on and self.hold():
            try:
                self._turn = threading.get_ident()
                goes_on = self.take_turn()
            finally:
                self._turn = 0
                self.release()
            sleep(PAUSE)

    def take_turn(self) -> bool:
        """Hand over for the length of a slice; whether there is more."""
        waiting = self.waiting
        until = perf_counter_ns() + (SLICE_NS if len(waiting) < MANY else LONG_SLICE_NS)
        while waiting and perf_counter_ns() < until:
            self._next()
        return bool(waiting)

    def finish(self) -> None:
        """Hand over all that wait now, and wait for the one that the thread has in hand."""
        if self._turn == threading.get_ident() or not self.hold():  # a filter may flush
            return
        try:
            self._turn = threading.get_ident()
            for _ in range(len(self.waiting)):
                self._next()
        finally:
            self._turn = 0
            self.release()

    def _next(self) -> None:
        try:
            send, what = self.waiting.popleft()
        except IndexError:  # somebody else has taken the last one
            return
        send(what)

    def hold(self) -> bool:
        """Until `release()` nobody else has spans in hand, or a lock of ddtrace's: a fork would copy that as held.

        False after a second: a signal's handler may have interrupted whoever keeps such a lock from us.
        """
        return self._in_hand.acquire(timeout=1)

    def release(self) -> None:
        """Go on."""
        self._in_hand.release()

    def forget(self) -> None:
        """In a process that was forked off: the parent process hands them over."""
        self.__init__()  # type: ignore[misc]


handover = Handover()
