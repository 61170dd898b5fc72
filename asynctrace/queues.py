"""asyncio's queues, with items that carry their producer's trace.

What crosses: an item, from the task that puts it to the one that gets it. Doors: `asyncio.Queue._put` and `_get`, made
to be overridden, which run in the producer's and in the consumer's task.

    queue = TracedQueue(100)

    async for item in queue:                                 # work on it belongs to the item's producer
        await handle(item)

    async with queue.processing("handle") as item:           # the same, and a span of its own
        await handle(item)

    items = [await queue.get() for _ in range(100)]
    async with queue.batch(items, "store"):                  # a trace of its own, linked to each producer
        await store(items)

After a plain `item = await queue.get()`, too, work belongs to the item's producer until the next `get()`, unless the
task has an open span of its own. Items taken one after the other with no span between make a batch.
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asynctrace._core.api import span
from asynctrace._core.context import ROOT, SpanContext
from asynctrace._core.errors import UsageError
from asynctrace._core.received import Items, captured, claimed, inside, producers, receiving
from asynctrace._core.tracer import tracer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from asynctrace._core.received import Received
    from asynctrace._core.span import Span
    from asynctrace._core.tracer import Context

__all__ = ["TracedLifoQueue", "TracedPriorityQueue", "TracedQueue"]

T = TypeVar("T")

Closed: type[Exception] | tuple[()] = getattr(asyncio, "QueueShutDown", ())
"""What ends a loop over a queue; asyncio has it since 3.13."""


class Envelope:
    """An item on its way: with where its producer's work belongs, and since when it waits. Sorts as its item does."""

    __slots__ = ("context", "item", "put_ns")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.context, self.put_ns = (captured(), monotonic_ns()) if tracer.enabled else (None, 0)

    def __lt__(self, other: Envelope) -> bool:
        return bool(self.item < other.item)

    def __repr__(self) -> str:
        return repr(self.item)


