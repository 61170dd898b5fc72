"""What leaves the process, and when.

Two filters of ours stay registered with ddtrace for good, around the user's: the first adds the records of a trace,
unloads carriers, and gives ddtrace's own spans our outcomes; the last hands what is left to whoever records
(`asynctrace.testing.Recorder`). `shutdown()` flushes without ever blocking the loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from ddtrace.trace import TraceFilter, tracer

from asynctrace._core.aggregator import decide_by_rules
from asynctrace._core.early import everything, unloaded
from asynctrace._core.listening import listeners
from asynctrace._core.outcome import translate
from asynctrace._core.record import drained
from asynctrace._core.segment import buffers, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddtrace.trace import Span as DDSpan

log = logging.getLogger("asynctrace")


rewriters: list[Callable[[DDSpan], None]] = []
"""What is done to each span when it leaves, after the user's filters. Must not raise."""


def records_beside(first: DDSpan) -> list[DDSpan]:
    """The records that have ended of a trace of which ddtrace hands over a chunk, or the last."""
    is_last = first.get_metric("_dd.py.partial_flush") is None
    buffer = leave(first.trace_id) if is_last else buffers.get(first.trace_id)
    return [] if buffer is None else drained(buffer)


class Head(TraceFilter):
    """The first of the filters: unloads carriers, adds records, gives ddtrace's spans the outcomes that ours have."""

    unloads_carriers = True

    def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
        cargo = unloaded(trace)
        spans = trace if cargo is None else cargo
        for span in spans:
            translate(span)
        if not spans or not buffers:
            return spans
        decide_by_rules(spans[0])
        return spans + records_beside(spans[0]) if cargo is None else spans


class Tail(TraceFilter):
    """The last of the filters: sees what the user's filters have left."""

    def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
        for rewrite in rewriters:
            for span in trace:
                rewrite(span)
        allowed = [listener.handed_over(trace) for listener in tuple(listeners)]
        return trace if all(allowed) else None


head = Head()
tail = Tail()


async def shutdown(timeout: float = 5.0) -> bool:
    """Send what has finished, of open traces, too; come back within `timeout` seconds (+ 0.1), sent or not.

    Never blocks the loop, never raises, may be called again: the tracer goes on. True when the flush ended in time:
    ddtrace does not tell whether the agent took it. Programs under `traced_app` need not call it.

    Example:
        >>> async def main():
        ...     await shutdown(timeout=2)
    """
    loop = asyncio.get_running_loop()
    flushed = loop.create_future()

    def done() -> None:
        if not flushed.done():
            flushed.set_result(None)

    def flush() -> None:
        everything()
        try:
            tracer.flush()  # type: ignore[no-untyped-call]
        except Exception:
            log.debug("flush failed", exc_info=True)
        try:
            loop.call_soon_threadsafe(done)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits
            pass

    # not the loop's executor: its threads are joined when the loop ends, and a dead agent would hold them for seconds
    try:
        threading.Thread(target=flush, name="asynctrace-flush", daemon=True).start()
    except (
        RuntimeError
    ):  # none can be started any more: the interpreter ends, and ddtrace flushes at its exit
        return False
    finished, _ = await asyncio.wait([flushed], timeout=max(timeout, 0))
    return bool(finished)
