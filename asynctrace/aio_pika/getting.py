"""`queue.get()`: from its return until the message is settled, or the next `get()`, work belongs to the message."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asynctrace._core.received import receiving
from asynctrace.aio_pika.describe import place_of
from asynctrace.aio_pika.handling import context_of
from asynctrace.aio_pika.switch import LINK, patches, settings, traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrace._core.received import Received

log = logging.getLogger("asynctrace")


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
        cell.fill(message, context._context, place, linked=settings.relation is LINK)
    except Exception:
        log.debug("a message is handled untraced", exc_info=True)
