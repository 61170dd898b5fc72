"""Batches and the exact forms, `async for`, `processing()` and `batch()`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace import current_span, span
from asynctrace._core.errors import UsageError
from asynctrace._core.received import MAX_LINKS
from asynctrace.queues import TracedQueue
from tests.core.test_queues import links_of, mark, put

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


@pytest.fixture
def queue() -> TracedQueue[Any]:
    return TracedQueue()


# -- batches


async def test_items_in_a_row_are_a_batch(queue: TracedQueue[int], traces: Recorder) -> None:
    """The next span starts a trace linked to each producer, once each; the `get()` after that starts afresh."""
    put(queue, 1, 2)
    with span("both"):
        queue.put_nowait(3)
        queue.put_nowait(4)
    put(queue, 5)
    await queue.get()
    await asyncio.wait_for(queue.get(), 5)
    queue.get_nowait()
    queue.get_nowait()
    assert current_span() is None
    mark("batch")
    await queue.get()
    mark("single")
    assert traces.tree() == "p1\np2\nboth\np5\n  single\nbatch"
    assert links_of(traces, "batch") == ["p1", "p2", "both"]


async def test_a_batch_that_a_timeout_ends(queue: TracedQueue[int], traces: Recorder) -> None:
    """What was taken until then is the batch."""
    put(queue, 1, 2)
    for _ in range(2):
        await queue.get()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(queue.get(), 0)
    mark("batch")
    assert links_of(traces, "batch") == ["p1", "p2"]


async def test_gathered_gets_are_a_batch(queue: TracedQueue[int], traces: Recorder) -> None:
    """Several `get()`s at once, too."""
    put(queue, 1, 2)
    await asyncio.gather(queue.get(), queue.get())
    mark("batch")
    assert links_of(traces, "batch") == ["p1", "p2"]


async def test_links_are_bounded(queue: TracedQueue[int], traces: Recorder) -> None:
    """A batch of any size has at most that many links."""
    put(queue, *range(MAX_LINKS + 5))
    while not queue.empty():
        queue.get_nowait()
    mark("batch")
    assert len(links_of(traces, "batch")) == MAX_LINKS


async def test_batch_block(queue: TracedQueue[int], traces: Recorder) -> None:
    """`batch(items, name)`: a new trace, linked to these items' producers; in a task with a span, too."""
    put(queue, 1, 2, 3)
    with span("own"):
        items = [queue.get_nowait() for _ in range(3)]
        async with queue.batch(items[1:], "batch") as same:
            mark("inside")
        mark("after")
    assert same == [2, 3]
    assert traces.tree() == "p1\np2\np3\nown\n  after\nbatch\n  inside"
    assert links_of(traces, "batch") == ["p2", "p3"]
    assert traces.one("batch").tags["span.kind"] == "consumer"
    assert traces.one("batch").tags["messaging.batch_count"] == 3 - 1


async def test_batch_block_in_a_task_of_its_own(queue: TracedQueue[int], traces: Recorder) -> None:
    """A task started with what was taken finds the producers; nothing is left over for the worker."""
    put(queue, 1, 2)

    async def store(items: list[int]) -> None:
        async with queue.batch(items, "batch"):
            pass

    await asyncio.create_task(store([await queue.get(), await queue.get()]))
    assert links_of(traces, "batch") == ["p1", "p2"]


async def test_batch_block_by_number(queue: TracedQueue[int], traces: Recorder) -> None:
    """`batch(100, name)` takes what is there, calls `task_done()`, and leaves nothing active."""
    put(queue, 1, 2, 3)
    async with queue.batch(2, "two") as two:
        pass
    mark("between")
    async with queue.batch(100, "rest") as rest:
        pass
    await queue.join()
    assert (two, rest) == ([1, 2], [3])
    assert links_of(traces, "two") == ["p1", "p2"]
    assert links_of(traces, "rest") == ["p3"]
    assert not links_of(traces, "between")
    with pytest.raises(UsageError):
        queue.batch(0, "none")


async def test_after_a_batch_block_nothing_is_active(queue: TracedQueue[int], traces: Recorder) -> None:
    """The block was the work on the items: they are not linked again."""
    put(queue, 1, 2)
    async with queue.batch([await queue.get(), await queue.get()], "batch"):
        pass
    mark("after")
    assert not links_of(traces, "after")


# -- async for


