"""Decorated generators: their span is active while their own code runs, and only then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import tracer

from asynctrace import atraced, current_span, span

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from asynctrace.testing import Recorder


def mark(name: str) -> None:
    with span(name):
        pass


@atraced("items")
async def items(count: int = 3) -> AsyncGenerator[int, Any]:
    for number in range(count):
        mark(f"inside {number}")
        yield number
        await asyncio.sleep(0)


@atraced("plain")
def plain(count: int = 3) -> Generator[int, Any, str]:
    for number in range(count):
        mark(f"inside {number}")
        yield number
    return "result"


async def to_the_end(generator: AsyncGenerator[Any, Any]) -> list[Any]:
    return [item async for item in generator]


async def test_the_consumers_spans_are_the_consumers(traces: Recorder) -> None:
    """What is opened between two items is no child of the generator."""
    with span("consumer"):
        async for number in items(2):
            mark(f"between {number}")
    assert traces.tree() == "consumer\n  items\n    inside 0\n    inside 1\n  between 0\n  between 1"


def test_the_consumers_spans_of_a_plain_generator(traces: Recorder) -> None:
    """The same for plain generators."""
    with span("consumer"):
        for number in plain(2):
            mark(f"between {number}")
    assert traces.tree() == "consumer\n  plain\n    inside 0\n    inside 1\n  between 0\n  between 1"


def test_a_span_of_the_body_is_active_in_the_body_only(traces: Recorder) -> None:
    """A span around a `yield` is parked with its generator; one of ddtrace's, too."""

    @atraced("items")
    def body() -> Generator[None]:
        with span("ours"):
            yield
            mark("in ours")
            with tracer.trace("theirs"):
                yield
                mark("in theirs")

    for _ in body():
        assert current_span() is None
        mark("consumer's")
    assert traces.tree() == "\n".join(
        ["items", "  ours", "    in ours", "    theirs", "      in theirs", *["consumer's"] * 2]
    )


async def test_a_span_the_consumer_opened_is_its_own(traces: Recorder) -> None:
    """One that the consumer opens between two items and ends after a later one stays the consumer's."""
    generator = items(2)
    await anext_of(generator)
    handle = start = span("consumer's").open()
    await anext_of(generator)
    assert current_span() is start
    mark("below it")
    handle.finish()
    await generator.aclose()
    assert traces.tree() == "items (closed)\n  inside 0\n  inside 1\nconsumer's\n  below it"


async def anext_of(generator: AsyncGenerator[Any, Any]) -> Any:
    return await generator.__anext__()


async def test_break_and_aclose(traces: Recorder) -> None:
    """Left early and closed: outcome closed, no error, and the next span is not its child."""
    generator = items()
    async for _ in generator:
        break
    mark("after the break")
    await generator.aclose()
    mark("after the close")
    one = traces.one("items")
    assert (one.outcome, one.error) == ("closed", 0)
    assert traces.tree() == "items (closed)\n  inside 0\nafter the break\nafter the close"


def test_a_plain_generator_closed(traces: Recorder) -> None:
    """`close()` ends it as `closed`."""
    generator = plain()
    next(generator)
    generator.close()
    assert (traces.one("plain").outcome, traces.one("plain").error) == ("closed", 0)


def test_a_plain_generator_is_freed(traces: Recorder) -> None:
    """Dropped half way, it is finished at once, without gc, and nothing stays active."""
    gc.disable()
    try:
        generator = plain()
        next(generator)
        del generator
        assert traces.tree() == "plain (closed)\n  inside 0"
    finally:
        gc.enable()


async def test_athrow_and_asend(traces: Recorder) -> None:
    """What is sent arrives, what is thrown can be caught, inside; spans there are the generator's."""

    @atraced("echo")
    async def echo() -> AsyncGenerator[Any, Any]:
        got: Any = None
        while got != "stop":
            try:
                got = yield got
            except ValueError as exc:
                got = exc
            mark("got")

    generator = echo()
    await generator.asend(None)
    assert await generator.asend("x") == "x"
    error = ValueError()
    assert await generator.athrow(error) is error
    with pytest.raises(StopAsyncIteration):
        await generator.asend("stop")
    assert traces.tree() == "echo\n  got\n  got\n  got"


