"""Every way asyncio and anyio start work: below the span it was started under."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from asynctrace import atraced, current_span, span, start_span

if TYPE_CHECKING:
    from asynctrace._core.span import Span
    from asynctrace.testing import Recorder


@atraced("work")
async def work(turns: int = 1) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    with span("inner"):
        await asyncio.sleep(0)
    return turns


@atraced("wait")
async def wait() -> None:
    await asyncio.Event().wait()


def below(name: str, *lines: str) -> str:
    return "\n".join([name, *(f"  {line}" for line in lines)])


TWICE = below("a", "work", "  inner", "work", "  inner")


async def test_awaited(traces: Recorder) -> None:
    """A coroutine that is awaited runs in place: one after the other, siblings."""
    with span("a"):
        await work()
        await work()
    assert traces.tree() == TWICE


async def test_gather(traces: Recorder) -> None:
    """Side by side, each below the span around, and each with its own children."""
    with span("a"):
        assert list(await asyncio.gather(work(1), work(2))) == [1, 2]
    assert traces.tree() == TWICE


async def test_create_task_and_ensure_future(traces: Recorder) -> None:
    """Where the task is created counts, not where it is awaited."""
    with span("a"):
        tasks = [asyncio.create_task(work()), asyncio.ensure_future(work())]
    with span("b"):
        await tasks[0]
        await tasks[1]
    assert traces.tree() == f"{TWICE}\nb"


async def test_wait_and_as_completed(traces: Recorder) -> None:
    """Both wait for work where it is."""
    with span("a"):
        tasks = [asyncio.create_task(work(3)), asyncio.create_task(work(1))]
        await asyncio.wait(tasks)
        assert current_span() is not None
        for done in asyncio.as_completed([work(2), work(1)]):
            await done
            with span("completed"):
                pass
    tree = traces.tree().splitlines()
    assert sorted(tree) == sorted(["a", *["  work", "    inner"] * 4, *["  completed"] * 2])


async def test_wait_for(traces: Recorder) -> None:
    """In time: below the span around. Too late: the work is cancelled, the span around times out."""
    with span("a"):
        await asyncio.wait_for(work(), 10)
    with pytest.raises(asyncio.TimeoutError), span("b"):
        await asyncio.wait_for(wait(), 0.01)
    assert traces.tree() == "a\n  work\n    inner\nb (timeout)\n  wait (cancelled)"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in 3.11")
async def test_timeout(traces: Recorder) -> None:
    """`asyncio.timeout` the same, in the task itself; caught inside, it is no outcome at all."""
    if sys.version_info >= (3, 11):
        with pytest.raises(TimeoutError), span("a"):
            async with asyncio.timeout(0.01):
                await wait()
        with span("b"):
            try:
                async with asyncio.timeout(0.01):
                    await wait()
            except TimeoutError:
                pass
    assert traces.tree() == "a (timeout)\n  wait (cancelled)\nb\n  wait (cancelled)"


async def test_shield(traces: Recorder) -> None:
    """What is shielded goes on when its caller is cancelled, and stays in its trace."""
    started, go = asyncio.Event(), asyncio.Event()
    inner: list[asyncio.Task[None]] = []

    async def shielded() -> None:
        started.set()
        await go.wait()
        with span("late"):
            pass

    async def caller() -> None:
        with span("a"):
            inner.append(asyncio.create_task(shielded()))
            await asyncio.shield(inner[0])

    task = asyncio.create_task(caller())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await inner[0]
    assert traces.tree() == "a (cancelled)\n  late"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in 3.11")
async def test_task_group(traces: Recorder) -> None:
    """Tasks of a group are below the span they are created in; a failed sibling cancels, and that is no error."""
    if sys.version_info >= (3, 11):

        @atraced("fail")
        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError

        with span("a"):
            async with asyncio.TaskGroup() as group:
                group.create_task(work())
                with span("b"):
                    group.create_task(work())
        with pytest.raises(ExceptionGroup), span("c"):  # noqa: F821, PT012 - the guard above; the group
            async with asyncio.TaskGroup() as group:
                group.create_task(wait())
                group.create_task(fail())
    assert traces.tree().splitlines() == [
        *("a", "  b", "    work", "      inner", "  work", "    inner"),
        *("c (error)", "  wait (cancelled)", "  fail (error)"),
    ]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
async def test_eager_tasks(traces: Recorder) -> None:
    """A task that runs at once, inside its creator's step, leaves its creator's span active."""
    if sys.version_info >= (3, 12):
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 13) and type(loop).__module__.startswith("uvloop"):
            pytest.skip("uvloop hands eager_start to the factory, which Python 3.13.0 refuses")
        loop.set_task_factory(asyncio.eager_task_factory)
        with span("a") as a:
            tasks = [asyncio.create_task(work(0)), asyncio.create_task(work())]
            assert current_span() is a
            with span("b"):
                pass
        await asyncio.gather(*tasks)
        loop.set_task_factory(None)
        assert sorted(traces.tree().splitlines()) == sorted(
            ["a", "  work", "    inner", "  work", "    inner", "  b"]
        )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="create_task(context=) is new in 3.11")
async def test_an_explicit_context_wins(traces: Recorder) -> None:
    """`create_task(context=...)`: what is active there, not here."""
    if sys.version_info >= (3, 11):
        with span("there"):
            context = contextvars.copy_context()
        with span("here"):
            await asyncio.create_task(work(), context=context)
            await asyncio.create_task(work(), context=contextvars.Context())
    roots = [line for line in traces.tree().splitlines() if not line.startswith(" ")]
    assert roots == ["there", "here", "work"]
    assert traces.tree().startswith("there\n  work\n    inner\n")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="create_task(context=) is new in 3.11")
async def test_a_context_shared_by_two_tasks(traces: Recorder) -> None:
    """A task in its creator's own context, one after the other: each pops what it opened."""
    if sys.version_info >= (3, 11):
        context = contextvars.copy_context()
        await asyncio.create_task(work(), context=context)
        assert context.run(current_span) is None
        await asyncio.create_task(work(), context=context)
    assert traces.tree() == "work\n  inner\nwork\n  inner"


