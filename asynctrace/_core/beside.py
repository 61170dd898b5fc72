"""Beside ddtrace's own integration of asyncio, which is on under `ddtrace-run`.

It wraps the coroutine of each task that is made while something is active, to make that active in the task. In ours it
is so already; and the wrapper overrides `create_task(context=...)`, carries a request's span into what `isolated` runs,
and warns of a coroutine that was never awaited when the task is cancelled first. It asks the tracer what to carry: of
tasks, nothing. uvloop's tasks it does not see at all.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from ddtrace.trace import tracer

from asynctrace._core.provider import provider

INTEGRATION = "ddtrace.contrib.internal.asyncio.patch"


def install() -> None:
    """Once a process, when the tracer has been set up."""
    current = tracer.current_trace_context

    @functools.wraps(current)
    def unless_for_tasks(*args: Any, **kwargs: Any) -> Any:
        asks = sys._getframe(1).f_globals.get("__name__")
        if asks == INTEGRATION and tracer.context_provider is provider:
            return None
        return current(*args, **kwargs)

    tracer.current_trace_context = unless_for_tasks  # type: ignore[method-assign]
