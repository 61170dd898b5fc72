"""The ways to consume, each as a function that handles so many messages: what the matrix is made of."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from asynctrace import traced_consumer
from asynctrace.aio_pika import traced_iterator, traced_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handle = Callable[[Any], Awaitable[None]]
    Style = Callable[[Any, Handle, int, str], Awaitable[None]]

HANDLED = (ValueError, asyncio.CancelledError)
"""What the handlers of the tests raise; who consumes goes on."""


async def _consume(queue: Any, callback: Handle, handled: asyncio.Semaphore, count: int) -> None:
    tag = await queue.consume(callback)
    for _ in range(count):
        await handled.acquire()
    await queue.cancel(tag)


def _counted(handle: Handle) -> tuple[Handle, asyncio.Semaphore]:
    handled = asyncio.Semaphore(0)

    async def callback(message: Any) -> None:
        try:
            await handle(message)
        finally:
            handled.release()

    return callback, handled


async def callback(queue: Any, handle: Handle, count: int, _: str) -> None:
    await _consume(queue, *_counted(handle), count)


async def callback_by_hand(queue: Any, handle: Handle, count: int, relation: Any) -> None:
    inner, handled = _counted(handle)
    await _consume(queue, traced_consumer(inner, relation=relation), handled, count)


async def iterator(queue: Any, handle: Handle, count: int, _: str) -> None:
    async with queue.iterator() as messages:
        await _loop(messages, handle, count)


async def bare_iterator(queue: Any, handle: Handle, count: int, _: str) -> None:
    await _loop(queue, handle, count)


async def iterator_by_hand(queue: Any, handle: Handle, count: int, relation: Any) -> None:
    async with traced_iterator(queue, relation=relation) as messages:
        await _loop(messages, handle, count)


async def _loop(messages: Any, handle: Handle, count: int) -> None:
    async for message in messages:
        with contextlib.suppress(*HANDLED):
            await handle(message)
        count -= 1
        if not count:
            break


async def get(queue: Any, handle: Handle, count: int, __: str) -> None:
    for _ in range(count):
        message = await _got(queue)
        with contextlib.suppress(*HANDLED):
            await handle(message)


async def get_by_hand(queue: Any, handle: Handle, count: int, relation: Any) -> None:
    for _ in range(count):
        message = await _got(queue)
        with contextlib.suppress(*HANDLED):
            async with traced_message(message, relation=relation) as traced:
                await handle(traced)


async def _got(queue: Any) -> Any:
    """`get()` does not wait: it is asked again."""
    while (message := await queue.get(fail=False)) is None:
        await asyncio.sleep(0)
    return message


INSTALLED: tuple[Style, ...] = (callback, iterator, bare_iterator, get)
BY_HAND: tuple[Style, ...] = (callback_by_hand, iterator_by_hand, get_by_hand)
