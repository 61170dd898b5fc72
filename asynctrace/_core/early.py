"""Finished spans leave the process while their root is still open.

ddtrace keeps what has ended until the whole trace has, or until 300 spans have (`DD_TRACE_PARTIAL_FLUSH_MIN_SPANS`): of
a WebSocket, a worker or a process that is killed one would see nothing. A thread looks after the traces that are open;
it sleeps while there are none. Spans it takes from ddtrace travel with a carrier: a span in a trace of its own, for
which our first filter puts them in, so that filters, sampling and writer see them as ever. So do records that have
become many, and those that end when their trace has left.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from time import time_ns
from typing import TYPE_CHECKING

from asynctrace._core import aggregator
from asynctrace._core.deferred import parents, start_parents
from asynctrace._core.handover import handover
from asynctrace._core.listening import listeners
from asynctrace._core.record import drained
from asynctrace._core.segment import LOT, buffers, late, let_go
from asynctrace._core.tracer import local_root, tracer

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan

    from asynctrace._core.segment import Buffer, Segment

log = logging.getLogger("asynctrace")

CARRIER = "asynctrace.carrier"

QUIET_MS = 50
"""Default of `ASYNCTRACE_PARTIAL_FLUSH_MS`: for so long (ms) nothing of a trace has left before it is looked after;
0 turns this off."""

TICK_NS = 50_000_000
"""The thread wakes this often, while there is something to look after: a trace that has ended waits no longer."""

MOST_LATE = 1000
"""So many traces may have late records that wait for the thread: where it can't keep up, who ends more sends them."""

MOST_AHEAD = 300
"""So many records of a trace that goes on wait for the thread: as many as ddtrace's own partial flush takes."""

AT_ONCE = 20
"""So many traces are looked after at a time: a busy process has thousands open, and most end soon."""


def _setting() -> float:
    text = os.environ.get("ASYNCTRACE_PARTIAL_FLUSH_MS", "")
    try:
        return max(float(text), 0.0) if text else QUIET_MS
    except ValueError:
        log.warning("ASYNCTRACE_PARTIAL_FLUSH_MS is not a number: %r; %s ms it is", text, QUIET_MS)
        return QUIET_MS


