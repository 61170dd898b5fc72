"""By hand: `traced_message(message)`, a message whose handling is a block with a span."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any

import wrapt

from asynctrace._core.errors import UsageError
from asynctrace.aio_pika.getting import Got, got
from asynctrace.aio_pika.handling import in_hand
from asynctrace.aio_pika.settling import begun, failed, told
from asynctrace.aio_pika.switch import chosen, patches

if TYPE_CHECKING:
    from types import TracebackType

    from aio_pika.abc import AbstractIncomingMessage
    from typing_extensions import Self

    from asynctrace.aio_pika.switch import Relation

    Proxy = wrapt.ObjectProxy[Any]
else:
    Proxy = wrapt.ObjectProxy


def is_in_hand(message: Any) -> bool:
    """Whether this message, or the one in it, is handled here already."""
    return in_hand(message.__wrapped__ if type(message) is TracedMessage else message) is not None


class _Block:
    """A message in hand from the beginning of a block to its end."""

    __slots__ = ("_handling", "_message")

    def __init__(self, message: TracedMessage) -> None:
        self._message: Any = message.__wrapped__
        self._handling = begun(self._message, message._self_came, message._self_relation)

    def end(self, exc: BaseException | None) -> None:
        if exc is not None:
            failed(self._message, self._handling, exc)
        if self._handling is not None:
            self._handling.end()


class TracedMessage(Proxy):
    """A message that is a block, with a span, and sees how it is settled."""

    def __init__(self, message: Any, came: Got, relation: Relation) -> None:
        super().__init__(message)
        self._self_came = came
        self._self_relation: Relation = relation
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
        told(self.__wrapped__, "ack", multiple=multiple)

    async def nack(self, multiple: bool = False, requeue: bool = True) -> None:
        """As the message's own."""
        await self.__wrapped__.nack(multiple, requeue)
        told(self.__wrapped__, "nack", requeue=requeue, multiple=multiple)

    async def reject(self, requeue: bool = False) -> None:
        """As the message's own."""
        await self.__wrapped__.reject(requeue)
        told(self.__wrapped__, "reject", requeue=requeue)

    def __copy__(self) -> Any:
        return self.__wrapped__.__copy__()


class _Processing(Proxy):
    """The `process()` of such a message."""

    def __init__(self, process: Any, message: TracedMessage) -> None:
        super().__init__(process)
        self._self_message = message
        if not patches:  # nothing else would see how it is settled
            process.message = message

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