async def test_async_for(queue: TracedQueue[int], traces: Recorder) -> None:
    """The body's work is its item's producer's, spans or none; after `break` what was active before is again."""
    put(queue, 1, 2, 3, 4)
    await queue.get()
    async for item in queue:
        if item == 3:
            mark(f"c{item}")
            break
    mark("c1")
    assert traces.tree() == "p1\n  c1\np2\np3\n  c3\np4"
    assert not traces.one("c3").links


async def test_async_for_over_an_iterator(queue: TracedQueue[int], traces: Recorder) -> None:
    """Its iterator is one itself, and goes on where it was left."""
    put(queue, 1, 2)
    items = aiter(queue)
    async for _ in items:
        mark("c1")
        break
    async for _ in items:
        mark("c2")
        break
    del items
    mark("after")
    assert traces.tree() == "p1\n  c1\np2\n  c2\nafter"


async def test_async_for_and_exceptions(queue: TracedQueue[int], traces: Recorder) -> None:
    """An exception out of the body restores, too."""
    put(queue, 1)

    async def work() -> None:
        async for _ in queue:
            raise ValueError

    with pytest.raises(ValueError):
        await work()
    assert current_span() is None
    mark("after")
    assert traces.tree() == "p1\nafter"


async def test_async_for_within_a_span(queue: TracedQueue[int], traces: Recorder) -> None:
    """A span of the task's own stays."""
    put(queue, 1)
    with span("own"):
        async for _ in queue:
            mark("c")
            break
        mark("d")
    assert traces.tree() == "p1\nown\n  c\n  d"


async def test_tasks_of_an_async_for_keep_their_item(queue: TracedQueue[int], traces: Recorder) -> None:
    """A task started in the body keeps the item's producer after the loop."""
    put(queue, 1, 2)
    go, tasks = asyncio.Event(), []

    async def handle(item: int) -> None:
        await go.wait()
        mark(f"c{item}")

    async for item in queue:
        tasks.append(asyncio.create_task(handle(item)))
        if queue.empty():
            break
    go.set()
    await asyncio.gather(*tasks)
    assert traces.tree() == "p1\n  c1\np2\n  c2"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio's queues can be shut down since 3.13")
async def test_shutdown(queue: Any, traces: Recorder) -> None:
    """It ends a loop over the queue, and makes `get()` and `processing()` raise as asyncio has it."""
    put(queue, 1)
    queue.shutdown()
    async for item in queue:
        mark(f"c{item}")
    assert current_span() is None
    with pytest.raises(asyncio.QueueShutDown):  # type: ignore[attr-defined,unused-ignore]
        await queue.get()
    with pytest.raises(asyncio.QueueShutDown):  # type: ignore[attr-defined,unused-ignore]
        async with queue.processing("p"):
            pass
    assert traces.tree() == "p1\n  c1"


# -- processing


async def test_processing(queue: TracedQueue[int], traces: Recorder) -> None:
    """A span of its own, child of the producer; wait and size as tags; `task_done()` at the end."""
    put(queue, 1, 2)

    async def work() -> None:
        async with queue.processing("work") as item:
            assert item == 1
            mark("inside")
        mark("after")

    with span("starter"):
        await asyncio.create_task(work())
    tags = traces.one("work").tags
    assert traces.tree() == "p1\n  work\n    inside\np2\nstarter\nafter"
    assert tags["span.kind"] == "consumer"
    assert tags["queue.size"] == 1
    assert isinstance(tags["queue.wait_ms"], float)
    assert 0 < tags["queue.wait_ms"] < 5000
    async with queue.processing("work 2"):
        pass
    await queue.join()


async def test_processing_fails(queue: TracedQueue[int], traces: Recorder) -> None:
    """The error is recorded and goes on; `task_done()` was called nevertheless."""
    put(queue, 1)
    with pytest.raises(ValueError, match="no"):
        async with queue.processing("work"):
            raise ValueError("no")
    await queue.join()
    assert traces.one("work").outcome == "error"
    assert current_span() is None


async def test_processing_within_a_span(queue: TracedQueue[int], traces: Recorder) -> None:
    """The block's span is the producer's child; the task's own span is active again afterwards."""
    put(queue, 1)
    with span("own"):
        async with queue.processing("work"):
            pass
        mark("after")
    assert traces.tree() == "p1\n  work\nown\n  after"
