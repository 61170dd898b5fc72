"""What ddtrace does at the end of a trace is done by a thread, and nobody can tell but by the clock."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import Span as DDSpan, TraceFilter, tracer

from asynctrace import SpanContext, attached, shutdown, span, start_span
from asynctrace._core import handover as module, lean
from asynctrace._core.early import MOST_AHEAD
from asynctrace._core.handover import MOST, Handover, handover
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctrace.testing import Recorder
    from tests.sink import Sink


class Theirs(TraceFilter):
    """A user's filter: remembers what it has seen, in which thread, and how many spans at a time."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[int] = set()
        self.chunks: list[int] = []
        self.came = threading.Condition()

    def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
        with self.came:
            self.names += [one.name for one in trace]
            self.chunks.append(len(trace))
            self.threads.add(threading.get_ident())
            self.came.notify_all()
        return trace


@pytest.fixture
def theirs() -> Iterator[Theirs]:
    one = Theirs()
    tracer.configure(trace_processors=[one])
    yield one
    tracer.configure(trace_processors=[])


@pytest.fixture
def alone() -> Iterator[None]:
    """The thread does nothing meanwhile."""
    if not lean.may_wait():
        pytest.skip("with ASYNCTRACE_LEAN=0 nothing waits")
    with span("first"):  # it runs
        pass
    assert handover.hold()
    handover.finish()
    handover.look()
    yield
    handover.release()


def test_whoever_ends_a_trace_does_not_hand_it_over(theirs: Theirs) -> None:
    """Another thread does, by itself and soon: filters run there."""
    if not lean.may_wait():
        pytest.skip("with ASYNCTRACE_LEAN=0 nothing waits")
    with span("a"):
        pass
    with span("b"), span("below"):
        pass
    with theirs.came:
        assert theirs.came.wait_for(lambda: len(theirs.names) == 3, 5)
    assert theirs.names == ["a", "b", "below"]
    assert threading.get_ident() not in theirs.threads


@pytest.mark.usefixtures("alone")
def test_for_everybody_else_it_has_ended() -> None:
    """Its duration is what it took, nothing is active, and ending it again does nothing."""
    with span("a") as a:
        dd = tracer.current_span()
    assert dd is not None
    assert dd.finished
    ended_ns = a.ended_ns
    assert ended_ns == dd.start_ns + (dd.duration_ns or 0) > dd.start_ns
    assert tracer.current_span() is None
    a.finish()
    dd.finish()
    assert [one for _, one in handover.waiting if one is dd] == [dd]
    assert a.ended_ns == ended_ns


def test_a_start_that_is_to_come_makes_no_negative_duration() -> None:
    """The wall clock may have been stepped back since."""
    here = Handover()
    dd = DDSpan("a")
    assert here.add(dd, dd.start_ns - 1000)
    assert dd.duration_ns == 1


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("way", ["flush", "shutdown", "configure", "recorder"])
def test_whoever_wants_all_has_all(way: str, theirs: Theirs, traces: Recorder) -> None:
    """`tracer.flush()`, `shutdown()`, new filters and a look at what was recorded: what has ended goes first."""
    with span("a"):
        pass
    assert theirs.names == []
    if way == "flush":
        tracer.flush()  # type: ignore[no-untyped-call]
    elif way == "shutdown":
        asyncio.run(unheld(shutdown()))
    elif way == "configure":
        tracer.configure(trace_processors=[])
    else:
        assert traces.names() == {"a"}
    assert theirs.names == ["a"]


def test_the_one_in_hand_is_waited_for(traces: Recorder) -> None:
    """Nothing waits any more, but the thread is not done with the last one: whoever wants all waits for that."""
    if not lean.may_wait():
        pytest.skip("with ASYNCTRACE_LEAN=0 nothing waits")
    seen, goes_on = threading.Event(), threading.Event()

    class Slow(TraceFilter):
        def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
            seen.set()
            goes_on.wait(0.5)  # less than anybody waits for the thread
            return trace

    tracer.configure(trace_processors=[Slow()])
    try:
        with span("a"):
            pass
        assert seen.wait(5)
        assert not handover.waiting
        threading.Timer(0.05, goes_on.set).start()
        assert traces.names() == {"a"}
    finally:
        goes_on.set()
        tracer.configure(trace_processors=[])


async def unheld(what: Any) -> None:
    """Waits for what another thread is to do."""
    handover.release()
    try:
        assert await what
    finally:
        assert handover.hold()


