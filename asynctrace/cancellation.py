"""asyncio's deadlines and task groups: whom they cancel is noted, so that a span that was cut short names its reason.

What crosses: a cancellation, from the timer or the failed task to the task that is cancelled. Doors, called only when
something is cancelled: `asyncio.Timeout._on_timeout` (`asyncio.timeout`, and `wait_for` since 3.12),
`asyncio.TaskGroup._abort`, and before 3.12 `wait_for`'s helper. None is public: where one is missing, the reason is
told only when its exception leaves a span (`_core/cancel.py`).

    install("cancellation")
    with span("request"):
        try:
            async with asyncio.timeout(1):
                await query()        # a span: cancelled, async.cancel.source=timeout
        except TimeoutError:
            ...
"""

from __future__ import annotations

import asyncio
import logging
import sys
import weakref
from typing import TYPE_CHECKING, Any

from asynctrace._core.cancel import SIBLING_FAILED, TIMEOUT, note
from asynctrace._patching import Patches

if TYPE_CHECKING:
    from collections.abc import Callable

SUPPORTED = ("0", "999")
"""Part of Python."""

log = logging.getLogger("asynctrace")

_patches = Patches()


def _first(remember: Callable[..., None]) -> Callable[..., Any]:
    """A wrapper that has something remembered before the call, and is no part of it."""

    def wrapper(cancel: Callable[..., Any], owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            remember(args[0] if owner is None else owner)
        except Exception:
            log.debug("a cancellation could not be noted", exc_info=True)
        return cancel(*args, **kwargs)

    return wrapper


def _deadline(timeout: Any) -> None:
    reference = weakref.ref(timeout)

    def still() -> bool:  # its block has not been left
        return (one := reference()) is not None and one._state.value == "expiring"

    note(timeout._task, TIMEOUT, still)


def _failure(group: Any) -> None:
    reference = weakref.ref(group)

    def still() -> bool:  # its body has not been left
        return (one := reference()) is not None and not one._exiting

    if group._errors and not group._exiting:
        note(group._parent_task, SIBLING_FAILED, still, group._errors[0])


def _waited_for(future: asyncio.Future[Any]) -> None:
    """`wait_for` cancels what it waits for when time is up; and when it is cancelled itself, as is seen here."""
    reference = weakref.ref(future)

    def still() -> bool:
        return (one := reference()) is not None and not one.done()

    if not isinstance(sys.exc_info()[1], asyncio.CancelledError):
        note(future, TIMEOUT, still)


def install() -> None:
    """Note who cancels."""
    if _patches:
        return
    doors: tuple[tuple[Any, str, Callable[..., None]], ...] = (
        (getattr(asyncio, "Timeout", None), "_on_timeout", _deadline),
        (getattr(asyncio, "TaskGroup", None), "_abort", _failure),
        (asyncio.tasks if sys.version_info < (3, 12) else None, "_cancel_and_wait", _waited_for),
    )
    for owner, name, remember in doors:
        if owner is not None and name in vars(owner):
            _patches.wrap(owner, name, _first(remember))


def uninstall() -> None:
    """Take the patches off."""
    _patches.undo()
