"""Who cancelled: `async.cancel.*` on spans that were cut short, told without a task factory."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asynctrace import atraced, span, spawn
from asynctrace.testing import Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

stock: Any = asyncio  # what is new in 3.11 is unknown to mypy, which checks for 3.10

needs_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="task groups are new in 3.11")


@atraced("cut")
async def cut() -> None:
    """Waits until it is cancelled."""
    await asyncio.get_running_loop().create_future()


@atraced("other")
async def other_cut() -> None:
    await asyncio.get_running_loop().create_future()


async def cancelled(task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await task


def source(traces: Recorder, name: str = "cut") -> object:
    found = traces.one(name)
    assert (found.outcome, found.error) == ("cancelled", 0)
    return found.tags.get("async.cancel.source")


async def test_a_deadline_that_leaves_a_span_told_what_it_cut_short(traces: Recorder) -> None:
    """The span that the TimeoutError leaves is the error; the one below was cancelled, by the deadline."""
    with pytest.raises(asyncio.TimeoutError), span("request"):
        await asyncio.wait_for(cut(), 0.01)
    assert source(traces) == "timeout"
    assert traces.one("request").outcome == "timeout"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in 3.11")
@pytest.mark.parametrize("depth", ["directly", "in a task", "in a gather"])
async def test_a_deadline_caught_in_place_is_told(
    traces: Recorder, installed: Callable[..., None], depth: str
) -> None:
    """With the integration, no span need see the TimeoutError; tasks awaited under the deadline say so, too."""
    installed("cancellation")
    work: dict[str, Callable[[], Awaitable[object]]] = {
        "directly": cut,
        "in a task": lambda: asyncio.create_task(cut()),
        "in a gather": lambda: asyncio.gather(cut()),
    }
    with span("request"):
        try:
            async with stock.timeout(0.01):
                await work[depth]()
        except TimeoutError:
            pass
    assert source(traces) == "timeout"
    assert traces.one("request").outcome == "ok"


async def test_wait_for_caught_in_place_is_told(traces: Recorder, installed: Callable[..., None]) -> None:
    """The same for `wait_for`, on every Python."""
    installed("cancellation")
    with span("request"), pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(cut(), 0.01)
    assert source(traces) == "timeout"


async def test_wait_for_that_is_cancelled_itself_blames_no_deadline(
    traces: Recorder, installed: Callable[..., None]
) -> None:
    """Its own helper cancels the work then, too."""
    installed("cancellation")
    task = asyncio.create_task(asyncio.wait_for(cut(), 60))
    await traces.wait_for(lambda recorder: recorder.open)
    task.cancel()
    await cancelled(task)
    assert source(traces) is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in 3.11")
async def test_a_deadline_that_is_over_is_blamed_for_nothing_later(
    traces: Recorder, installed: Callable[..., None]
) -> None:
    """The task goes on after its TimeoutError; who cancels it then, is somebody else."""
    installed("cancellation")
    late = asyncio.Event()

    async def work() -> None:
        with contextlib.suppress(TimeoutError):
            async with stock.timeout(0):
                await asyncio.sleep(60)
        late.set()
        await cut()

    task = asyncio.create_task(work())
    await late.wait()
    task.cancel()
    await cancelled(task)
    assert source(traces) is None


@needs_groups
async def test_a_failed_sibling_is_named(traces: Recorder) -> None:
    """Members of a task group that gives up know which exception it was."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(BaseException):  # noqa: B017, PT012 - the group is not the matter here
        async with stock.TaskGroup() as group:
            group.create_task(cut())
            group.create_task(fail())
    assert source(traces) == "sibling_failed"
    assert traces.one("cut").tags["async.cancel.cause"] == "builtins.KeyError"


@needs_groups
@pytest.mark.parametrize("how", ["seen by a span", "installed"])
async def test_the_body_of_a_group_with_a_failed_member_is_told(
    traces: Recorder, installed: Callable[..., None], how: str
) -> None:
    """The body is cancelled as a member is: told when the group leaves a span, or by the integration."""
    if how == "installed":
        installed("cancellation")

    async def fail() -> None:
        raise KeyError

    async def group_of_two() -> None:
        async with stock.TaskGroup() as group:
            group.create_task(fail())
            await cut()

    outer = span("request") if how == "seen by a span" else contextlib.nullcontext()
    with pytest.raises(BaseException), outer:  # noqa: B017
        await group_of_two()
    assert source(traces) == "sibling_failed"
    assert traces.one("cut").tags["async.cancel.cause"] == "builtins.KeyError"


@needs_groups
async def test_members_of_a_cancelled_group_blame_no_sibling(traces: Recorder) -> None:
    """Nobody failed: the task that runs the group was cancelled from outside."""

    async def group_of_one() -> None:
        async with stock.TaskGroup() as group:
            group.create_task(cut())

    task = asyncio.create_task(group_of_one())
    await traces.wait_for(lambda recorder: recorder.open)
    task.cancel()
    await cancelled(task)
    assert source(traces) is None


@needs_groups
async def test_members_below_a_deadline_name_the_deadline(
    traces: Recorder, installed: Callable[..., None]
) -> None:
    """What is below is asked through the group's own task."""
    installed("cancellation")
    with contextlib.suppress(TimeoutError):
        async with stock.timeout(0.01), stock.TaskGroup() as group:
            group.create_task(cut())
    assert source(traces) == "timeout"


