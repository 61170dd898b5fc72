"""`queue.get()`: from its return until the message is settled, or the next `get()`, work belongs to the message."""

from __future__ import annotations

import logging
from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrace._core.received import receiving, said_of
from asynctrace.aio_pika.describe import place_of
from asynctrace.aio_pika.handling import context_of
from asynctrace.aio_pika.switch import LINK, patches, settings, traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrace._core.received import Received
    from asynctrace.aio_pika.describe import Place

log = logging.getLogger("asynctrace")


class Got(NamedTuple):
    """From where a message was got, and when (ns since the epoch; 0 where that is not known)."""

    queue: Place | None
    came_ns: int


def got(message: Any) -> Got:
    """What is known of a message that this task, or the one which started it, has got."""
    known = said_of(message)
    return known if isinstance(known, Got) else Got(None, 0)


def traced(
    get: Callable[..., Awaitable[Any]], queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[Any]:
    """`Queue.get`. What the caller does next is decided at the call, not where the coroutine runs."""
    cell = receiving() if patches and traces() else None
    if cell is None:
        return get(*args, **kwargs)
    return _received(get, queue, args, kwargs, cell)


async def _received(
    get: Callable[..., Awaitable[Any]],
    queue: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cell: Received,
) -> Any:
    message = None
    try:
        message = await get(*args, **kwargs)
    finally:
        if message is None:
            cell.withdraw()
    if message is not None:
        _fill(cell, message, queue)
    return message


def _fill(cell: Received, message: Any, queue: Any) -> None:
    try:
        place = place_of(queue)
        context = context_of(message, place)
        cell.fill(message, context._context, Got(place, time_ns()), linked=settings.relation is LINK)
    except Exception:
        log.debug("a message is handled untraced", exc_info=True)
