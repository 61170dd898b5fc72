"""Where a span goes: one rule of the provider a test."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from time import time_ns
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import Context, Span as DDSpan, tracer

from asynctrace import SpanContext, attached, current_span, detached, span, start_span, trace_id
from asynctrace._core.provider import LATE_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder


def there(number: int = 7) -> Context:
    return Context(trace_id=number, span_id=number + 1)


async def in_callback(step: Callable[[], Any]) -> None:
    """Run `step` from the loop, in a copy of this context."""
    done = asyncio.get_running_loop().create_future()

    def call() -> None:
        step()
        done.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    await done


def mark(name: str) -> None:
    with span(name):
        pass


def mark_and(name: str, then: Callable[[], object]) -> None:
    mark(name)
    then()


# -- owner and others


def test_the_owner_gets_back_what_was_active(traces: Recorder) -> None:
    """An ended span is popped for who opened it: the one around it is active again."""
    with span("a"):
        mark("b")
        mark("c")
    mark("d")
    assert traces.tree() == "a\n  b\n  c\nd"


async def test_others_inherit(traces: Recorder) -> None:
    """Work that outlives its parent stays below it: its first span and every later one."""
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        mark("first")
        await asyncio.sleep(0)
        mark("second")

    with span("outer"):
        with span("parent"):
            task = asyncio.create_task(work())
        mark("sibling")
    go.set()
    await task
    assert traces.tree() == "outer\n  parent\n    first\n    second\n  sibling"


async def test_grandchildren_inherit(traces: Recorder) -> None:
    """What late work starts, late in its turn, stays below the span it was started under."""
    go = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def grandchild() -> None:
        await go.wait()
        mark("grandchild's")

    async def child() -> None:
        with span("child's"):
            tasks.append(asyncio.create_task(grandchild()))

    with span("a"):
        task = asyncio.create_task(child())
    await task
    go.set()
    await tasks[0]
    assert traces.tree() == "a\n  child's\n    grandchild's"


async def test_work_started_by_late_work_is_in_the_trace(traces: Recorder) -> None:
    """Started late, with no span of its own in between, it has the same ended parent."""

    async def late() -> None:
        mark("late")

    async def later() -> None:
        await asyncio.create_task(late())

    with span("a"):
        task = asyncio.create_task(later())
    await task
    assert traces.tree() == "a\n  late"


async def test_late_work_starts_under_the_span_that_was_active_then(traces: Recorder) -> None:
    """Not under one that is opened, or still open, when the work runs."""
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        mark("work")

    with span("outer"):
        with span("inner"):
            task = asyncio.create_task(work())
        with span("other"):
            go.set()
            await task
    assert traces.tree() == "outer\n  inner\n    work\n  other"


def test_finished_out_of_order(traces: Recorder) -> None:
    """The outer one first: the inner one stays active until its own end, then nothing is."""
    outer, inner = start_span("outer"), start_span("inner")
    outer.finish()
    mark("below inner")
    inner.finish()
    assert current_span() is None
    mark("root")
    assert traces.tree() == "outer\n  inner\n    below inner\nroot"


@pytest.mark.parametrize("opened", [span, tracer.trace], ids=["ours", "ddtrace's"])
async def test_a_task_that_is_started_after_an_end_out_of_order(traces: Recorder, opened: Any) -> None:
    """It is below what is open, though nobody has asked what that is since the others ended."""

    async def work() -> None:
        mark("work")

    with span("a"):
        with opened("b"):
            late = start_span("late")
        late.finish()
        await asyncio.create_task(work())
    with span("c"):
        early = start_span("early")
        with opened("d"):
            early.finish()
        await asyncio.create_task(work())
    with span("e"):
        with opened("f"):
            late, later = start_span("late"), start_span("later")
        late.finish()
        later.finish()
        await asyncio.create_task(work())
    traces.assert_tree("""
        a
          b
            late
          work
        c
          early
            d
          work
        e
          f
            late
              later
          work
    """)


async def test_finished_in_another_task(traces: Recorder) -> None:
    """Its opener, when it looks next, has what was active before it."""
    with span("outer"):
        handle = start_span("handle")

        async def end() -> None:
            handle.finish()
            mark("after its end")

        await asyncio.create_task(end())
        mark("opener's")
    assert traces.tree() == "outer\n  handle\n  after its end\n  opener's"


def test_finished_in_a_thread(traces: Recorder) -> None:
    """The same across threads."""
    with span("outer"):
        handle = start_span("handle")
        thread = threading.Thread(target=handle.finish)
        thread.start()
        thread.join()
        mark("opener's")
    assert traces.tree() == "outer\n  handle\n  opener's"


def test_finished_in_a_copy_of_the_context(traces: Recorder) -> None:
    """Ended by the same thread or task, but in a copy of its context, its opener is not stuck with a dead parent."""

    def opener() -> None:
        with span("outer"):
            handle = start_span("handle")
            contextvars.copy_context().run(handle.finish)
            mark("opener's")
        mark("root")

    contextvars.Context().run(opener)
    assert traces.tree() == "outer\n  handle\n  opener's\nroot"


# -- copies of the context


def test_copy_context_keeps_the_parent(traces: Recorder) -> None:
    """`copy_context().run` runs under what was active when it was copied, ended or not."""
    with span("a"):
        context = contextvars.copy_context()
        context.run(mark, "early")
    context.run(mark, "late")
    context.run(mark, "later")
    assert traces.tree() == "a\n  early\n  late\n  later"


async def test_call_soon_and_call_later(traces: Recorder) -> None:
    """A callback belongs to the span it was scheduled under."""
    loop = asyncio.get_running_loop()
    called: asyncio.Queue[None] = asyncio.Queue()

    def ready() -> None:
        called.put_nowait(None)

    with span("a"):
        loop.call_soon(mark_and, "soon", ready)
        loop.call_later(0.001, mark_and, "later", ready)
        loop.call_at(loop.time() + 0.001, mark_and, "at", ready)
    for _ in range(3):
        await called.get()
    assert sorted(traces.tree().splitlines()) == ["  at", "  later", "  soon", "a"]


async def test_a_callback_of_a_callback(traces: Recorder) -> None:
    """A callback scheduled under another callback's span belongs to it, also when it ended elsewhere meanwhile."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def first() -> None:
        handle = start_span("a")
        loop.call_soon(mark_and, "late", lambda: done.set_result(None))
        contextvars.Context().run(handle.finish)

    loop.call_soon(first)
    await done
    assert traces.tree() == "a\n  late"


