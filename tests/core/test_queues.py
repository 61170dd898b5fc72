"""Queues whose items carry their producer's trace: one rule a test."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import tracer

from asynctrace import SpanContext, attached, current_span, detached, span
from asynctrace.queues import TracedLifoQueue, TracedPriorityQueue, TracedQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asynctrace.testing import Recorder

TAKE: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "get": lambda queue: queue.get(),
    "wait_for": lambda queue: asyncio.wait_for(queue.get(), 5),
    "create_task": lambda queue: asyncio.create_task(queue.get()),
    "gather": lambda queue: first_of(asyncio.gather(queue.get())),
}
every_way = pytest.mark.parametrize("way", TAKE)


async def first_of(many: Awaitable[Any]) -> Any:
    return (await many)[0]


def mark(name: str) -> None:
    with span(name):
        pass


def put(queue: Any, *items: Any) -> None:
    """Each by a producer of its own, named p and the item, elsewhere."""

    def produce() -> None:
        for item in items:
            with span(f"p{item}"):
                queue.put_nowait(item)

    contextvars.Context().run(produce)


def links_of(traces: Recorder, name: str) -> list[str]:
    names = {one.span_id: one.name for one in traces.spans}
    assert traces.one(name).parent_id is None
    return [names[link.span_id] for link in traces.one(name).links]


@pytest.fixture
def queue() -> TracedQueue[Any]:
    return TracedQueue()


# -- after get()


@every_way
async def test_work_after_get_is_its_producers(way: str, queue: TracedQueue[int], traces: Recorder) -> None:
    """Until the next `get()`, every span is a child of the item's producer; not of the item before."""
    put(queue, 1, 2)

    async def work() -> None:
        for _ in range(2):
            item = await TAKE[way](queue)
            mark(f"a{item}")
            await asyncio.sleep(0)
            mark(f"b{item}")

    with span("starter"):
        task = asyncio.create_task(work())
    await task
    assert traces.tree() == "p1\n  a1\n  b1\np2\n  a2\n  b2\nstarter"


@every_way
async def test_an_item_that_is_waited_for(way: str, queue: TracedQueue[int], traces: Recorder) -> None:
    """The same when the consumer waited first, inside the trace of whoever started it."""

    async def work() -> None:
        for _ in range(2):
            mark(f"c{await TAKE[way](queue)}")
            queue.task_done()

    with span("starter"):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        put(queue, 1)
        await queue.join()
    put(queue, 2)
    await task
    assert traces.tree() == "starter\np1\n  c1\np2\n  c2"


@pytest.mark.parametrize("kind", [TracedQueue, TracedPriorityQueue, TracedLifoQueue])
async def test_every_kind_of_queue(kind: type[TracedQueue[int]], traces: Recorder) -> None:
    """Each of the three carries, by `put` and `get_nowait`, too."""
    queue = kind(1)

    async def work() -> None:
        with span("producer"):
            await queue.put(1)
            await queue.put(2)

    task = asyncio.create_task(work())
    for name in ("first", "second"):
        while queue.empty():
            await asyncio.sleep(0)
        queue.get_nowait()
        mark(name)
    await task
    assert traces.tree() == "producer\n  first\n  second"


@every_way
async def test_a_get_that_comes_to_nothing(way: str, queue: TracedQueue[int], traces: Recorder) -> None:
    """After a `get()` that was cancelled nothing is active: neither the item before nor who started the task."""

    async def work() -> None:
        await queue.get()
        mark("c1")
        with pytest.raises(asyncio.CancelledError):
            await TAKE[way](queue)
        assert current_span() is None
        assert not SpanContext.current()
        mark("idle")

    put(queue, 1)
    with span("starter"):
        task = asyncio.create_task(work())
    while not queue._getters:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    task.cancel()
    await task
    assert traces.tree() == "p1\n  c1\nstarter\nidle"
    assert not traces.one("idle").links


async def test_a_get_that_timed_out(queue: TracedQueue[int], traces: Recorder) -> None:
    """The same after a timeout; an empty queue's `get_nowait()` is no different."""
    put(queue, 1)
    await queue.get()
    mark("c1")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(queue.get(), 0)
    mark("idle")
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()
    mark("idle, too")
    assert traces.tree() == "p1\n  c1\nidle\nidle, too"