class _Traced(asyncio.Queue[T]):
    _came: tuple[Context | None, int] = (None, 0)  # of the item taken last: read before anything else can run

    def _put(self, item: T) -> None:
        super()._put(Envelope(item))  # type: ignore[arg-type]

    def _get(self) -> T:
        envelope: Any = super()._get()
        self._came = (envelope.context, envelope.put_ns)
        item: T = envelope.item
        return item

    # not `async def`: what the caller does next is decided at the call
    def get(self) -> Coroutine[Any, Any, T]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take the next item, as soon as there is one; what follows belongs to its producer."""
        return self._filling(receiving())

    def get_nowait(self) -> T:
        """Take the next item. Raises `asyncio.QueueEmpty` when there is none."""
        if inside.get() is self:
            return super().get_nowait()
        cell = receiving()
        item, context = self._take_nowait()
        if cell is not None:
            cell.fill(item, context)
        return item

    async def _filling(self, cell: Received | None) -> T:
        item, context, _ = await self._take()
        if cell is not None:
            cell.fill(item, context)
        return item

    async def _take(self) -> tuple[T, Context | None, int]:
        inside.set(self)
        try:
            item = await super().get()
        finally:
            inside.set(None)
        return item, *self._came

    def _take_nowait(self) -> tuple[T, Context | None]:
        return super().get_nowait(), self._came[0]

    def __aiter__(self) -> AsyncIterator[T]:
        """`async for item in queue`: each turn's work belongs to the item's producer; ends when the queue is shut down.

        Example:
            >>> async def worker(queue):
            ...     async for item in queue:
            ...         with span("handle"):    # a child of the producer's span
            ...             queue.task_done()
        """
        return Items(self._filling, Closed)

    def processing(self, name: str) -> AbstractAsyncContextManager[T]:
        """`async with` block for the next item: a span, child of the producer's, until the block ends.

        The span has kind `consumer`, `queue.wait_ms` (how long the item was in the queue, ms) and `queue.size` (how
        many items are left in it). `task_done()` is called at the end. Raises what `get()` does.

        Example:
            >>> async def worker(queue):
            ...     while True:
            ...         async with queue.processing("handle") as item:
            ...             print(item)
        """
        return _Processing(self, name)

    def batch(self, items: Iterable[T] | int, name: str) -> AbstractAsyncContextManager[list[T]]:
        """`async with` block for several items: a span that starts a trace, with a link to each item's producer.

        `items` were taken by this task (or by the one that started it) from traced queues since its last span;
        `task_done()` stays the caller's business. Or a number: the block waits for one item and takes what else is
        there, up to that many, and calls `task_done()` for each at its end. The span has kind `consumer` and
        `messaging.batch_count`. Links are one a producer, 100 at most.

        Example:
            >>> async def worker(queue):
            ...     while True:
            ...         async with queue.batch(100, "store") as items:
            ...             print(len(items))
        """
        return _Batch(self, items, name)


class TracedQueue(_Traced[T], asyncio.Queue[T]):  # pyright: ignore[reportIncompatibleMethodOverride]
    """An `asyncio.Queue` whose items carry their producer's trace; `maxsize` items at most, 0 for no limit.

    Example:
        >>> import asyncio
        >>> from asynctrace import span
        >>> from asynctrace.queues import TracedQueue
        >>> async def main():
        ...     queue = TracedQueue()
        ...     with span("producer") as producer:
        ...         await queue.put("item")
        ...     await queue.get()
        ...     with span("consumer") as consumer:
        ...         return consumer.trace_id == producer.trace_id
        >>> asyncio.run(main())
        True
    """


class TracedPriorityQueue(_Traced[T], asyncio.PriorityQueue[T]):  # type: ignore[type-var]  # may be anything
    """An `asyncio.PriorityQueue` whose items carry their producer's trace: the lowest comes first.

    Example:
        >>> import asyncio
        >>> from asynctrace.queues import TracedPriorityQueue
        >>> async def main():
        ...     queue = TracedPriorityQueue()
        ...     queue.put_nowait((2, "later"))
        ...     queue.put_nowait((1, "first"))
        ...     return await queue.get()
        >>> asyncio.run(main())
        (1, 'first')
    """


class TracedLifoQueue(_Traced[T], asyncio.LifoQueue[T]):  # pyright: ignore[reportIncompatibleMethodOverride]
    """An `asyncio.LifoQueue` whose items carry their producer's trace: the latest comes first.

    Example:
        >>> import asyncio
        >>> from asynctrace.queues import TracedLifoQueue
        >>> async def main():
        ...     queue = TracedLifoQueue()
        ...     queue.put_nowait("first")
        ...     queue.put_nowait("latest")
        ...     return await queue.get()
        >>> asyncio.run(main())
        'latest'
    """


class _Block(Generic[T]):
    """What `processing()` and `batch()` share: a span around the body, and `task_done()` after it."""

    _span: Span
    _taken = 0

    def __init__(self, queue: _Traced[T], name: str) -> None:
        self._queue, self._name = queue, name

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, exc, tb)
        for _ in range(self._taken):
            self._queue.task_done()


class _Processing(_Block[T]):
    async def __aenter__(self) -> T:
        cell = (
            receiving()
        )  # empty: whoever started this task is not to be the parent of what comes after the block
        item, context, put_ns = await self._queue._take()
        if cell is not None:
            cell.set_aside()
        self._taken = 1
        self._span = span(
            self._name, parent=SpanContext(context) if context is not None else ROOT, kind="consumer"
        ).open()
        if put_ns:
            self._span.set_metric("queue.wait_ms", (monotonic_ns() - put_ns) / 1e6)
        self._span.set_metric("queue.size", self._queue.qsize())
        return item


class _Batch(_Block[T]):
    def __init__(self, queue: _Traced[T], items: Iterable[T] | int, name: str) -> None:
        super().__init__(queue, name)
        self._number = items if isinstance(items, int) else None
        if self._number is not None and self._number < 1:
            raise UsageError(
                f"batch() cannot take {items} items", hint="at least 1, or the items taken before"
            )
        self._items: list[T] = [] if isinstance(items, int) else list(items)

    async def __aenter__(self) -> list[T]:
        if self._number is not None:
            cell = receiving()
            contexts = await self._take(self._number)
            if cell is not None:
                cell.set_aside()
        else:
            contexts = claimed(self._items)
        self._span = span(self._name, parent=ROOT, kind="consumer").open()
        self._span.set_metric("messaging.batch_count", len(self._items))
        for producer in producers(contexts):
            self._span.link(SpanContext(producer))
        return self._items

    async def _take(self, number: int) -> list[Context | None]:
        item, context, _ = await self._queue._take()
        self._items, contexts, self._taken = [item], [context], 1
        while self._taken < number and not self._queue.empty():
            item, context = self._queue._take_nowait()
            self._items.append(item)
            contexts.append(context)
            self._taken += 1
        return contexts