async def test_done_callbacks(traces: Recorder) -> None:
    """A done callback belongs to the span it was added under, not to the task it waits for."""

    async def work() -> None:
        mark("work")

    called = asyncio.Event()
    with span("a"):
        task = asyncio.create_task(work())
    with span("b"):
        task.add_done_callback(lambda _: mark_and("done", called.set))
    await called.wait()
    assert traces.tree() == "a\n  work\nb\n  done"


async def test_a_span_of_a_callback_does_not_leak(traces: Recorder) -> None:
    """What a callback leaves active is active nowhere else."""
    left: list[Any] = []
    await in_callback(lambda: left.append(start_span("left")))
    assert current_span() is None
    await in_callback(lambda: mark("other"))
    left[0].finish()
    assert traces.tree() == "left\nother"


# -- threads and loops


async def test_to_thread(traces: Recorder) -> None:
    """`to_thread` takes the span along, ended or not."""
    with span("a"):
        await asyncio.to_thread(mark, "thread's")
    assert traces.tree() == "a\n  thread's"


async def test_run_in_executor_in_a_copied_context(traces: Recorder) -> None:
    """A pool's thread works where the context says, and keeps nothing of it for the next job."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        with span("a"):
            await loop.run_in_executor(pool, contextvars.copy_context().run, mark, "job")
        assert await loop.run_in_executor(pool, current_span) is None
        await loop.run_in_executor(pool, mark, "next job")
    assert traces.tree() == "a\n  job\nnext job"


async def test_run_in_executor_under_an_attached_context(traces: Recorder) -> None:
    """`attached` carries a context into a pool's thread, and out of it again."""
    here = SpanContext.current

    def job(context: SpanContext) -> None:
        with attached(context):
            mark("job")
            mark("second")

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        with span("a"):
            await loop.run_in_executor(pool, job, here())
        assert await loop.run_in_executor(pool, current_span) is None
    assert traces.tree() == "a\n  job\n  second"


def test_a_new_thread_starts_empty(traces: Recorder) -> None:
    """A thread without a copied context has no parent."""
    with span("a"):
        thread = threading.Thread(target=mark, args=("thread's",))
        thread.start()
        thread.join()
    assert traces.tree() == "a\nthread's"


async def test_run_coroutine_threadsafe(traces: Recorder) -> None:
    """A coroutine handed to the loop from a thread belongs to the span of that thread."""
    loop = asyncio.get_running_loop()

    async def work() -> None:
        mark("work")

    def thread() -> None:
        with span("thread's"):
            asyncio.run_coroutine_threadsafe(work(), loop).result()

    await asyncio.to_thread(thread)
    assert traces.tree() == "thread's\n  work"


