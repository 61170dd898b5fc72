"""Work that is not awaited where it is started, and things that must not belong to whoever happens to start them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import sys
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from asynctrace._core.api import span
from asynctrace._core.context import ROOT, SpanContext
from asynctrace._core.errors import UsageError
from asynctrace._core.provider import top_entry

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asynctrace._core.span import Span

T = TypeVar("T")

log = logging.getLogger("asynctrace")

_running: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks only weakly


def spawn(
    coro: Coroutine[Any, Any, T], *, name: str | None = None, relation: Literal["child", "link"] = "child"
) -> asyncio.Task[T]:
    """Start a task that nobody waits for: it is kept alive, keeps its trace, and its exception is logged.

    `relation="child"`: what it does belongs to the span that is active here, also after that has ended. `"link"`: it
    is a trace of its own, with a span called `name` that has a link to the one active here; for work that is not
    part of the request. Raises `UsageError` for what is no coroutine, `RuntimeError` where no loop runs.

    Example:
        >>> import asyncio
        >>> from asynctrace import span, spawn
        >>> async def main():
        ...     with span("request"):
        ...         task = spawn(asyncio.sleep(0), name="clean up", relation="link")
        ...     await task
        >>> asyncio.run(main())
    """
    _check(coro, "spawn")
    if relation not in {"child", "link"}:
        coro.close()
        raise UsageError(
            f"relation= must be 'child' or 'link', got {relation!r}", hint="'link' for a trace of its own"
        )
    asyncio.get_running_loop()  # says so itself where there is none
    own: Span | None = None
    context = contextvars.copy_context()
    if relation == "link":
        own = span(name or str(getattr(coro, "__qualname__", "task")), parent=ROOT)
        context.run(_open_linked, own, SpanContext.current())
    task = _task_in(context, coro if own is None else _owner_of(own, coro), name)
    _running.add(task)
    task.add_done_callback(functools.partial(_over, own, coro))
    return task


def _open_linked(own: Span, here: SpanContext) -> None:
    own.open().link(here)


def _owner_of(own: Span, coro: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The coroutine; before 3.11 one that owns the span in the task's context, a copy of the one it is given."""

    async def owner() -> T:
        if top_entry.get() is own:
            own.owner = top_entry.set(own)
        return await coro

    return coro if sys.version_info >= (3, 11) else owner()


def _over(own: Span | None, coro: Coroutine[Any, Any, Any], task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    coro.close()  # of `_owner_of`, when it was cancelled before its first step
    failure = asyncio.CancelledError() if task.cancelled() else task.exception()
    if own is not None:
        if failure is not None:
            own.set_error(failure)
        own.finish()
    if failure is not None and not task.cancelled():
        log.error("task %s failed", task.get_name(), exc_info=failure)


async def isolated(coro: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in an empty context: for connections, pools and readers that outlive the request.

    Whatever it starts (tasks, transports, callbacks) belongs to no trace and holds no variable of the one who asks.
    Result, exception and cancellation are the coroutine's own. Raises `UsageError` for what is no coroutine.

    Example:
        >>> import asyncio
        >>> from asynctrace import current_span, isolated, span
        >>> async def connect():
        ...     return current_span()
        >>> async def main():
        ...     with span("request"):
        ...         return await isolated(connect())
        >>> asyncio.run(main()) is None
        True
    """
    _check(coro, "isolated")
    return await _task_in(contextvars.Context(), coro, None)


def _task_in(context: contextvars.Context, coro: Coroutine[Any, Any, T], name: str | None) -> asyncio.Task[T]:
    create = asyncio.get_running_loop().create_task
    if sys.version_info >= (3, 11):
        return create(coro, name=name, context=context)
    return context.run(functools.partial(create, coro, name=name))


def _check(coro: object, caller: str) -> None:
    if not inspect.iscoroutine(coro):
        raise UsageError(f"{caller}() needs a coroutine, got {type(coro).__name__}", hint=f"{caller}(work())")
