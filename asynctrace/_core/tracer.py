"""Set-up of ddtrace's tracer, and every door of it that is not public: guarded, with what happens without it.

| door | for | without it |
|---|---|---|
| `Span._local_root` | a sampling decision is made on the local root | made on the span itself |
| `Tracer._span_aggregator.user_processors` | our filters around the user's | `configure()`: theirs must be set after |
| `_span_aggregator._traces`, `._lock`, `.dd_processors` | finished spans leave before 300 have ended | after 300 |
| `_span_aggregator.partial_flush_enabled` | as the user has set it | taken for on |
| `_span_aggregator.sampling_processor` | no early decision where rules may see more later | as if there were some |
| `Span._parent_context._is_remote` | the test kit knows that a parent is elsewhere | it is taken for an orphan |
| `_DBM_Propagator`, `dbm_config` of its propagation | a comment for Database Monitoring before queries | no comment |
| `Context._reactivate` | ddtrace's executor integration activates a context for more than one span | good for one |
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import weakref
from typing import TYPE_CHECKING, Any

from ddtrace.trace import Context, Span as DDSpan, tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddtrace.trace import TraceFilter

__all__ = ["Context", "sample", "set_up", "tracer", "weak_root"]

log = logging.getLogger("asynctrace")

_done = False


def set_up() -> None:
    """Give ddtrace our context provider and our filter. Once a process; a tracer that is off stays off."""
    global _done
    if _done:
        return
    _done = True
    from asynctrace._core.delivery import head, tail
    from asynctrace._core.naming import is_on
    from asynctrace._core.provider import provider
    from asynctrace._core.threads import install

    configure = tracer.configure
    signature = inspect.signature(configure)

    @functools.wraps(configure)
    def keeping_ours(*args: Any, **kwargs: Any) -> None:
        # ddtrace replaces the whole list of filters at every call: ours goes with each
        given = signature.bind_partial(*args, **kwargs)
        if (filters := given.arguments.get("trace_processors")) is not None:
            given.arguments["trace_processors"] = [
                head,
                *(one for one in filters if one is not head and one is not tail),
                tail,
            ]
        configure(*given.args, **given.kwargs)

    tracer.configure = keeping_ours  # type: ignore[method-assign]
    theirs = tracer.context_provider
    if type(theirs).__module__.startswith("ddtrace.") and type(theirs).__name__ == "DefaultContextProvider":
        active = theirs.active()
        tracer.context_provider = provider
        if active is not None:  # first used inside a span of ddtrace's
            provider.activate(active)
    register(head, tail)
    if is_on("DD_TRACE_FUTURES_ENABLED") and tracer.enabled:
        install()


def register(first: TraceFilter, last: TraceFilter) -> None:
    """Put our filters around the user's.

    `tracer.configure(trace_processors=...)`, the public way, replaces the user's filters, switches a disabled tracer
    on, and makes a new writer: with an agent that hangs it holds the whole process for 3 s.
    """
    try:
        aggregator = tracer._span_aggregator
        aggregator.user_processors = [first, *aggregator.user_processors, last]
    except Exception:
        log.debug("ddtrace's list of filters is not where it was", exc_info=True)
        enabled = tracer.enabled
        tracer.configure(trace_processors=[first, last])
        tracer.enabled = enabled


def local_root(span: DDSpan) -> DDSpan:
    """The first span of the trace in this process."""
    return getattr(span, "_local_root", None) or span


def is_for_one_span(context: Context) -> bool:
    """Whether a Context that ddtrace activated is used up by its first span, as in ddtrace's own provider."""
    return not getattr(context, "_reactivate", False)


def is_remote(span: DDSpan) -> bool:
    """Whether the parent of a span came in headers, from elsewhere."""
    return bool(getattr(getattr(span, "_parent_context", None), "_is_remote", False))


def weak_root(span: DDSpan) -> weakref.ref[DDSpan]:
    """A weak reference to the local root of `span`."""
    return weakref.ref(local_root(span))


def sample(root: DDSpan) -> None:
    """Have ddtrace decide now whether the trace of this local root is kept."""
    try:
        tracer.sample(root)  # type: ignore[no-untyped-call]
    except Exception:
        log.debug("sampling decision failed", exc_info=True)


def partial_flush() -> bool:
    """Whether spans may leave before their trace has ended: `DD_TRACE_PARTIAL_FLUSH_ENABLED`."""
    aggregator = getattr(tracer, "_span_aggregator", None)
    return bool(getattr(aggregator, "partial_flush_enabled", True))


def open_traces() -> list[tuple[int, int, DDSpan]]:
    """Of the traces that ddtrace holds: trace id, how many spans have ended, the first of those that it holds."""
    try:
        traces = list(tracer._span_aggregator._traces.items())
        return [(key, one.num_finished, one.spans[0]) for key, one in traces if one.spans]
    except Exception:
        log.debug("ddtrace's open traces are not where they were", exc_info=True)
        return []


def take_finished(trace_id: int) -> list[DDSpan]:
    """The finished spans of a trace that has open ones, as ddtrace's own partial flush takes them; it forgets them."""
    aggregator = tracer._span_aggregator
    if not any(getattr(one, "unloads_carriers", False) for one in aggregator.user_processors):
        return []
    with aggregator._lock:
        trace = aggregator._traces.get(trace_id)
        if trace is None:
            return []
        finished: list[DDSpan] = []
        still_open: list[DDSpan] = []
        for span in trace.spans:  # each asked once: threads end spans meanwhile
            (still_open if span.duration_ns is None else finished).append(span)
        if not still_open:  # it leaves as a whole
            return []
        trace.spans[:] = still_open
        # a thread may be between the end of a span and its being counted: it will count one that is not there
        trace.num_finished -= len(finished)
    if finished:
        finished[0].set_metric("_dd.py.partial_flush", len(finished))
        for processor in aggregator.dd_processors:
            finished = processor.process_trace(finished) or []
    return finished


def may_decide_early(root: DDSpan) -> bool:
    """Whether the trace of this local root is kept, and may be known to be so before it has ended.

    A sampling rule may ask for a tag or a resource that is set at the end; and of a trace that is to be dropped all
    spans wait, since the user may still want to keep it.
    """
    priority = root.context.sampling_priority
    if priority is None:
        try:
            if tracer._span_aggregator.sampling_processor.sampler.rules:
                return False
        except Exception:
            log.debug("ddtrace's sampling rules are not where they were", exc_info=True)
            return False
        sample(root)
        priority = root.context.sampling_priority
    return priority is not None and priority > 0


def sql_commenter() -> Callable[[str], str] | None:
    """What puts Database Monitoring's comment before a query whose span is active; None where that is off.

    `DD_DBM_PROPAGATION_MODE`, read by ddtrace, and with ddtrace's own propagator.
    """
    try:
        module = importlib.import_module("ddtrace.propagation._database_monitoring")
        if module.dbm_config.propagation_mode == "disabled":
            return None
        inject = module._DBM_Propagator(0, "query").inject
    except Exception:
        log.debug("ddtrace's propagator for databases is not where it was", exc_info=True)
        return None

    def commented(query: str) -> str:
        try:
            return str(inject(tracer.current_span(), (query,), {})[0][0])
        except Exception:
            log.debug("a query goes without a comment", exc_info=True)
            return query

    return commented