async def test_athrow_that_is_not_caught(traces: Recorder) -> None:
    """It leaves the generator as the same object, and is the span's error."""
    generator = items()
    await anext_of(generator)
    error = KeyError("x")
    with pytest.raises(KeyError) as caught:
        await generator.athrow(error)
    assert caught.value is error
    assert traces.one("items").outcome == "error"
    with pytest.raises(StopAsyncIteration):
        await anext_of(generator)


def test_a_plain_generator_takes_and_returns(traces: Recorder) -> None:
    """`send`, `throw` and the result of `yield from` work as without the decorator."""

    @atraced("echo")
    def echo() -> Generator[Any, Any, str]:
        try:
            assert (yield 1) == "x"
            yield 2
        except ValueError:
            yield 3
        return "result"

    def outer() -> Generator[Any, Any, None]:
        results.append((yield from echo()))

    results: list[str] = []
    generator = outer()
    assert next(generator) == 1
    assert generator.send("x") == 2
    assert generator.throw(ValueError()) == 3
    assert list(generator) == []
    assert results == ["result"]
    assert traces.tree() == "echo"


async def test_an_error_of_the_body(traces: Recorder) -> None:
    """An exception of its own is the span's, and the consumer's: the same object."""
    error = ValueError()

    @atraced("items")
    async def failing() -> AsyncGenerator[int]:
        yield 1
        raise error

    with pytest.raises(ValueError) as caught:
        await to_the_end(failing())
    assert caught.value is error
    assert traces.one("items").outcome == "error"


async def test_an_error_of_the_consumer_is_not_the_generators(traces: Recorder) -> None:
    """A loop body that raises leaves the generator early: closed."""
    with pytest.raises(ValueError), span("consumer"):  # noqa: PT012 - what leaves the block is the point
        async with contextlib.aclosing(items()) as generator:
            async for _ in generator:
                raise ValueError
    assert (traces.one("items").outcome, traces.one("items").error) == ("closed", 0)
    assert traces.one("consumer").outcome == "error"


async def test_interleaved(traces: Recorder) -> None:
    """Two generators advanced in turns see nothing of each other."""
    first, second = items(2), items(2)
    with span("consumer"):
        for generator in (first, second, second, first):
            await anext_of(generator)
        assert await to_the_end(first) == await to_the_end(second) == []
    inside = "\n    inside 0\n    inside 1"
    assert traces.tree() == f"consumer\n  items{inside}\n  items{inside}"


async def test_one_generator_over_another(traces: Recorder) -> None:
    """A generator that consumes another is its parent."""

    @atraced("outer")
    async def outer() -> AsyncGenerator[int]:
        async for number in items(2):
            mark("outer's")
            yield number

    await to_the_end(outer())
    assert traces.tree() == "outer\n  items\n    inside 0\n    inside 1\n  outer's\n  outer's"


async def test_advanced_by_several_tasks(traces: Recorder) -> None:
    """Each step in another task: inside it is the generator, after it the task."""

    @atraced("items")
    async def body() -> AsyncGenerator[None]:
        with span("ours"):
            yield
            mark("in ours")
            yield
        mark("after ours")
        yield

    generator = body()

    async def step(number: int) -> None:
        with span(f"task {number}"):
            await anext_of(generator)
            mark("task's")

    for number in range(3):
        await asyncio.create_task(step(number))
    await generator.aclose()
    assert traces.tree().splitlines() == [
        *("task 0", "  items (closed)", "    ours", "      in ours", "    after ours", "  task's"),
        *("task 1", "  task's", "task 2", "  task's"),
    ]


async def test_a_span_of_ddtrace_over_several_tasks(traces: Recorder) -> None:
    """A span of ddtrace's around a `yield`, resumed by another task, ends like ours."""

    @atraced("items")
    async def body() -> AsyncGenerator[None]:
        with tracer.trace("theirs"):
            yield
        mark("after theirs")
        yield

    generator = body()

    async def step() -> None:
        await anext_of(generator)

    await asyncio.create_task(step())
    await asyncio.create_task(step())
    await generator.aclose()
    assert traces.tree() == "items (closed)\n  theirs\n  after theirs"