async def test_a_cancel_scope_is_told_and_its_deadline_a_timeout(traces: Recorder) -> None:
    """Anyio says it in the cancellation's message."""
    with anyio.move_on_after(0.01):
        await cut()
    assert source(traces) == "timeout"
    assert traces.one("cut").tags["async.cancel.message"] == "deadline exceeded"
    traces.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(cut)
        await traces.wait_for(lambda recorder: recorder.open)
        group.cancel_scope.cancel("enough")
    assert source(traces) == "cancel_scope"
    assert traces.one("cut").tags["async.cancel.message"] == "enough"


async def test_the_message_of_a_cancellation_is_kept(traces: Recorder) -> None:
    """`task.cancel("why")`, cut to 200 characters; a plain `cancel()` names nobody."""
    for message in ("client gone", "x" * 1000, None):
        task = asyncio.create_task(cut())
        await traces.wait_for(lambda recorder: recorder.open)
        task.cancel(message)
        await cancelled(task)
        assert source(traces) is None
        assert traces.one("cut").tags.get("async.cancel.message") == (message and message[:200])
        traces.clear()


def test_the_end_of_the_loop_is_told() -> None:
    """Tasks that `asyncio.run` cancels at its end, awaited and background ones."""

    async def main() -> None:
        spawn(cut())
        await traces.wait_for(lambda recorder: recorder.open)

    with Recorder() as traces:
        asyncio.run(main())
    assert source(traces) == "loop_shutdown"


@needs_groups
async def test_an_awaited_future_that_was_cancelled_is_told(traces: Recorder) -> None:
    """Nobody asked the task itself to stop."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    with pytest.raises(asyncio.CancelledError), span("cut"):
        await future
    assert source(traces) == "awaited"


async def test_a_cancelled_future_of_a_thread_is_no_error(traces: Recorder) -> None:
    """`concurrent.futures` has a CancelledError of its own."""
    import concurrent.futures

    with pytest.raises(concurrent.futures.CancelledError), span("cut"):
        raise concurrent.futures.CancelledError
    assert traces.one("cut").outcome == "cancelled"


async def test_what_was_cancelled_is_let_go_of(traces: Recorder, installed: Callable[..., None]) -> None:
    """Neither task nor exception lives on in our notes."""
    installed("cancellation")
    gc.collect()
    gc.disable()
    try:
        task = asyncio.create_task(cut())
        await traces.wait_for(lambda recorder: recorder.open)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(task, 0.01)
        gone = weakref.ref(task)
        del task
        await asyncio.sleep(0)
        from asynctrace._core import cancel

        assert gone() is None
        waiter = asyncio.current_task()  # lives on; since 3.12 the deadline is noted as its own
        assert set(cancel._asked) <= {waiter}
        assert not cancel._unexplained
    finally:
        gc.enable()


@needs_groups
async def test_the_leaf_types_of_a_group_are_a_tag(traces: Recorder) -> None:
    """However deep, each with how often."""
    group: Any = vars(builtins)["ExceptionGroup"]
    inner = group("inner", [KeyError(), ValueError()])
    with pytest.raises(group), span("request"):
        raise group("outer", [ValueError(), inner])
    assert traces.one("request").tags["async.error.leaves"] == "builtins.ValueError x2, builtins.KeyError"


@needs_groups
async def test_the_leaf_types_of_a_great_group(traces: Recorder) -> None:
    """A hundred of its exceptions are looked at."""
    group: Any = vars(builtins)["ExceptionGroup"]
    with pytest.raises(group), span("request"):
        raise group("many", [KeyError()] * 1000)
    assert traces.one("request").tags["async.error.leaves"] == "builtins.KeyError x100"


@needs_groups
async def test_a_tower_of_groups(traces: Recorder, installed: Callable[..., None]) -> None:
    """Whoever is cancelled below a deadline is told, through as many groups as are followed: fifty."""
    installed("cancellation")

    async def storey(number: int) -> None:
        async with stock.TaskGroup() as group:
            group.create_task(storey(number - 1) if number else cut())

    for storeys in (10, 60):
        with span("request"), contextlib.suppress(TimeoutError):
            async with stock.timeout(0.05):
                await storey(storeys)
    told = [one.tags.get("async.cancel.source") for one in traces.spans if one.name == "cut"]
    assert told == ["timeout", None]


@needs_groups
async def test_a_deadline_over_many_is_not_blamed_for_another(
    traces: Recorder, installed: Callable[..., None]
) -> None:
    """What a great gather waits for is looked through to a bound; who is not in it, was cancelled by somebody else."""
    installed("cancellation")
    other = asyncio.create_task(other_cut())

    async def cancels_the_other() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            other.cancel()
            await cancelled(other)

    with contextlib.suppress(TimeoutError):
        async with stock.timeout(0.05):
            await asyncio.gather(cancels_the_other(), *(cut() for _ in range(60)))
    assert source(traces, "other") is None
    assert {one.tags.get("async.cancel.source") for one in traces.spans if one.name == "cut"} == {"timeout"}


async def test_a_stack_is_bounded(traces: Recorder) -> None:
    """However long the chain of exceptions is; its end, which says most, is kept."""

    def deep(number: int) -> int:
        try:
            return 1 // number
        except ZeroDivisionError:
            return deep(number)

    with pytest.raises(RecursionError), span("request"):
        deep(0)
    stack = traces.one("request").tags["error.stack"]
    assert len(stack) <= 16_000
    assert "RecursionError: maximum recursion depth exceeded" in stack[-200:]
