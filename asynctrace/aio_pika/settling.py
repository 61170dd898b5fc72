"""What becomes of a message: ack, nack and reject, and the block of `process()`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from asynctrace._core.received import settled
from asynctrace.aio_pika.getting import got
from asynctrace.aio_pika.handling import Handling, in_hand
from asynctrace.aio_pika.switch import patches, settings, traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from asynctrace.aio_pika.getting import Got
    from asynctrace.aio_pika.switch import Relation


def told(message: Any, how: str, *, requeue: bool | None = None, multiple: bool = False) -> None:
    """The broker was told what becomes of the message."""
    settled(message, before=multiple)
    if (handling := in_hand(message)) is not None:
        handling.settled(how, requeue)


def acking(ack: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """`IncomingMessage.ack`: what was told to the broker is noted on the message's span."""

    @functools.wraps(ack)
    async def method(self: Any, multiple: bool = False) -> None:
        await ack(self, multiple)
        if patches:
            told(self, "ack", multiple=multiple)

    return method


def nacking(nack: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """The same of `nack`."""

    @functools.wraps(nack)
    async def method(self: Any, multiple: bool = False, requeue: bool = True) -> None:
        await nack(self, multiple, requeue)
        if patches:
            told(self, "nack", requeue=requeue, multiple=multiple)

    return method


def rejecting(reject: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """The same of `reject`."""

    @functools.wraps(reject)
    async def method(self: Any, requeue: bool = False) -> None:
        await reject(self, requeue)
        if patches:
            told(self, "reject", requeue=requeue)

    return method


# -- blocks


def begun(message: Any, came: Got, relation: Relation) -> Handling | None:
    """The handling of a message begins, unless it is in hand already."""
    if not traces() or in_hand(message) is not None:
        return None
    handling = Handling()
    handling.begin(message, came.queue, relation, came.came_ns)
    return handling


def failed(message: Any, handling: Handling | None, exc: BaseException) -> None:
    """An exception leaves the block; that of a handler is seen to leave the handler, or not."""
    if handling is None:
        handling = in_hand(message)
        if handling is None or not handling.in_loop:
            return
    handling.fail(exc)


def entering(enter: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """`ProcessContext.__aenter__`: a message that is not in hand yet, as after `get()`, is so in the block."""

    @functools.wraps(enter)
    async def method(self: Any) -> Any:
        if patches:
            self._asynctrace = begun(self.message, got(self.message), settings.relation)
        return await enter(self)

    return method


def leaving(leave: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """`ProcessContext.__aexit__`, which settles the message."""

    @functools.wraps(leave)
    async def method(
        self: Any, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        handling = vars(self).pop("_asynctrace", None)
        try:
            if exc is not None:
                failed(self.message, handling, exc)
            await leave(self, kind, exc, tb)
        except BaseException as failure:
            failed(self.message, handling, failure)
            raise
        finally:
            if handling is not None:
                handling.end()

    return method