async def test_a_span_of_its_own_stays(queue: TracedQueue[int], traces: Recorder) -> None:
    """A task with an open span keeps it, and so does an `attached()` block."""
    put(queue, 1, 2)
    with span("own"):
        await queue.get()
        mark("a")
        with attached(SpanContext.current()):
            queue.get_nowait()
            mark("b")
        mark("c")
    mark("d")
    assert traces.tree() == "p1\np2\nown\n  a\n  b\n  c\nd"


async def test_in_a_detached_block(queue: TracedQueue[int], traces: Recorder) -> None:
    """The item's producer, until the block ends; then what was active before it."""
    put(queue, 1)
    with span("own"):
        with detached():
            await queue.get()
            mark("a")
        mark("b")
    mark("c")
    assert traces.tree() == "p1\n  a\nown\n  b\nc"


async def test_tasks_keep_their_item(queue: TracedQueue[int], traces: Recorder) -> None:
    """A task started for an item works for its producer, also when the worker has the next one by then."""
    put(queue, 1, 2, 3)
    go = asyncio.Event()

    async def handle(item: int) -> None:
        await go.wait()
        mark(f"c{item}")

    tasks = [asyncio.create_task(handle(await queue.get())) for _ in range(3)]
    go.set()
    await asyncio.gather(*tasks)
    assert traces.tree() == "p1\n  c1\np2\n  c2\np3\n  c3"


async def test_two_queues_at_once(traces: Recorder) -> None:
    """Whichever of two pending `get()`s comes first, its item is what is worked on."""
    one, other = TracedQueue[int](), TracedQueue[int]()
    gets = [asyncio.create_task(one.get()), asyncio.create_task(other.get())]
    await asyncio.sleep(0)
    put(one, 1)
    await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
    mark("c1")
    put(other, 2)
    await gets[1]
    mark("c2")
    assert traces.tree() == "p1\n  c1\np2\n  c2"


async def test_ddtrace_spans(queue: TracedQueue[int], traces: Recorder) -> None:
    """The rules hold for `tracer.trace()`."""
    put(queue, 1, 2, 3)
    await queue.get()
    with tracer.trace("c"):
        pass
    await queue.get()
    await queue.get()
    with tracer.trace("batch"):
        pass
    assert traces.tree() == "p1\n  c\np2\np3\nbatch"
    assert links_of(traces, "batch") == ["p2", "p3"]


async def test_beside_a_suspended_generator(queue: TracedQueue[int], traces: Recorder) -> None:
    """Its span is its own, what was received is the consumer's."""

    def numbers() -> Iterator[int]:
        with span("generator"):
            yield 1
            mark("g")
            yield 2

    put(queue, 1, 2)
    running = numbers()
    for _ in running:
        mark(f"c{await queue.get()}")
    assert traces.tree() == "p1\n  c1\np2\n  c2\ngenerator\n  g"


async def test_an_item_put_in_no_trace(queue: TracedQueue[int], traces: Recorder) -> None:
    """Work on it starts a trace of its own."""
    queue.put_nowait(1)

    async def work() -> None:
        await queue.get()
        mark("c")

    with span("starter"):
        await asyncio.create_task(work())
    assert traces.tree() == "starter\nc"


@pytest.mark.parametrize("wakes", ["event", "condition", "future", "queue"])
async def test_wakers_do_not_lend_their_trace(wakes: str, traces: Recorder) -> None:
    """Who wakes a task is not the parent of its work."""
    event, condition, queue = asyncio.Event(), asyncio.Condition(), asyncio.Queue[None]()
    future = asyncio.get_running_loop().create_future()

    async def waits() -> None:
        async with condition:
            if wakes == "condition":
                await condition.wait()
        if wakes == "future":
            await future
        elif wakes != "condition":
            await (event.wait if wakes == "event" else queue.get)()
        mark("woken")

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    with span("waker"):
        async with condition:
            condition.notify()
        event.set()
        future.set_result(None)
        queue.put_nowait(None)
    await task
    assert traces.tree() == "waker\nwoken"
