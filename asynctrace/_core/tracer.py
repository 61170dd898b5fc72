"""Set-up of ddtrace's tracer, and every door of it that is not public: guarded, with what happens without it.

| door | for | without it |
|---|---|---|
| `Span._local_root` | a sampling decision is made on the local root | made on the span itself |
| `Tracer._span_aggregator.user_processors` | keeping filters the user set before us | they'd be lost: set them later |
| `config._tracing_enabled` | a tracer that is off stays off when we register | `DD_TRACE_ENABLED=0` half works |
"""

from __future__ import annotations

import functools
import logging
import weakref
from typing import TYPE_CHECKING, Any

import ddtrace
from ddtrace.trace import Span as DDSpan, tracer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["configured_filters", "sample", "set_up", "tracer", "weak_root"]

log = logging.getLogger("asynctrace")

_done = False


def set_up() -> None:
    """Give ddtrace our context provider and our filter. Once a process; a tracer that is off stays off."""
    global _done
    if _done:
        return
    _done = True
    from asynctrace._core.delivery import tail
    from asynctrace._core.provider import provider

    configure = tracer.configure

    @functools.wraps(configure)
    def keeping_ours(*args: Any, trace_processors: Sequence[Any] | None = None, **kwargs: Any) -> None:
        # ddtrace replaces the whole list of filters at every call: ours goes with each
        if trace_processors is not None:
            trace_processors = [*(one for one in trace_processors if one is not tail), tail]
        configure(*args, **kwargs, trace_processors=trace_processors)  # type: ignore[misc]

    tracer.configure = keeping_ours  # type: ignore[method-assign]
    enabled = tracer.enabled
    tracer.configure(context_provider=provider, trace_processors=configured_filters())
    if not enabled:  # configure() switches the tracer on, whatever DD_TRACE_ENABLED says
        tracer.enabled = False
        try:
            ddtrace.config._tracing_enabled = False
        except Exception:
            log.debug("ddtrace.config has no _tracing_enabled", exc_info=True)


def configured_filters() -> list[Any]:
    """The trace filters the user has given to ddtrace so far."""
    try:
        return list(tracer._span_aggregator.user_processors)
    except Exception:
        log.debug("ddtrace's trace filters can't be read", exc_info=True)
        return []


def local_root(span: DDSpan) -> DDSpan:
    """The first span of the trace in this process."""
    return getattr(span, "_local_root", None) or span


def weak_root(span: DDSpan) -> weakref.ref[DDSpan]:
    """A weak reference to the local root of `span`."""
    return weakref.ref(local_root(span))


def sample(root: DDSpan) -> None:
    """Have ddtrace decide now whether the trace of this local root is kept."""
    try:
        tracer.sample(root)  # type: ignore[no-untyped-call]
    except Exception:
        log.debug("sampling decision failed", exc_info=True)