@pytest.mark.usefixtures("alone")
def test_where_the_thread_cannot_keep_up(theirs: Theirs) -> None:
    """So many wait and no more: who ends another one hands it over, and none is lost."""
    for _ in range(MOST + 3):
        with span("a"):
            pass
    assert (len(handover.waiting), len(theirs.names)) == (MOST, 3)
    handover.finish()
    assert len(theirs.names) == MOST + 3


@pytest.mark.usefixtures("alone")
def test_what_ends_meanwhile_goes_along(theirs: Theirs, traces: Recorder) -> None:
    """Records that end after their root, and those begun below it since, leave with it while it waits."""
    with span("root"):
        here = SpanContext.current()
        late = start_span("late")
    with attached(here), span("later"):
        pass
    late.finish()
    handover.finish()
    assert (sorted(theirs.names), theirs.chunks) == (["late", "later", "root"], [3])
    assert traces.tree() == "root\n  late\n  later"


@pytest.mark.usefixtures("alone")
def test_a_decision_that_comes_late_is_in_time(traces: Recorder) -> None:
    """Whoever passes the context on while the root waits, decides for all of the trace."""
    with span("root"), span("below"):
        here = SpanContext.current()
    tracer.sample(handover.waiting[-1][1])  # type: ignore[no-untyped-call]
    headers = here.inject({})
    assert headers["x-datadog-sampling-priority"] == "1"
    assert {one.tags.get("_sampling_priority_v1") for one in traces.spans} <= {1, None}


@pytest.mark.usefixtures("alone")
def test_switched_off_since(theirs: Theirs) -> None:
    """What ended while the tracer was on, is handed over."""
    with span("a"), span("below"):
        pass
    tracer.enabled = False
    try:
        handover.finish()
    finally:
        tracer.enabled = True
    assert theirs.names == ["a", "below"]


@pytest.mark.usefixtures("alone")
def test_somebody_who_waits_for_ends(theirs: Theirs) -> None:
    """The profiler, say: it is told where and when a span ends."""
    from ddtrace.internal import core as events

    core: Any = events

    threads = []

    def ended(_: DDSpan) -> None:
        threads.append(threading.get_ident())

    core.on("trace.span_finish", ended, "test")
    try:
        with span("a"):
            pass
    finally:
        core.reset_listeners("trace.span_finish", ended)
    assert threads == [threading.get_ident()]
    assert theirs.names == ["a"]


@pytest.mark.usefixtures("alone")
def test_another_context_provider(theirs: Theirs) -> None:
    """It looks for what has ended in the context where it ended."""
    from ddtrace._trace.provider import DefaultContextProvider

    before = tracer.context_provider
    tracer.context_provider = DefaultContextProvider()
    try:
        with span("a"):
            pass
        assert theirs.names == ["a"]
    finally:
        tracer.context_provider = before


@pytest.mark.usefixtures("alone")
def test_a_filter_that_flushes() -> None:
    """It is called once a trace, never within itself."""
    depths = []

    class Flushing(Theirs):
        depth = 0

        def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
            self.depth += 1
            depths.append(self.depth)
            tracer.flush()  # type: ignore[no-untyped-call]
            self.depth -= 1
            return None

    tracer.configure(trace_processors=[Flushing()])
    try:
        for _ in range(3):
            with span("a"):
                pass
        handover.finish()
    finally:
        tracer.configure(trace_processors=[])
    assert depths == [1, 1, 1]


@pytest.mark.usefixtures("alone")
def test_somebody_who_watches_spans(monkeypatch: pytest.MonkeyPatch, theirs: Theirs) -> None:
    """A product that is switched on meanwhile is told where and when a span ends."""
    from ddtrace._trace.processor import SpanProcessor

    class Product(SpanProcessor):
        thread = 0

        def on_span_start(self, span: DDSpan) -> None: ...

        def on_span_finish(self, span: DDSpan) -> None:
            Product.thread = threading.get_ident()

    with span("a"):
        monkeypatch.setattr(SpanProcessor, "__processors__", [Product()])
    assert Product.thread == threading.get_ident()
    assert theirs.names == ["a"]


def test_a_writer_that_sends_each_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a function that is frozen between two requests: nothing waits there."""
    monkeypatch.setattr(tracer._span_aggregator.writer, "_sync_mode", True)
    assert not lean.may_wait()


@pytest.mark.parametrize(
    ("owner", "name"), [(tracer._span_aggregator, "writer"), (DDSpan, "_on_finish_callbacks")]
)
def test_without_its_doors(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later ddtrace may have them elsewhere: then whoever ends a trace hands it over."""
    monkeypatch.delattr(owner, name)
    assert not lean.may_wait()


