"""Cancelled at any await, of any of its tasks, a program does what it does without tracing; no span is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvloop
from ddtrace.trace import tracer

from asynctrace import atraced, current_span, isolated, span, spawn
from asynctrace.anyio import traced_stream
from asynctrace.queues import TracedQueue
from asynctrace.testing import Recorder

Sample = Callable[[], Coroutine[Any, Any, Any]]
samples: dict[str, Sample] = {}


def sample(function: Sample) -> Sample:
    samples[function.__name__] = function
    return function


async def pause() -> None:
    await asyncio.sleep(0)


@atraced("work")
async def work(turns: int = 2) -> int:
    for _ in range(turns):
        with span("inner"):
            await pause()
    return turns


@atraced("items")
async def items(count: int = 2) -> AsyncGenerator[int, None]:
    for number in range(count):
        with span("item"):
            await pause()
            yield number
            await pause()


async def plain_items(count: int = 2) -> AsyncGenerator[int, None]:
    with span("plain items"):
        for number in range(count):
            with tracer.trace("item"):
                await pause()
                yield number
                await pause()


# -- the programs


@sample
async def nested() -> int:
    with span("a"), tracer.trace("b"), span("c"):
        await pause()
        return await work() + await work()


@sample
async def cleaning_up() -> str:
    try:
        with span("a"):
            await work()
    finally:
        with span("clean up"):
            await pause()
        await work(1)
    return "done"


@sample
async def caught_and_raised_again() -> None:
    with span("a"):
        try:
            await work()
        except asyncio.CancelledError:
            with span("told"):
                await pause()
            raise


@sample
async def gathered() -> Any:
    with span("a"):
        return await asyncio.gather(work(1), work(3), return_exceptions=False)


@sample
async def gathered_with_exceptions() -> Any:
    with span("a"):
        results = await asyncio.gather(work(1), work(3), return_exceptions=True)
        return [type(one) for one in results]


@sample
async def awaited_one_after_the_other() -> None:
    with span("a"):
        tasks = [asyncio.create_task(work(turns)) for turns in (3, 1)]
        for task in tasks:
            await task


@sample
async def waited_for() -> None:
    with span("a"):
        # alike: asyncio looks after sets of them, in an order that differs from run to run
        await asyncio.wait([asyncio.create_task(work()) for _ in range(2)])
        for done in asyncio.as_completed([work(), work()]):
            await done


@sample
async def in_time() -> int:
    with span("a"):
        return await asyncio.wait_for(work(), 60)


@sample
async def shielded() -> int:
    with span("a"):
        return await asyncio.shield(work(3))


@sample
async def spawned() -> None:
    with span("a"):
        child, linked = spawn(work(1)), spawn(work(1), name="linked", relation="link")
        await pause()
    await asyncio.wait([child, linked])


@sample
async def isolated_work() -> int:
    with span("a"):
        return await isolated(work())


@sample
async def threads() -> None:
    def job() -> None:
        with span("job"):
            pass

    with span("a"):
        await asyncio.to_thread(job)
        await work(1)


@sample
async def generators() -> int:
    total = 0
    with span("a"):
        async with contextlib.aclosing(items()) as numbers:
            async for number in numbers:
                with span("turn"):
                    await pause()
                total += number
    return total


@sample
async def plain_generators() -> int:
    total = 0
    with span("a"):
        async with contextlib.aclosing(plain_items()) as numbers:
            async for number in numbers:
                with span("turn"):
                    await pause()
                total += number
    return total


@sample
async def generators_left_early() -> None:
    with span("a"):
        for make in (items, plain_items):
            async with contextlib.aclosing(make()) as numbers:
                async for _ in numbers:
                    await pause()
                    break
            await work(1)


@sample
async def context_managers() -> None:
    @contextlib.asynccontextmanager
    @atraced("manager")
    async def manager() -> AsyncIterator[None]:
        await pause()
        try:
            yield
        finally:
            await pause()

    with span("a"):
        async with manager():
            await work(1)


@sample
async def a_queue() -> list[int]:
    queue = TracedQueue[int](1)

    async def produce() -> None:
        for number in range(3):
            with span("producer"):
                await queue.put(number)

    async def consume() -> list[int]:
        found = []
        for _ in range(3):
            found.append(await queue.get())
            await work(1)
        return found

    return (await asyncio.gather(produce(), consume()))[1]


@sample
async def a_queue_by_blocks() -> list[Any]:
    queue = TracedQueue[int]()
    with span("producer"):
        for number in range(6):
            await queue.put(number)
    found: list[Any] = []
    async for number in queue:
        await work(1)
        found.append(number)
        if number:
            break
    async with queue.processing("processing") as number:
        await work(1)
        found.append(number)
    async with queue.batch(2, "batch") as numbers:
        await work(1)
        found += numbers
    two = [await asyncio.create_task(queue.get())]
    async with queue.batch(two, "batch"):
        await work(1)
    return found


@sample
async def workers() -> None:
    queue = TracedQueue[int]()

    async def handle() -> None:
        while True:
            async with queue.processing("handle"):
                await work(1)

    with span("starter"):
        tasks = [asyncio.create_task(handle()) for _ in range(2)]
    try:
        for number in range(3):
            with span("producer"):
                queue.put_nowait(number)
                await pause()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@sample
async def anyio_group() -> None:
    with span("a"):
        async with anyio.create_task_group() as group:
            group.start_soon(work, 1)
            group.start_soon(work, 2)
            await work(1)


@sample
async def anyio_scopes() -> None:
    with span("a"):
        with anyio.CancelScope() as scope:
            await pause()
            scope.cancel()
            await work()
        with anyio.CancelScope(shield=True):
            await work(1)
        await anyio.lowlevel.checkpoint()


@sample
async def anyio_streams() -> None:
    send, receive = traced_stream(anyio.create_memory_object_stream[int](1))

    async def produce() -> None:
        async with send:
            for number in range(2):
                with span("producer"):
                    await send.send(number)

    async with anyio.create_task_group() as group, receive:
        group.start_soon(produce)
        async for _ in receive:
            await work(1)


if sys.version_info >= (3, 11):

    @sample
    async def a_task_group() -> None:
        with span("a"):
            async with asyncio.TaskGroup() as group:
                group.create_task(work(1))
                with span("b"):
                    group.create_task(work(2))
                await work(1)

    @sample
    async def not_in_time() -> str:
        with span("a"):
            try:
                async with asyncio.timeout(0):
                    await work(1)
                    with span("waiting"):
                        await asyncio.Event().wait()
            except TimeoutError:
                await work(1)
                return "late"
        return "in time"


# -- how they are run


@dataclass
class Run:
    """A run of a sample, with a cancellation at one of its suspensions."""

    cancel_at: int
    at_once: bool
    """Before the suspended task has reached what it waits for; or a turn of the loop later."""
    suspensions: int = 0
    cancelled: list[asyncio.Task[Any]] = field(default_factory=list)
    result: object = None

    def suspended(self) -> None:
        task = asyncio.current_task()
        self.suspensions += 1
        if task is not None and self.suspensions == self.cancel_at:
            self.cancelled.append(task)
            if self.at_once:
                task.cancel()
            else:
                asyncio.get_running_loop().call_soon(task.cancel)


class Steps(Coroutine[Any, Any, Any]):
    """A coroutine that counts how often it suspends; for the rest it is the one it is made of."""

    def __init__(self, run: Run, coro: Coroutine[Any, Any, Any]) -> None:
        self.run, self.coro = run, coro

    def send(self, value: object) -> object:
        waits = self.coro.send(value)
        self.run.suspended()
        return waits

    def throw(self, *exc: Any) -> object:
        waits = self.coro.throw(*exc)
        self.run.suspended()
        return waits

    def close(self) -> None:
        self.coro.close()

    def __await__(self) -> Any:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:  # anyio looks whether it runs
        return getattr(self.coro, name)


async def end_what_is_left() -> None:
    """Give tasks that nobody awaits the time to end; those that wait for somebody who is gone, end here."""
    for _ in range(50):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def run_to_the_end(one: Run, function: Sample) -> None:
    """All of the sample's tasks are counted; when it is over, nothing is active."""
    loop = asyncio.get_running_loop()

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Steps(one, coro), loop=loop, **options)

    async def main() -> object:
        try:
            return await function()
        finally:
            assert current_span() is None

    loop.set_task_factory(factory)
    try:
        task = asyncio.create_task(main())
        await asyncio.wait([task])
    finally:
        loop.set_task_factory(None)
    one.result = "cancelled" if task.cancelled() else task.exception() or task.result()
    await end_what_is_left()
    await loop.shutdown_default_executor()


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def play(request: pytest.FixtureRequest) -> Callable[[Run, Sample], Run]:
    """Runs a sample in a loop of its own."""

    def run(one: Run, function: Sample) -> Run:
        loop = LOOPS[request.param]()
        try:
            loop.run_until_complete(run_to_the_end(one, function))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
        return one

    return run


@pytest.mark.parametrize("at_once", [False, True], ids=["while waiting", "while about to wait"])
@pytest.mark.parametrize("name", samples)
def test_cancelled_at_every_await(
    name: str, at_once: bool, play: Callable[[Run, Sample], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every span ends, cancelled is no error, and result and awaits are those of the untraced program."""
    cancel_at = spans = 0
    while True:
        with Recorder() as recorder:
            traced = play(Run(cancel_at, at_once), samples[name])
        with monkeypatch.context() as patch:
            patch.setattr(tracer, "enabled", False)
            bare = play(Run(cancel_at, at_once), samples[name])
        where = f"{name} cancelled at await {cancel_at}:\n{recorder.report()}"
        assert repr(traced.result) == repr(bare.result), where
        assert traced.suspensions == bare.suspensions, where
        spans += len(recorder.spans)
        recorder.assert_finished()
        recorder.assert_no_orphans()
        outcomes = {one.outcome for one in recorder.spans}
        assert outcomes <= {"ok", "cancelled", "closed"}, where
        assert not any(one.error for one in recorder.spans), where
        if cancel_at and not traced.cancelled:
            break
        cancel_at += 1
    assert cancel_at >= 3
    assert spans >= cancel_at
