"""The traced queues are asyncio's queues: same behaviour, also with tracing off, and nothing is kept alive."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import tracer

from asynctrace import span
from asynctrace.queues import TracedLifoQueue, TracedPriorityQueue, TracedQueue
from tests.core.test_queues import mark, put

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


@pytest.fixture
def queue() -> TracedQueue[Any]:
    return TracedQueue()


async def test_they_are_asyncios_queues() -> None:
    """isinstance, maxsize, full and empty, order, `repr` and `task_done()` are as ever."""
    fifo, lifo, first = TracedQueue[Any](2), TracedLifoQueue[Any](), TracedPriorityQueue[Any]()
    assert isinstance(fifo, asyncio.Queue)
    assert isinstance(lifo, asyncio.LifoQueue)
    assert isinstance(first, asyncio.PriorityQueue)
    item = [1]
    for each in (fifo, lifo, first):
        each.put_nowait(item)
        each.put_nowait([0])
    assert fifo.full()
    with pytest.raises(asyncio.QueueFull):
        fifo.put_nowait(1)
    assert "_queue=[[1], [0]]" in repr(fifo)
    assert "_queue=[[0], [1]]" in repr(first)
    assert fifo.get_nowait() is item
    assert [lifo.get_nowait(), lifo.get_nowait()] == [[0], [1]]
    assert [await first.get(), await first.get()] == [[0], [1]]
    assert (fifo.qsize(), fifo.maxsize, lifo.empty()) == (1, 2, True)
    fifo.task_done()
    fifo.task_done()
    with pytest.raises(ValueError, match="too many"):
        fifo.task_done()
    with pytest.raises(asyncio.QueueEmpty):
        lifo.get_nowait()


async def test_items_that_cannot_be_compared() -> None:
    """What asyncio's queue says of them, this one says."""
    queue = TracedPriorityQueue[Any]()
    queue.put_nowait(1)
    with pytest.raises(TypeError, match="'str' and 'int'"):
        queue.put_nowait("a")


async def test_disabled(queue: TracedQueue[int], traces: Recorder, tracing_off: None) -> None:
    """With tracing off they are plain queues, the blocks too."""
    for item in range(5):
        queue.put_nowait(item)
    assert await queue.get() == 0
    assert queue.get_nowait() == 1
    async with queue.processing("p") as item:
        assert item == 2
    async with queue.batch(1, "b") as items:
        assert items == [3]
    async for item in queue:
        assert item == 4
        break
    assert not traces.spans


@pytest.fixture
def tracing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "enabled", False)


class Item:
    """Something to be freed."""


async def test_no_item_is_kept(queue: TracedQueue[Any], traces: Recorder) -> None:
    """An item is freed once its consumer lets go of it, and so is what each `get()` left."""
    freed = []
    gc.collect()
    gc.disable()
    try:
        for way in range(3):
            item: Any = Item()
            freed.append(weakref.ref(item))
            queue.put_nowait(item)
            del item
            if way == 0:
                await queue.get()
            elif way == 1:
                async with queue.processing("p") as item:
                    pass
                del item
            else:
                async with queue.batch(1, "b") as items:
                    items.clear()
        assert [ref() for ref in freed] == [None] * 3
    finally:
        gc.enable()


async def test_a_worker_holds_nothing_of_the_gets_before(queue: TracedQueue[Any]) -> None:
    """However many items it has taken, a constant number of our objects lives."""
    from asynctrace._core.received import Received

    async def work() -> int:
        for number in range(50):
            put(queue, number)
            await queue.get()
            mark("c")
        gc.collect()
        return sum(type(one) is Received for one in gc.get_objects())

    with span("starter"):
        assert await asyncio.create_task(work()) <= 2
