"""Who cancelled: what can be told when a CancelledError leaves a span, without a task factory.

Looked at only then, and never before: what an uncancelled task costs stays what it was. Told at once: the end of the
loop (its clean-up is on the stack), an anyio cancel scope (says so in the message), a task group whose member failed
(it is among the task's callbacks), an awaited task or future that was cancelled itself. Told afterwards: when a
TimeoutError or an exception group leaves a span further out, it was made of the CancelledError that cut these short.
`asynctrace.cancellation`, when it is installed, notes deadlines and groups as they cancel.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import weakref
from typing import TYPE_CHECKING, Any

from asynctrace._core.outcome import CANCELLED, TIMEOUT as TIMED_OUT, members_of, outcome_of, type_name
from asynctrace._core.values import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace._core.span import Span

log = logging.getLogger("asynctrace")

SOURCE_TAG = "async.cancel.source"
"""Who cancelled, one of the names below; no tag where it can't be told, as for a plain `task.cancel()`."""

MESSAGE_TAG = "async.cancel.message"
"""The argument of `task.cancel(msg)`; of what anyio puts there, the reason. Cut to 200 characters."""

CAUSE_TAG = "async.cancel.cause"
"""With `sibling_failed`: the type of the exception that made the group give up."""

TIMEOUT = "timeout"
SIBLING_FAILED = "sibling_failed"
CANCEL_SCOPE = "cancel_scope"
LOOP_SHUTDOWN = "loop_shutdown"
SERVER_SHUTDOWN = "server_shutdown"
CLIENT_DISCONNECTED = "client_disconnected"
AWAITED = "awaited"

_MESSAGE_LENGTH = 200
_DEPTH = 50  # exceptions and tasks are followed that far
_CLEAN_UPS = frozenset(
    {"_cancel_all_tasks", "_cancel_tasks"}
)  # of asyncio, uvloop, anyio and aiohttp's run_app
_SCOPE = ("Cancelled via cancel scope ", "Cancelled by cancel scope ")  # anyio/_backends/_asyncio.py
_REASON = "; reason: "
_DEADLINE = "deadline exceeded"

_asked: weakref.WeakKeyDictionary[asyncio.Future[Any], tuple[str, str, Callable[[], bool]]] = (
    weakref.WeakKeyDictionary()
)
_unexplained: weakref.WeakKeyDictionary[BaseException, list[weakref.ref[Span]]] = weakref.WeakKeyDictionary()


def note(
    task: asyncio.Future[Any], source: str, still: Callable[[], bool], cause: BaseException | None = None
) -> None:
    """Remember who is about to cancel a task and what it waits for, as long as `still()`; that must not hold the task.

    When a CancelledError leaves one of these, thousands may be cancelled: to look then who waits for it took too long.
    """
    _asked[task] = noted = (source, "" if cause is None else type_name(cause), still)
    for one in _waited_for(task):
        if _noted(one) is None:
            _asked[one] = noted


def cut_short(span: Span, exc: BaseException) -> None:
    """Say on the span who cancelled it, as far as it can be told."""
    try:
        message = text(exc.args[0]) if exc.args and isinstance(exc.args[0], str) else ""
        if scope := message.startswith(_SCOPE):
            message = message.partition(_REASON)[2]
        if message:
            span.set_tag(MESSAGE_TAG, message[:_MESSAGE_LENGTH])
        source, cause = _scope_told(message) if scope else _told()
        if source:
            _say(span, source, cause)
        else:
            _unexplained.setdefault(exc, []).append(weakref.ref(span))
    except Exception:
        log.debug("a cancellation could not be explained", exc_info=True)


def explain(exc: BaseException) -> None:
    """An error leaves a span: where it is a TimeoutError or an exception group, it tells who cut others short."""
    if outcome_of(exc) == TIMED_OUT:
        source, cause = TIMEOUT, ""
    elif members := members_of(exc):
        source, cause = SIBLING_FAILED, type_name(members[0])
    else:
        return
    for cancelled in _chain(exc):
        for reference in _unexplained.pop(cancelled, ()):
            if (span := reference()) is not None:
                _say(span, source, cause)


def _say(span: Span, source: str, cause: str) -> None:
    span.set_tag(SOURCE_TAG, source)
    if cause:
        span.set_tag(CAUSE_TAG, cause)


def _scope_told(reason: str) -> tuple[str, str]:
    return (TIMEOUT if reason == _DEADLINE else CANCEL_SCOPE), ""


def _told() -> tuple[str, str]:
    """Source and cause, as far as they can be told now; empty otherwise."""
    if _loop_ends():
        return LOOP_SHUTDOWN, ""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # not in a loop
        return "", ""
    if task is None:
        return "", ""
    return _asker_of(task) or _owner_of_awaited(task)


def _loop_ends() -> bool:
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None:
        frame = caller
        if frame.f_code.co_name in _CLEAN_UPS:
            return True
    return False


def _asker_of(task: asyncio.Future[Any]) -> tuple[str, str] | None:
    """Who cancelled this task, or the group it is a member of."""
    for _ in range(_DEPTH):
        if (found := _noted(task)) is not None:
            return found
        group = _group_of(task)
        errors = getattr(group, "_errors", None)
        if errors:
            return SIBLING_FAILED, type_name(errors[0])
        if group is None:
            break
        parent: Any = getattr(group, "_parent_task", None)
        if not _is_cancelled(parent):  # the body of the group failed
            return (SIBLING_FAILED, "") if getattr(group, "_aborting", False) else None
        task = parent
    return None


def _noted(task: asyncio.Future[Any]) -> tuple[str, str] | None:
    if (noted := _asked.get(task)) is None:
        return None
    source, cause, still = noted
    if still():
        return source, cause
    del _asked[task]
    return None


def _group_of(task: asyncio.Future[Any]) -> object:
    """The asyncio.TaskGroup a task is a member of: it is told when the task is done."""
    for callback in getattr(task, "_callbacks", None) or ():
        function = callback[0] if isinstance(callback, tuple) else callback
        owner = getattr(function, "__self__", None)
        if owner is not None and type(owner).__name__ == "TaskGroup":
            return owner
    return None


def _is_cancelled(task: Any) -> bool:
    return getattr(task, "cancelling", int)() > 0


def _waited_for(task: asyncio.Future[Any]) -> Iterator[asyncio.Future[Any]]:
    """What a task waits for: a future, a task, a gather of them; and what that waits for."""
    pending = [task]
    for _ in range(_DEPTH):
        if not pending:
            return
        one = pending.pop()
        below = getattr(one, "_fut_waiter", None)
        children = [below] if below is not None else list(getattr(one, "_children", ()))
        yield from children
        pending.extend(children)


def _owner_of_awaited(task: asyncio.Task[Any]) -> tuple[str, str]:
    """Nobody asked this task to stop: what it awaited was cancelled. Python counts the askers since 3.11."""
    cancelling = getattr(task, "cancelling", None)
    return (AWAITED, "") if cancelling is not None and cancelling() == 0 else ("", "")


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The CancelledErrors an exception was made of."""
    pending = [exc]
    seen: set[int] = set()
    while pending and len(seen) < _DEPTH:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if outcome_of(one) == CANCELLED:
            yield one
        pending.extend(other for other in (one.__context__, one.__cause__) if other is not None)
