"""Processes that are forked, and how processes end.

A forked process inherits what is active as a task does: it stays the parent of the work there, and whoever opened it
ends it and sends it. At the end, by exit, by signal or under multiprocessing, which knows no `atexit`, what has ended
leaves though its trace is still open.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

from ddtrace.trace import Span as DDSpan, tracer

from asynctrace._core.deferred import start_parents
from asynctrace._core.early import everything, watch
from asynctrace._core.handover import handover
from asynctrace._core.provider import Foreign, provider, top_entry
from asynctrace._core.tracer import handler_before

if TYPE_CHECKING:
    from asynctrace._core.provider import Entry

log = logging.getLogger("asynctrace")

FLUSH_SECONDS = 5.0
"""How long the end of a process of multiprocessing waits for its last traces; ddtrace's own default at exit."""

SETTLED = 1.0
"""So long (s) after a fork ddtrace's writer runs again for sure; one that does not, sends nothing at the end."""

POOLS = frozenset({"concurrent.futures.process", "multiprocessing.pool"})
"""Whose processes work for whoever comes: nothing of the request that happened to start them is inherited."""

LOOPS = frozenset({"asyncio.unix_events", "uvloop.loop"})
"""Whose handlers are those of a loop: `loop.add_signal_handler()` has put them there."""

_multiprocessing_knows = False


def install() -> None:
    """Once a process, when the tracer has been set up."""
    shutdown = tracer.shutdown

    @functools.wraps(shutdown)
    def with_everything(*args: Any, **kwargs: Any) -> None:
        everything()  # called at exit and at SIGTERM, ddtrace forgets what has not been handed over
        if monotonic() - _forked < SETTLED:
            tracer.flush()  # type: ignore[no-untyped-call]
        shutdown(*args, **kwargs)

    tracer.shutdown = with_everything  # type: ignore[method-assign]
    flush: Any = tracer.flush

    @functools.wraps(flush)
    def with_ended(*args: Any, **kwargs: Any) -> None:
        handover.finish()
        flush(*args, **kwargs)

    tracer.flush = with_ended  # type: ignore[method-assign]
    _leave_to_loop()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
    _tell_multiprocessing()


def _leave_to_loop() -> None:
    """A loop that handles SIGTERM lets requests in flight end: the tracer is not to be shut down before.

    ddtrace has its handler run first where it is imported later, as in a worker of gunicorn's.
    """
    try:
        before = handler_before(signal.SIGTERM)
        if getattr(before, "__module__", None) in LOOPS and before is not signal.getsignal(signal.SIGTERM):
            signal.signal(signal.SIGTERM, before)
            signal.siginterrupt(signal.SIGTERM, False)  # as loops have it
    except Exception:
        log.debug("SIGTERM ends the tracer, whoever handles it", exc_info=True)


_held = False
_forked = -SETTLED


def _before() -> None:
    global _held
    _held = handover.hold()
    try:
        start_parents(0)  # what has ended below them leaves from here
    except Exception:
        log.debug("open spans could not be started before a fork", exc_info=True)


def _in_parent() -> None:
    global _forked
    _forked = monotonic()
    if _held:
        handover.release()


def _in_child() -> None:
    global _forked
    _forked = -SETTLED
    watch.forget()
    try:
        _inherit()
        _tell_multiprocessing()
    except Exception:
        log.debug("a forked process could not be prepared", exc_info=True)


def _inherit() -> None:
    """Leave what is active to the parent process: here it is a context, and ended when it was forked."""
    if tracer.context_provider is not provider:
        return
    active, now = provider.active(), time_ns()
    entry: Entry | None = top_entry.get()
    while entry is not None:
        if isinstance(span := entry.as_parent(), DDSpan) and span.duration_ns is None:
            span.duration_ns = max(
                now - span.start_ns, 0
            )  # its end here, in a block both run through, does nothing
        entry = entry.previous
    if isinstance(active, DDSpan):
        inherited = Foreign(active.context)
        inherited.closed_ns = now
        top_entry.set(inherited)


def _tell_multiprocessing() -> None:
    """Have its processes end as others do. What is registered before they begin is called when they do."""
    global _multiprocessing_knows
    util: Any = sys.modules.get("multiprocessing.util")
    if util is None or _multiprocessing_knows:
        return
    _multiprocessing_knows = True
    util.register_after_fork(watch, lambda _: _begin(util))
    if sys.modules["multiprocessing.process"].parent_process() is not None:
        _begin(util)


def _begin(util: Any) -> None:
    """A process of multiprocessing begins."""
    target = getattr(sys.modules["multiprocessing.process"].current_process(), "_target", None)
    if getattr(target, "__module__", None) in POOLS:
        top_entry.set(None)
    util.Finalize(None, tracer.shutdown, kwargs={"timeout": FLUSH_SECONDS}, exitpriority=-1000)