@pytest.mark.parametrize(
    "setting",
    ["ASYNCTRACE_LEAN=0", "ASYNCTRACE_PARTIAL_FLUSH_MS=0", "DD_TRACE_PARTIAL_FLUSH_ENABLED=false"],
)
def test_without_the_thread(setting: str) -> None:
    """Then whoever ends a trace hands it over."""
    program = """
        import threading
        from ddtrace.trace import TraceFilter, tracer
        from asynctrace import span
        class Theirs(TraceFilter):
            def process_trace(self, trace):
                print([one.name for one in trace], threading.current_thread() is threading.main_thread())
                return None
        tracer.configure(trace_processors=[Theirs()])
        with span("a"):
            pass
        print("over")
    """
    name, _, value = setting.partition("=")
    assert run(program, **{name: value}).splitlines() == ["['a'] True", "over"]


def test_an_ended_trace_waits_for_no_setting() -> None:
    """However long open traces are left alone (`ASYNCTRACE_PARTIAL_FLUSH_MS`)."""
    program = """
        import threading
        from ddtrace.trace import TraceFilter, tracer
        from asynctrace import span
        came = threading.Event()
        class Theirs(TraceFilter):
            def process_trace(self, trace):
                came.set()
        tracer.configure(trace_processors=[Theirs()])
        with span("a"):
            pass
        print(came.wait(10))
    """
    assert run(program, ASYNCTRACE_PARTIAL_FLUSH_MS="60000") == "True"


def test_the_process_ends_at_once(sink: Sink) -> None:
    """What ended just before, arrives."""
    run("from asynctrace import span\nwith span('a'), span('b'): pass", DD_TRACE_AGENT_URL=sink.url)
    assert {one["name"] for one in sink.wait_for(2)} == {"a", "b"}


def test_a_fork_in_between(sink: Sink) -> None:
    """What waits then is handed over by the process that ended it, and by no other."""
    program = """
        import os
        from ddtrace.trace import tracer
        from asynctrace import span
        from asynctrace._core.handover import handover
        with span("a"):
            pass
        before = len(handover.waiting)
        if (child := os.fork()) == 0:
            assert not handover.waiting
            with span("c"):
                pass
            tracer.shutdown(timeout=5)
            os._exit(0)
        os.waitpid(child, 0)
        with span("b"):
            pass
        print(before)
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url, ASYNCTRACE_LEAN="1") == "1"
    assert sorted(one["name"] for one in sink.wait_for(3)) == ["a", "b", "c"]


def test_one_that_fails_does_not_take_the_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ddtrace, or a callback of somebody's, raises at the end of a span."""
    here, seen = Handover(), []

    def broken(_: DDSpan) -> None:
        raise ValueError

    for callback in (broken, lambda one: seen.append(one.name)):
        assert here.add(DDSpan("a", on_finish=[callback]), 2**62)
    here.finish()
    assert seen == ["a"]


def test_a_slice_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn ends when its time is over, and takes longer where many wait."""
    now = [0]

    def takes_100_us(_: DDSpan) -> None:
        now[0] += 100_000

    monkeypatch.setattr(module, "perf_counter_ns", lambda: now[0])
    here = Handover()
    here.waiting.extend((takes_100_us, DDSpan("a")) for _ in range(130))
    assert here.take_turn()
    assert len(here.waiting) == 100
    assert here.take_turn()
    assert len(here.waiting) == 70
    assert here.take_turn()
    assert len(here.waiting) == 65
    here.finish()
    assert not here.take_turn()


@pytest.mark.usefixtures("alone")
def test_many_records_of_an_open_trace_wait_for_the_thread_too(theirs: Theirs) -> None:
    """They leave by the hundred; where the thread can't keep up, who ends more sends a hundred."""
    with span("root"):
        for _ in range(MOST_AHEAD - 1):
            with span("child"):
                pass
        assert theirs.chunks == []
        for _ in range(50):
            with span("child"):
                pass
        assert theirs.chunks == [100]
        while handover.waiting:
            handover.finish()
        assert set(theirs.chunks) == {100}
        assert len(theirs.names) == MOST_AHEAD
    handover.finish()
    assert len(theirs.names) == MOST_AHEAD - 1 + 50 + 1
