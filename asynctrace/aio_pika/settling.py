"""What becomes of a message: ack, nack and reject, the block of `process()`, and that of `traced_message`."""

from __future__ import annotations

import functools
from time import time_ns
from typing import TYPE_CHECKING, Any

import wrapt

from asynctrace._core.errors import UsageError
from asynctrace._core.received import settled
from asynctrace.aio_pika.getting import Got, got
from asynctrace.aio_pika.handling import Handling, in_hand
from asynctrace.aio_pika.switch import chosen, patches, settings, traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from aio_pika.abc import AbstractIncomingMessage
    from typing_extensions import Self

    from asynctrace.aio_pika.switch import Relation

    Proxy = wrapt.ObjectProxy[Any]
else:
    Proxy = wrapt.ObjectProxy


def _told(message: Any, how: str, *, requeue: bool | None = None, multiple: bool = False) -> None:
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
            _told(self, "ack", multiple=multiple)

    return method


def nacking(nack: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """The same of `nack`."""

    @functools.wraps(nack)
    async def method(self: Any, multiple: bool = False, requeue: bool = True) -> None:
        await nack(self, multiple, requeue)
        if patches:
            _told(self, "nack", requeue=requeue, multiple=multiple)

    return method


def rejecting(reject: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """The same of `reject`."""

    @functools.wraps(reject)
    async def method(self: Any, requeue: bool = False) -> None:
        await reject(self, requeue)
        if patches:
            _told(self, "reject", requeue=requeue)

    return method


# -- blocks


def _begun(message: Any, came: Got, relation: Relation) -> Handling | None:
    """The handling of a message begins, unless it is in hand already."""
    if not traces() or in_hand(message) is not None:
        return None
    handling = Handling()
    handling.begin(message, came.queue, relation, came.came_ns)
    return handling


def _failed(message: Any, handling: Handling | None, exc: BaseException) -> None:
    """An exception leaves the block; that of a handler is seen to leave the handler, or not."""
    if handling is None:
        handling = in_hand(message)
        if handling is None or not handling.in_loop:
            return
    handling.fail(exc)


def _own(message: Any) -> Any:
    """aio-pika's message in one that was wrapped by hand."""
    return message.__wrapped__ if type(message) is TracedMessage else message


def entering(enter: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """`ProcessContext.__aenter__`: a message that is not in hand yet, as after `get()`, is so in the block."""

    @functools.wraps(enter)
    async def method(self: Any) -> Any:
        if patches:
            message = _own(self.message)
            self._asynctrace = _begun(message, got(message), settings.relation)
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
                _failed(_own(self.message), handling, exc)
            await leave(self, kind, exc, tb)
        except BaseException as failure:
            _failed(_own(self.message), handling, failure)
            raise
        finally:
            if handling is not None:
                handling.end()

    return method


# -- by hand


class _Block:
    """A message in hand from the beginning of a block to its end."""

    __slots__ = ("_handling", "_message")

    def __init__(self, message: TracedMessage) -> None:
        self._message: Any = message.__wrapped__
        self._handling = _begun(self._message, message._self_came, message._self_relation)

    def end(self, exc: BaseException | None) -> None:
        if exc is not None:
            _failed(self._message, self._handling, exc)
        if self._handling is not None:
            self._handling.end()


class TracedMessage(Proxy):
    """A message whose handling is a block with a span, and which sees how it is settled."""

    def __init__(self, message: Any, came: Got, relation: Relation) -> None:
        super().__init__(message)
        self._self_came, self._self_relation = came, relation
        self._self_block: _Block | None = None

    def __enter__(self) -> Self:
        self._self_block = _Block(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        block, self._self_block = self._self_block, None
        if block is not None:
            block.end(exc)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def process(self, *args: Any, **kwargs: Any) -> Any:
        """As the message's own; its span lasts until the message is settled."""
        return _Processing(self.__wrapped__.process(*args, **kwargs), self)

    async def ack(self, multiple: bool = False) -> None:
        """As the message's own."""
        await self.__wrapped__.ack(multiple)
        _told(self.__wrapped__, "ack", multiple=multiple)

    async def nack(self, multiple: bool = False, requeue: bool = True) -> None:
        """As the message's own."""
        await self.__wrapped__.nack(multiple, requeue)
        _told(self.__wrapped__, "nack", requeue=requeue, multiple=multiple)

    async def reject(self, requeue: bool = False) -> None:
        """As the message's own."""
        await self.__wrapped__.reject(requeue)
        _told(self.__wrapped__, "reject", requeue=requeue)

    def __copy__(self) -> Any:
        return self.__wrapped__.__copy__()


class _Processing(Proxy):
    """The `process()` of such a message."""

    def __init__(self, process: Any, message: TracedMessage) -> None:
        super().__init__(process)
        process.message = self._self_message = message  # what it settles

    async def __aenter__(self) -> Any:
        self._self_block = _Block(self._self_message)
        return await self.__wrapped__.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.__wrapped__.__aexit__(kind, exc, tb)
        except BaseException as failure:
            self._self_block.end(failure)
            raise
        self._self_block.end(exc)


def traced_message(message: AbstractIncomingMessage, *, relation: Relation | None = None) -> TracedMessage:
    """The message, as a `with` or `async with` block: its span, child of the one that published it, is the block's.

    Settling stays yours: `await message.ack()` in the block, or `message.process()` instead of it. With
    `relation="link"` the span starts a trace of its own with a link to the publisher's. A message that is in hand
    already, in a traced handler, keeps its one span. Raises `UsageError` for what is no message.

    Example:
        >>> async def work(queue):
        ...     message = await queue.get()
        ...     async with traced_message(message) as message:
        ...         await message.ack()
    """
    how = chosen(relation)
    if isinstance(message, TracedMessage):
        return message
    if not callable(getattr(message, "process", None)) or not hasattr(message, "headers"):
        raise UsageError(
            f"traced_message() needs an incoming message, got {type(message).__name__}",
            hint="what queue.get() returned, or a callback was given",
        )
    queue, came_ns = got(message)
    return TracedMessage(message, Got(queue, came_ns or time_ns()), how)
