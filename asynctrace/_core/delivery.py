"""What leaves the process, and when.

Two filters of ours stay registered with ddtrace for good, around the user's: the first gives ddtrace's own spans our
outcomes, the last hands what is left to whoever records (`asynctrace.testing.Recorder`). `shutdown()` flushes without
ever blocking the loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Protocol

from ddtrace.trace import TraceFilter, tracer

from asynctrace._core.early import everything, unloaded
from asynctrace._core.outcome import CANCELLED, CLOSED, ERROR, OUTCOME_TAG, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddtrace.trace import Span as DDSpan

log = logging.getLogger("asynctrace")


class Listener(Protocol):
    """Somebody who wants to see spans. Called on the hot path, in any thread: must be quick and must not raise."""

    def opened(self, span: DDSpan) -> None:
        """A span of ours or of ddtrace's became active."""

    def handed_over(self, trace: list[DDSpan]) -> bool:
        """These spans are about to go to ddtrace's sampler and writer; whether they may."""


listeners: list[Listener] = []
"""Empty in production, so that looking costs one test."""

rewriters: list[Callable[[DDSpan], None]] = []
"""What is done to each span when it leaves, after the user's filters. Must not raise."""

UNINTENDED = {
    "asyncio.exceptions.CancelledError": CANCELLED,
    "concurrent.futures._base.CancelledError": CANCELLED,
    "builtins.GeneratorExit": CLOSED,
}
"""Exceptions that ddtrace takes for errors, and what they are."""


class Head(TraceFilter):
    """The first of the filters: unloads carriers, and gives ddtrace's own spans the outcomes that ours have."""

    unloads_carriers = True

    def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
        trace = unloaded(trace)
        for span in trace:
            if span.error and span.get_tag(OUTCOME_TAG) is None:
                kind = span.get_tag("error.type") or ""
                if (outcome := UNINTENDED.get(kind)) is not None:
                    span.error = 0
                    for tag in ("error.type", "error.message", "error.stack"):
                        span.remove_tag(tag)
                else:
                    outcome = TIMEOUT if kind.endswith(".TimeoutError") else ERROR
                span.set_tag(OUTCOME_TAG, outcome)
        return trace


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