class Watch:
    """The thread that looks after open traces."""

    def __init__(self, quiet_ms: float) -> None:
        self.quiet_ns = int(quiet_ms * 1e6)
        self.asleep = self.quiet_ns > 0  # read on the hot path: whoever opens a span wakes it
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None
        self._left_ns: dict[int, int] = {}  # trace id: when spans of it left last

    def wake(self) -> None:
        """There is something to look after."""
        self.asleep = False
        if self._thread is None:
            if not aggregator.partial_flush():
                return
            aggregator.start_writer()
            thread = threading.Thread(target=self._run, name="asynctrace-early", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter ends
                return
            self._thread = thread
            handover.look()
        self._awake.set()

    def takes(self, buffer: Buffer) -> bool:
        """Whether it takes these records, of a trace that has left, to send them with what else ends soon."""
        if not self.quiet_ns:
            return False
        if self.asleep:
            self.wake()
        if self._thread is None or len(late) >= MOST_LATE:
            return False
        while (other := late.setdefault(buffer.trace_id, buffer)) is not buffer:
            with suppress(IndexError):
                while buffer.done:
                    other.done.append(buffer.done.pop())
            buffer = other
        if len(buffer.done) >= buffer.most:
            send(buffer)
        return True

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(min(self.quiet_ns, TICK_NS) / 1e9)
            try:
                handover.look()
                handover.take_turns()
                self.look()
            except Exception:
                log.debug("finished spans could not be handed over early", exc_info=True)
            self.tidy()
            if not self._is_needed():
                self._awake.clear()
                self.asleep = True
                if not self._is_needed():  # else one was opened by somebody who saw us awake
                    self._awake.wait()
                self.asleep = False

    @staticmethod
    def tidy() -> None:
        """While the tracer is off, ddtrace hands nothing over: what waits is let go of."""
        if not tracer.enabled:
            start_parents(0)
            let_go()

    @staticmethod
    def _is_needed() -> bool:
        if handover.waiting or parents:
            return True
        return tracer.enabled and (bool(late) or bool(aggregator.open_traces()))

    def look(self, *, quiet_ns: int | None = None) -> None:
        """Hand over what has ended of the traces of which nothing has left for `quiet_ns`."""
        if not self.quiet_ns or not tracer.enabled or not aggregator.partial_flush():
            return
        if not handover.hold():
            return
        try:
            _send_late()
            self._look(quiet_ns)
        finally:
            handover.release()

    def settle(self) -> None:
        """What ended late, has left: whoever begins to record now records nothing of before."""
        handover.finish()
        held = handover.hold()
        try:
            _send_late()
        finally:
            if held:
                handover.release()

    def _look(self, quiet_ns: int | None) -> None:
        quiet, now = self.quiet_ns if quiet_ns is None else quiet_ns, time_ns()
        start_parents(quiet)
        traces = aggregator.open_traces()
        self._left_ns = {key: self._left_ns.get(key, span.start_ns) for key, _, span in traces}
        due = [(self._left_ns[key], key, span) for key, ended, span in traces if ended or _waiting(key)]
        due.sort(key=lambda one: one[0])
        for left_ns, key, span in due[:AT_ONCE] if quiet_ns is None else due:
            if now - left_ns >= quiet and aggregator.may_decide_early(local_root(span)):
                self._left_ns[key] = now
                hand_over(aggregator.take_finished(key) + _records(key))

    def forget(self) -> None:
        """In a process that was forked off: the thread stayed behind, and what it looked after."""
        self.__init__(self.quiet_ns / 1e6)  # type: ignore[misc]
        handover.forget()


def _waiting(trace_id: int) -> bool:
    buffer = buffers.get(trace_id)
    return buffer is not None and bool(buffer.done)


def _records(trace_id: int) -> list[DDSpan]:
    buffer = buffers.get(trace_id)
    return [] if buffer is None else drained(buffer)


def _send_late() -> None:
    for key in tuple(late):
        if (buffer := late.pop(key, None)) is not None:
            send(buffer)


def send_ahead(buffer: Buffer) -> None:
    """Many records of a trace that goes on: the thread sends them, and where it can't keep up, who ends more does."""
    if tracer.enabled and len(buffer.done) < MOST_AHEAD and handover.postpone(_send_lots, buffer):
        buffer.most = MOST_AHEAD
    else:
        _send_lot(buffer)


def _send_lots(buffer: Buffer) -> None:
    """In the thread: one after the other, with time for others in between."""
    buffer.most = min(LOT, buffer.limit)
    if len(buffer.done) >= buffer.most:
        _send_lot(buffer)
    if len(buffer.done) >= buffer.most:
        send_ahead(buffer)


def _send_lot(buffer: Buffer) -> None:
    """They leave; while their trace may yet be dropped, not before they are too many."""
    for segment in buffer.segments:
        segment.start()
    waiting = len(buffer.done)
    if waiting < buffer.limit and not all(map(_is_kept, buffer.segments)):
        buffer.most = min(waiting + LOT, buffer.limit)
        return
    buffer.most = min(LOT, buffer.limit)
    send(buffer, LOT)


def _is_kept(segment: Segment) -> bool:
    return segment.root is None or aggregator.may_decide_early(segment.root)


def send_soon(buffer: Buffer) -> None:
    """Records that ended after their trace had left: to be sent together, unless somebody looks."""
    if listeners or not watch.takes(buffer):
        send(buffer)


def send(buffer: Buffer, most: int = sys.maxsize) -> None:
    """Records that can't wait for their trace: they are many, or it has left without them."""
    try:
        for segment in buffer.segments:
            if segment.root is not None and segment.context.sampling_priority is None:
                aggregator.sample(segment.root)  # as ddtrace's own partial flush does
        hand_over(drained(buffer, most))
    except Exception:
        log.debug("records could not be handed over", exc_info=True)


_cargo: dict[int, list[DDSpan]] = {}


def hand_over(spans: list[DDSpan]) -> None:
    """Have ddtrace filter, sample and send these spans."""
    if not spans:
        return
    spans[0].set_metric("_dd.py.partial_flush", len(spans))
    carrier = tracer.start_span(CARRIER)
    _cargo[carrier.trace_id] = spans
    carrier.finish()
    _cargo.pop(carrier.trace_id, None)  # it is there still when the tracer is off, or was shut down


def unloaded(trace: list[DDSpan]) -> list[DDSpan] | None:
    """What our first filter puts in a carrier's place; None where this is none."""
    return _cargo.pop(trace[0].trace_id, []) if trace and trace[0].name == CARRIER else None


def everything() -> None:
    """At the end of the process: what has ended leaves, whatever is still open."""
    try:
        handover.finish()
        watch.look(quiet_ns=0)
    except Exception:
        log.debug("finished spans could not be handed over", exc_info=True)


watch = Watch(_setting())
