"""anyio's memory object streams, with items that carry their sender's trace.

What crosses: an item, from the task that sends it to the one that receives it. Door: subclasses of anyio's two stream
classes over the state of the pair that is given, which stays as it is; clones are traced, too.

    send, receive = traced_stream(anyio.create_memory_object_stream(100))

    async with send:
        await send.send(item)

    async for item in receive:                   # work on it belongs to its sender, until the next one
        await handle(item)

A task with an open span of its own keeps it. Items received one after the other with no span between make a batch: the
next span starts a trace, with a link to each sender. The same for `receive()` and `receive_nowait()`.

Supported: anyio 4.4 to 4.x, on asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from anyio import ClosedResourceError, EndOfStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asynctrace._core.errors import UsageError
from asynctrace._core.received import Items, captured, inside, receiving
from asynctrace._core.tracer import tracer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asynctrace._core.received import Received
    from asynctrace._core.tracer import Context

__all__ = ["traced_stream"]

T = TypeVar("T")


class Envelope:
    """An item on its way, with where its sender's work belongs."""

    __slots__ = ("context", "item")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.context: Context | None = captured() if tracer.enabled else None

    def __repr__(self) -> str:
        return repr(self.item)


def traced_stream(
    pair: tuple[MemoryObjectSendStream[T], MemoryObjectReceiveStream[T]],
) -> tuple[MemoryObjectSendStream[T], MemoryObjectReceiveStream[T]]:
    """Give back the pair that `anyio.create_memory_object_stream()` made, traced: use these two in its place.

    They share buffer and statistics with the given ones, which are closed in favour of these. With tracing off, the
    pair itself comes back. Raises `UsageError` when it is not such a pair, or one of the two is closed.

    Example:
        >>> import anyio
        >>> from asynctrace import span
        >>> from asynctrace.anyio import traced_stream
        >>> async def main():
        ...     send, receive = traced_stream(anyio.create_memory_object_stream(1))
        ...     with send, receive:
        ...         with span("sender") as sender:
        ...             await send.send("item")
        ...         await receive.receive()
        ...         with span("receiver") as receiver:
        ...             return receiver.trace_id == sender.trace_id
        >>> anyio.run(main)
        True
    """
    wrong = UsageError(
        "traced_stream() needs an open pair of memory object streams",
        hint="traced_stream(anyio.create_memory_object_stream(100))",
    )
    try:
        send, receive = pair
        closed = send._closed or receive._closed
    except (TypeError, ValueError, AttributeError):
        raise wrong from None
    if closed:
        raise wrong
    if not tracer.enabled or isinstance(send, _Send):
        return pair
    traced = _Send(send._state), _Receive(receive._state)
    send.close()
    receive.close()
    return traced


class _Send(MemoryObjectSendStream[T]):
    def send_nowait(self, item: Any) -> None:
        # send() ends here, too, and then it is one already
        super().send_nowait(item if type(item) is Envelope else Envelope(item))  # type: ignore[arg-type]

    async def send(self, item: Any) -> None:
        await super().send(Envelope(item))  # type: ignore[arg-type]

    def clone(self) -> MemoryObjectSendStream[T]:
        if self._closed:
            raise ClosedResourceError
        return _Send(self._state)


class _Receive(MemoryObjectReceiveStream[T]):
    def receive_nowait(self) -> T:
        if inside.get() is self:
            return super().receive_nowait()
        cell = receiving()
        item: T = unwrapped(super().receive_nowait(), cell)
        return item

    # not `async def`: what the caller does next is decided at the call
    def receive(self) -> Coroutine[Any, Any, T]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._filling(receiving())

    async def _filling(self, cell: Received | None) -> T:
        inside.set(self)
        try:
            came = await super().receive()
        finally:
            inside.set(None)
        item: T = unwrapped(came, cell)
        return item

    def __aiter__(self) -> Any:
        return Items(self._filling, EndOfStream)

    def clone(self) -> MemoryObjectReceiveStream[T]:
        if self._closed:
            raise ClosedResourceError
        return _Receive(self._state)


def unwrapped(came: Any, cell: Received | None) -> Any:
    """The item that came; what was in the buffer before the pair was traced is itself."""
    item, context = (came.item, came.context) if type(came) is Envelope else (came, None)
    if cell is not None:
        cell.fill(item, context)
    return item