async def test_collected_in_another_task(traces: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Dropped by its consumer: finalised by the loop, closed, delivered, no line logged, nothing poisoned."""
    closed = asyncio.Event()

    @atraced("items")
    async def body() -> AsyncGenerator[None]:
        try:
            with span("inner"):
                yield
        finally:
            await asyncio.sleep(0)
            closed.set()

    async def consumer() -> None:
        async for _ in body():
            break
        mark("consumer's")

    with span("a"):
        await asyncio.create_task(consumer())
        gc.collect()
        await closed.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            await task
        mark("later")
    assert traces.tree() == "a\n  items (closed)\n    inner (closed)\n  consumer's\n  later"
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_left_open_at_loop_shutdown(traces: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Still suspended when the loop ends: closed then, delivered, no line logged."""
    held = []

    async def main() -> None:
        held.append(items())
        await anext_of(held[0])

    asyncio.run(main())
    assert traces.tree() == "items (closed)\n  inside 0"
    assert not caplog.records


def test_loop_shutdown_of_one_that_awaits_in_finally(
    traces: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """The same when its `finally` takes a turn of the loop, for each of many."""
    ended = []

    @atraced("items")
    async def body() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def main() -> list[Any]:
        held = [body() for _ in range(20)]
        for generator in held:
            await anext_of(generator)
        return held

    asyncio.run(main())
    assert not caplog.records
    assert [(one.outcome, one.error) for one in traces.spans] == [("closed", 0)] * 20
    assert len(ended) == 20


async def test_cancelled_inside(traces: Recorder) -> None:
    """Cancelled while the generator's own code waits: cancelled, no error, the task ends cancelled."""
    waiting = asyncio.Event()

    @atraced("items")
    async def body() -> AsyncGenerator[None]:
        waiting.set()
        await asyncio.Event().wait()
        yield

    task = asyncio.create_task(to_the_end(body()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (traces.one("items").outcome, traces.one("items").error) == ("cancelled", 0)


async def test_work_started_inside(traces: Recorder) -> None:
    """A task that the body starts is below the generator, during it and after."""
    go = asyncio.Event()
    tasks = []

    async def work() -> None:
        await go.wait()
        mark("work")

    @atraced("items")
    async def body() -> AsyncGenerator[None]:
        tasks.append(asyncio.create_task(work()))
        yield

    await to_the_end(body())
    go.set()
    await tasks[0]
    assert traces.tree() == "items\n  work"


async def test_never_started(traces: Recorder) -> None:
    """A generator that is made and closed, or dropped, without a step has no span."""
    await items().aclose()
    plain().close()
    items()
    assert traces.spans == []


async def test_a_context_manager_made_of_one(traces: Recorder) -> None:
    """`@asynccontextmanager` over `@atraced`: the block is not inside, errors pass through it."""
    manager = contextlib.asynccontextmanager(atraced("manager")(_resource))
    with pytest.raises(KeyError):  # noqa: PT012 - what leaves the block is the point
        async with manager():
            mark("block's")
            raise KeyError
    assert traces.tree() == "manager (error)\n  release\nblock's"


async def _resource() -> AsyncGenerator[None]:
    try:
        yield
    finally:
        mark("release")


class Thing(Exception):
    """Something that can be weakly referenced, and thrown."""


@pytest.mark.parametrize("what", ["thrown", "sent", "yielded"])
async def test_a_suspended_generator_holds_nothing_more(what: str) -> None:
    """What went through a decorated generator is as free as it is without the decorator."""

    @atraced
    async def body() -> AsyncGenerator[Any, Any]:
        with contextlib.suppress(Thing):
            yield None
        yield Thing() if what == "yielded" else None

    generator = body()
    await anext_of(generator)
    gc.disable()
    try:
        thing = Thing()
        gone = weakref.ref(thing)
        if what == "yielded":
            gone = weakref.ref(await generator.asend(None))
        elif what == "sent":
            await generator.asend(thing)
        else:
            await generator.athrow(thing)
        del thing
        assert gone() is None
    finally:
        gc.enable()
        await generator.aclose()
