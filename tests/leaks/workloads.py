"""What a program may do for ever: `python -m tests.leaks.workloads NAME` does it, and prints its memory as it goes.

A workload is an async function that does its work in `LAPS` laps of equal size; after each the resident memory is read.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from ddtrace.trace import Span, TraceFilter, tracer

from asynctrace import atraced, span, spawn, start_span
from asynctrace.queues import TracedQueue

LAPS = 30

Lap = Callable[[], None]
Workload = Callable[[Lap], Coroutine[Any, Any, None]]

WORKLOADS: dict[str, Workload] = {}


def workload(function: Workload) -> Workload:
    WORKLOADS[function.__name__] = function
    return function


def laps(total: int) -> Iterator[range]:
    """The numbers of each lap."""
    size = total // LAPS
    return (range(lap * size, (lap + 1) * size) for lap in range(LAPS))


# -- generators that are left early, and never closed


@atraced
async def decorated_async() -> AsyncIterator[int]:
    for number in range(9):
        yield number


async def plain_async() -> AsyncIterator[int]:
    with span("plain"):
        for number in range(9):
            yield number


@atraced
def decorated() -> Iterator[int]:
    yield from range(9)


def plain() -> Iterator[int]:
    with span("plain"):
        yield from range(9)


async def left_early(lap: Lap, make: Callable[[], AsyncIterator[int]]) -> None:
    for numbers in laps(100_000):
        for number in numbers:
            with span("request"):
                async for _ in make():
                    break
            if number % 10 == 0:
                await asyncio.sleep(0)  # the loop closes those that nobody holds
        lap()


async def plain_left_early(lap: Lap, make: Callable[[], Iterator[int]]) -> None:
    for numbers in laps(100_000):
        for _ in numbers:
            with span("request"):
                for _ in make():
                    break
        lap()


@workload
async def decorated_async_generators(lap: Lap) -> None:
    await left_early(lap, decorated_async)


@workload
async def async_generators_with_a_span(lap: Lap) -> None:
    await left_early(lap, plain_async)


@workload
async def decorated_generators(lap: Lap) -> None:
    await plain_left_early(lap, decorated)


@workload
async def generators_with_a_span(lap: Lap) -> None:
    await plain_left_early(lap, plain)


# -- tasks


async def work() -> None:
    with span("work"):
        await asyncio.sleep(0)


@workload
async def spawned_tasks(lap: Lap) -> None:
    """Each outlives the request it is spawned in; every other one is a trace of its own."""
    for numbers in laps(100_000):
        for number in numbers:
            with span("request"):
                task = spawn(work(), relation="child" if number % 2 else "link")
            if number % 50 == 0:
                await task
        lap()


# -- things that live long


@workload
async def a_worker(lap: Lap) -> None:
    """Started inside a request, it lives through 30,000 items, taken in each way there is."""
    queue: TracedQueue[int] = TracedQueue(10)

    async def worker() -> None:
        while True:
            await queue.get()
            await work()
            queue.task_done()
            async with queue.processing("handle"):
                await work()
            await asyncio.wait_for(queue.get(), 10)
            tracer.trace("theirs").finish()
            queue.task_done()
            async with queue.batch(2, "store"):
                await work()
            async for _ in queue:
                await work()
                queue.task_done()
                break

    with span("request"):
        task = asyncio.create_task(worker())
    for numbers in laps(30_000):
        for _ in numbers:
            with span("producer"):
                await queue.put(1)
        await queue.join()
        lap()
    task.cancel()


@workload
async def an_endless_root(lap: Lap) -> None:
    """100,000 spans below one that never ends, ours and ddtrace's, one by one and in tasks."""
    with start_span("endless"):
        for numbers in laps(100_000):
            for number in numbers:
                if number % 100 == 0:
                    await asyncio.gather(work(), asyncio.create_task(work()))
                elif number % 2:
                    with span("child"):
                        pass
                else:
                    with tracer.trace("theirs"):
                        pass
            lap()


@workload
async def kept_spans(lap: Lap) -> None:
    """No workload of the library's: what a leak looks like."""
    kept = []
    for numbers in laps(30_000):
        for _ in numbers:
            with span("request") as request:
                kept.append(request)
        lap()


class Drop(TraceFilter):
    """The last to see a span: what ddtrace's writer buffers for its agent is not what is measured here."""

    def process_trace(self, trace: list[Span]) -> list[Span] | None:
        return None


def resident() -> int:
    """The memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(name: str) -> None:
    sizes: list[int] = []
    tracer.configure(trace_processors=[Drop()])

    def lap() -> None:
        sizes.append(resident())

    asyncio.run(WORKLOADS[name](lap))
    print(*sizes)


if __name__ == "__main__":
    main(*sys.argv[1:])