async def test_a_task_cancelled_before_its_first_step(traces: Recorder) -> None:
    """It has no span, and nobody is warned of a coroutine that was never awaited."""
    with span("a"):
        task = asyncio.create_task(work())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert traces.tree() == "a"


@pytest.mark.parametrize("deep", [1, 2])
async def test_a_span_that_is_handed_on_and_outlives_those_above(deep: int, traces: Recorder) -> None:
    """Whoever ends it goes on with what was active when it was opened, though that has ended meanwhile."""
    over = asyncio.Event()

    async def finisher(handed: Span) -> None:
        await over.wait()
        handed.finish()
        with span("after"):
            pass

    async def request() -> asyncio.Task[None]:
        with span("request"), contextlib.ExitStack() as stack:
            for _ in range(deep - 1):
                stack.enter_context(span("inside"))
            return asyncio.create_task(finisher(start_span("upload")))

    task = await request()
    over.set()
    await task
    inside = "  " * (deep - 1)
    assert traces.tree() == "request\n" + "  inside\n" * (deep - 1) + f"{inside}  upload\n{inside}  after"


async def test_many_at_once_do_not_mix(traces: Recorder) -> None:
    """A hundred requests, interleaved: every span in its own."""

    async def request(number: int) -> None:
        with span(f"request {number}"):
            await asyncio.gather(*(work(number % 5) for _ in range(3)))

    await asyncio.gather(*(request(number) for number in range(100)))
    roots = {one.trace_id: one for one in traces.spans if one.parent_id is None}
    assert len(roots) == 100
    by_id = {one.span_id: one for one in traces.spans}
    for one in traces.spans:
        if one.name == "work":
            assert one.parent_id == roots[one.trace_id].span_id
        elif one.name == "inner":
            assert one.parent_id is not None
            assert by_id[one.parent_id].name == "work"
    assert len(traces.spans) == 100 * 7


# -- anyio


async def test_anyio_task_group(traces: Recorder) -> None:
    """`start_soon` and `start`: below the span they are called in."""

    async def started(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with span("starting"):
            task_status.started()

    with span("a"):
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await group.start(started)
    assert sorted(traces.tree().splitlines()) == ["    inner", "  starting", "  work", "a"]


async def test_anyio_cancel_scope(traces: Recorder) -> None:
    """A scope that gives up cancels what is inside: cancelled, no error, and the span around is ok."""
    with span("a"), anyio.move_on_after(0.01):
        await wait()
    with pytest.raises(TimeoutError), span("b"), anyio.fail_after(0.01):
        await wait()
    assert traces.tree() == "a\n  wait (cancelled)\nb (timeout)\n  wait (cancelled)"


async def test_anyio_threads(traces: Recorder) -> None:
    """Into a worker thread and back to the loop, in one trace."""

    def thread() -> None:
        with span("thread's"):
            anyio.from_thread.run(work)

    with span("a"):
        await anyio.to_thread.run_sync(thread)
    assert traces.tree() == "a\n  thread's\n    work\n      inner"


async def test_a_connection_that_races_several_addresses(traces: Recorder) -> None:
    """anyio tries them side by side, in a group that it cancels: that works in a span as outside, and is no error."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for name in ("first", "second"):
            with span(name):
                stream = await anyio.connect_tcp("localhost", port, happy_eyeballs_delay=0)
                await stream.aclose()
    assert traces.tree() == "first\nsecond"