def test_two_loops_in_two_threads(traces: Recorder) -> None:
    """Loops that run side by side see nothing of each other."""
    both = threading.Barrier(2)

    async def main(name: str) -> None:
        with span(name):
            both.wait()
            await asyncio.gather(work(name), work(name))
            both.wait()

    async def work(name: str) -> None:
        with span(f"{name}'s"):
            await asyncio.sleep(0)

    threads = [threading.Thread(target=lambda name=name: asyncio.run(main(name))) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(traces.spans) == 6
    for name in "ab":
        root = traces.one(name)
        children = [s for s in traces.spans if s.name == f"{name}'s"]
        assert [(s.trace_id, s.parent_id) for s in children] == [(root.trace_id, root.span_id)] * 2


# -- attached, detached, ROOT


async def test_tasks_inherit_attached_and_detached(traces: Recorder) -> None:
    """A task started in such a block keeps what was active in it, after the block, too."""
    go = asyncio.Event()

    async def work(name: str) -> None:
        await go.wait()
        mark(name)

    with span("a"):
        here = SpanContext.current()
        with detached():
            tasks = [asyncio.create_task(work("detached"))]
            with attached(here):
                tasks.append(asyncio.create_task(work("attached")))
    go.set()
    await asyncio.gather(*tasks)
    assert traces.one("attached").parent_id == here.span_id
    assert traces.one("detached").parent_id is None
    assert traces.one("detached").trace_id != here.trace_id


async def test_tasks_under_a_new_trace(traces: Recorder) -> None:
    """What is started below `parent=ROOT` is below that new trace."""

    async def work() -> None:
        mark("work")

    with span("a"):
        with span("new", parent=SpanContext.ROOT):
            task = asyncio.create_task(work())
        await task
    assert traces.tree() == "a\nnew\n  work"


# -- ddtrace's spans


def test_spans_of_both_kinds_nest(traces: Recorder) -> None:
    """`tracer.trace()` below ours below `tracer.trace()`, and back."""
    with tracer.trace("1"), span("2"), tracer.trace("3"):
        mark("4")
        with tracer.trace("5"):
            pass
    with span("6"):
        pass
    assert traces.tree() == "1\n  2\n    3\n      4\n      5\n6"


def test_ddtrace_sees_a_real_span() -> None:
    """`tracer.current_span()` inside ours is one that can be tagged; `current_root_span` is its root."""
    with span("a") as a, span("b") as b:
        active = tracer.current_span()
        assert isinstance(active, DDSpan)
        active.set_tag("seen", "yes")
        assert active.span_id == b.span_id
        root = tracer.current_root_span()
        assert root is not None
        assert root.span_id == a.span_id
        assert trace_id() == f"{active.trace_id:032x}"


def test_current_span_is_ours_or_a_handle(traces: Recorder) -> None:
    """Inside ours it is that handle itself; inside ddtrace's one that reaches its span."""
    with span("a") as a:
        assert current_span() is a
    with tracer.trace("b") as b:
        handle = current_span()
        assert handle is not None
        assert (handle.name, handle.span_id, handle.trace_id) == ("b", b.span_id, b.trace_id)
        handle.set_tag("seen", "yes")
    assert traces.one("b").tags["seen"] == "yes"


async def test_the_rules_hold_for_ddtrace_spans(traces: Recorder) -> None:
    """Late work under `tracer.trace()` stays there, with spans of either kind, its owner goes on outside."""
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        with tracer.trace("late 1"):
            pass
        mark("late 2")

    with tracer.trace("outer"):
        with tracer.trace("inner"):
            task = asyncio.create_task(work())
        with tracer.trace("sibling"):
            pass
    go.set()
    await task
    assert traces.tree() == "outer\n  inner\n    late 1\n    late 2\n  sibling"


def test_a_context_ddtrace_activated_is_good_for_one_span(traces: Recorder) -> None:
    """As ddtrace has it: the request after next, on the same connection, does not join the trace."""
    provider = tracer.context_provider
    provider.activate(there())
    with span("a"):
        mark("b")
    mark("c")
    provider.activate(there(70))
    with tracer.trace("d"):
        pass
    mark("e")
    assert [traces.one(name).parent_id for name in "acde"] == [8, None, 71, None]
    assert traces.one("b").parent_id == traces.one("a").span_id


def test_activating_what_is_in_the_chain_makes_it_the_top(traces: Recorder) -> None:
    """`activate(span)` of one that is active further down is a return to it."""
    with span("a"):
        parent = tracer.current_span()
        inner = start_span("b")
        tracer.context_provider.activate(parent)
        mark("c")
        inner.finish()
        mark("d")
    assert current_span() is None
    assert traces.tree() == "a\n  b\n  c\n  d"


def test_activating_none_is_the_end(traces: Recorder) -> None:
    """`activate(None)` leaves nothing active, and an open span finishes as ever."""
    with span("a"):
        tracer.context_provider.activate(None)
        assert current_span() is None
        mark("b")
    mark("c")
    assert traces.tree() == "a\nb\nc"


def test_activating_many_contexts_keeps_only_the_last() -> None:
    """A connection that serves requests for ever holds none but the last request's context."""
    held = []
    for number in range(1, 50):
        context = there(number)
        held.append(weakref.ref(context))
        tracer.context_provider.activate(context)
    del context
    gc.collect()
    assert sum(ref() is not None for ref in held) == 1
    tracer.context_provider.activate(None)


# -- time and memory


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nanoseconds the provider's clock is ahead; set [0] to change them."""
    ahead = [0]
    monkeypatch.setattr("asynctrace._core.provider.time_ns", lambda: time_ns() + ahead[0])
    return ahead


async def test_after_ten_minutes_a_new_trace(traces: Recorder, clock: list[int]) -> None:
    """Late work is below what ended up to ten minutes ago; what is later starts traces of its own, with a link."""
    steps: asyncio.Queue[str] = asyncio.Queue()

    async def work() -> None:
        while name := await steps.get():
            mark(name)
            steps.task_done()

    async def step(name: str) -> None:
        steps.put_nowait(name)
        await steps.join()

    with span("a"):
        task = asyncio.create_task(work())
    clock[0] = LATE_NS - 10**9
    await step("in time")
    clock[0] = LATE_NS + 10**9
    await step("too late")
    await step("again")
    steps.put_nowait("")
    await task
    assert traces.tree() == "a\n  in time\ntoo late\nagain"
    for name in ("too late", "again"):
        assert [link.span_id for link in traces.one(name).links] == [traces.one("a").span_id]


async def test_late_spans_of_ddtrace_have_the_link_too(traces: Recorder, clock: list[int]) -> None:
    """Whoever opens them; what was detached has nothing to be linked to."""
    go = asyncio.Event()

    async def work(name: str) -> None:
        await go.wait()
        tracer.trace(name).finish()

    with tracer.trace("a"):
        tasks = [asyncio.create_task(work("late"))]
        with detached():
            tasks.append(asyncio.create_task(work("free")))
    clock[0] = LATE_NS + 10**9
    go.set()
    await asyncio.gather(*tasks)
    assert traces.tree() == "a\nlate\nfree"
    assert [link.span_id for link in traces.one("late").links] == [traces.one("a").span_id]
    assert not traces.one("free").links


async def test_an_open_span_has_no_limit(traces: Recorder, clock: list[int]) -> None:
    """Ten minutes count from the end: what is open stays the parent for as long as it takes."""
    with span("a"):
        clock[0] = 10 * LATE_NS
        await asyncio.create_task(asyncio.to_thread(mark, "b"))
    assert traces.tree() == "a\n  b"


class Request:
    """Something big that a request's handler holds."""


async def handled_with(how: str) -> None:
    if how == "ours":
        with span("a"), span("b"):
            await asyncio.sleep(0)
    elif how == "ddtrace":
        with tracer.trace("a"), tracer.trace("b"):
            await asyncio.sleep(0)
    elif how == "out of order":
        first, second = start_span("a"), start_span("b")
        first.finish()
        second.finish()
    elif how == "attached":
        with attached(SpanContext(there())), span("a"):
            await asyncio.sleep(0)
    elif how == "activated":
        tracer.context_provider.activate(there())
        with span("a"):
            await asyncio.sleep(0)
    elif how == "background work":
        with span("a"):
            asyncio.get_running_loop().call_later(3600, mark, "never").cancel()
            background.append(contextvars.copy_context())
    elif how == "error":
        with pytest.raises(ValueError), span("a"):
            raise ValueError
    elif how == "handle":
        handles.append(start_span("a"))


background: list[contextvars.Context] = []
handles: list[Any] = []


@pytest.mark.parametrize(
    "how",
    [*("ours", "ddtrace", "out of order", "attached", "activated", "background work", "error"), "handle"],
)
async def test_requests_and_tasks_die_without_gc(how: str) -> None:
    """When a task has ended, it and what it held are freed at once."""
    kept: list[weakref.ref[Any]] = []

    async def handle(request: Request) -> None:
        kept.append(weakref.ref(request))
        await handled_with(how)

    gc.collect()
    gc.disable()
    try:
        task = asyncio.create_task(handle(Request()))
        await task
        for handle_left in handles:
            handle_left.finish()
        handles.clear()
        kept.append(weakref.ref(task))
        del task
        await asyncio.sleep(0)
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()
        background.clear()
