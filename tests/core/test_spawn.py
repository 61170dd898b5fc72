"""Work that nobody waits for, and things that must not belong to whoever starts them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace import UsageError, current_span, isolated, span, spawn
from asynctrace._tasks import _running
from asynctrace.queues import TracedQueue

if TYPE_CHECKING:
    from asynctrace.testing import Recorder

user_variable: contextvars.ContextVar[Any] = contextvars.ContextVar("user_variable", default=None)


async def test_a_spawned_task_stays_in_its_trace(traces: Recorder) -> None:
    """Its first span and every later one hang from the span it was started under, which has ended meanwhile."""
    go = asyncio.Event()

    async def work() -> str:
        await go.wait()
        with span("first"), span("inner"):
            pass
        with span("second"):
            return "done"

    with span("outer"), span("request"):
        task = spawn(work(), name="worker")
    go.set()
    assert (await task, task.get_name()) == ("done", "worker")
    assert traces.tree() == "outer\n  request\n    first\n      inner\n    second"


async def test_a_linked_task_is_a_trace_of_its_own(traces: Recorder) -> None:
    """`relation="link"`: a new trace under a span of that name, linked to the one it was started under."""

    async def work() -> None:
        with span("inner"):
            await asyncio.sleep(0)

    with span("request"):
        task = spawn(work(), name="clean up", relation="link")
        assert current_span() is not None
    await task
    assert traces.tree() == "request\nclean up\n  inner"
    request, own = traces.one("request"), traces.one("clean up")
    assert [(link.trace_id, link.span_id) for link in own.links] == [(request.trace_id, request.span_id)]
    assert own.trace_id != request.trace_id


async def test_a_linked_tasks_span_is_its_own(traces: Recorder) -> None:
    """It stays the parent of work on what the task receives, as every span of the task's own does."""
    queue: TracedQueue[int] = TracedQueue()

    async def work() -> None:
        await queue.get()
        with span("inner"):
            pass

    with span("producer"):
        queue.put_nowait(1)
    await spawn(work(), name="worker", relation="link")
    assert traces.tree() == "producer\nworker\n  inner"


@pytest.mark.parametrize("relation", ["child", "link"])
async def test_an_exception_is_logged(
    relation: Any, traces: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What a task raises that nobody waits for is logged once, and its own span is an error."""

    async def fail() -> None:
        raise ValueError("no tea")

    task = spawn(fail(), name="failing", relation=relation)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["task failing failed"]
    if relation == "link":
        assert (traces.one("failing").outcome, traces.one("failing").error) == ("error", 1)


async def test_a_cancelled_task_is_no_error(traces: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Cancelled before its first step or later: outcome cancelled, nothing logged, no warning."""
    started = asyncio.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    early, late = (spawn(wait(), name=name, relation="link") for name in ("early", "late"))
    early.cancel()
    await started.wait()
    late.cancel()
    await asyncio.wait([early, late])
    await asyncio.sleep(0)
    assert [(one.outcome, one.error) for one in traces.spans] == [("cancelled", 0)] * 2
    assert not caplog.records


async def test_a_spawned_task_is_kept_alive_and_let_go() -> None:
    """A loop holds its tasks weakly; this one is held until it ends, and no longer."""
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(gate: asyncio.Future[None]) -> None:
        await gate

    task = spawn(work(gate))
    gone = weakref.ref(task)
    del task
    gc.collect()
    assert gone() is not None
    gate.set_result(None)
    while _running:
        await asyncio.sleep(0)
    assert gone() is None


async def test_isolated_is_in_an_empty_context(traces: Recorder) -> None:
    """What it opens belongs to no trace and sees no variable, nor do the tasks it starts; its result comes back."""
    later: list[asyncio.Task[Any]] = []

    async def reader() -> tuple[Any, Any]:
        with span("read"):
            await asyncio.sleep(0)
        return current_span(), user_variable.get()

    async def connect() -> str:
        later.append(asyncio.create_task(reader()))
        return "connection"

    user_variable.set("mine")
    with span("request"):
        assert await isolated(connect()) == "connection"
        assert await later[0] == (None, None)
    assert traces.tree() == "request\nread"


async def test_isolated_passes_exceptions_and_cancellation() -> None:
    """The coroutine's exception is the caller's; cancelling the caller cancels it."""
    cancelled = asyncio.Event()
    waiting = asyncio.Event()

    async def fail() -> None:
        raise KeyError("mine")

    async def wait() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyError, match="mine"):
        await isolated(fail())
    caller = asyncio.create_task(isolated(wait()))
    await waiting.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert cancelled.is_set()


async def test_what_is_no_coroutine_is_refused() -> None:
    """A clear error, and no coroutine left unawaited."""

    async def work() -> None: ...

    wrong: Any = work
    with pytest.raises(UsageError, match=r"spawn\(\) needs a coroutine"):
        spawn(wrong)
    with pytest.raises(UsageError, match=r"isolated\(\) needs a coroutine"):
        await isolated(wrong)
    wrong = "sibling"
    with pytest.raises(UsageError, match="relation="):
        spawn(work(), relation=wrong)
