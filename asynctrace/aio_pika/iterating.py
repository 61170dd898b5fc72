"""Iterators: `traced_iterator(queue)`, and the methods of aio-pika's."""

from __future__ import annotations

import functools
from time import time_ns
from typing import TYPE_CHECKING, Any, cast

from asynctrace._core.errors import UsageError
from asynctrace._core.tracer import tracer
from asynctrace.aio_pika.switch import chosen, patches, traces
from asynctrace.aio_pika.turns import Loop, iteration_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractQueueIterator

    from asynctrace.aio_pika.switch import Relation


def traced_iterator(queue: Any, *, relation: Relation | None = None, **kwargs: Any) -> AbstractQueueIterator:
    """The iterator of a queue, with each turn of the loop a span, child of the one that published the message.

    As `queue.iterator(**kwargs)`: for `async for`, with or without `async with`. The span lasts until the next message
    is asked for, or the loop is left. With `relation="link"` a message starts a trace of its own, with a link to its
    publisher's. Also takes an iterator. Raises `UsageError` for what is neither.

    Example:
        >>> async def work(queue):
        ...     async with traced_iterator(queue) as messages:
        ...         async for message in messages:
        ...             await message.ack()
    """
    how = chosen(relation)
    iterator = queue.iterator(**kwargs) if callable(getattr(queue, "iterator", None)) else queue
    if not hasattr(iterator, "_amqp_queue"):
        raise UsageError(
            f"traced_iterator() needs a queue of aio-pika's, got {type(queue).__name__}",
            hint="what channel.declare_queue() returned",
        )
    if not tracer.enabled or isinstance(iterator, Loop):
        return cast("AbstractQueueIterator", iterator)
    iteration = iteration_of(iterator, how)
    if not patches:
        iterator.on_message = noting(iterator.on_message)
    return cast("AbstractQueueIterator", Loop(iterator, iteration, by_hand=True))


# -- doors


def is_of_iterator(callback: Any) -> bool:
    """Whether a consumer is an iterator's: it only puts messages into its buffer."""
    from aio_pika.queue import QueueIterator

    return isinstance(getattr(callback, "__self__", None), QueueIterator) or hasattr(
        callback, "_asynctrace_notes"
    )


def noting(on_message: Any) -> Any:
    """An iterator's `on_message`, which notes when a message came."""
    if hasattr(on_message, "_asynctrace_notes"):
        return on_message
    came_ns = iteration_of(on_message.__self__).came_ns

    async def noted(message: Any) -> None:
        came_ns[id(message)] = time_ns()
        await on_message(message)

    noted._asynctrace_notes = True  # type: ignore[attr-defined]
    return noted


def asking(anext: Callable[[Any], Awaitable[Any]]) -> Callable[..., Any]:
    """`__anext__` of an iterator."""

    @functools.wraps(anext)
    def method(self: Any) -> Awaitable[Any]:
        if not patches:
            return anext(self)
        return iteration_of(self).ask(functools.partial(anext, self))

    return method


def looping(aiter: Callable[[Any], Any]) -> Callable[..., Any]:
    """`__aiter__` of a queue or of an iterator: what it gives is let go of at the end of the loop."""

    @functools.wraps(aiter)
    def method(self: Any) -> Any:
        iterator = aiter(self)
        if not patches or not traces():
            return iterator
        return Loop(iterator, iteration_of(iterator))

    return method


def entering(enter: Callable[[Any], Awaitable[Any]]) -> Callable[..., Any]:
    """`__aenter__` of an iterator: its `__aexit__` will come."""

    @functools.wraps(enter)
    async def method(self: Any) -> Any:
        if patches:
            iteration_of(self).is_block = True
        return await enter(self)

    return method


def leaving(leave: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """`__aexit__` and `close` of an iterator."""

    @functools.wraps(leave)
    async def method(self: Any, *args: Any) -> Any:
        if (known := vars(self).get("_asynctrace")) is not None:
            known.leave(args[1] if len(args) == 3 else None)  # noqa: PLR2004 - of a block: what it is left with
        return await leave(self, *args)

    return method
