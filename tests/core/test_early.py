"""Finished spans leave while their root is still open."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import Span as DDSpan, TraceFilter, tracer

from asynctrace import shutdown, span
from asynctrace._core.early import Watch, watch
from tests.core.process import run
from tests.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctrace.testing import Recorder


@pytest.fixture(params=["ours", "ddtrace"])
def opened(request: pytest.FixtureRequest) -> Any:
    """A function that opens spans: ours, or ddtrace's own."""
    return span if request.param == "ours" else tracer.trace


async def test_what_has_ended_leaves_before_its_root(traces: Recorder, opened: Any) -> None:
    """A child arrives while the request is open; the rest follows, one trace."""
    with opened("request"):
        with opened("query"):
            pass
        await traces.wait_for("query")
        assert traces.names() == {"query"}
        with opened("later"):
            pass
    assert traces.tree() == "request\n  query\n  later"


async def test_it_looks_the_same_at_the_agent(traces: Recorder, sink: Sink) -> None:
    """Ids, tags and sampling are those of a span that left with its trace."""
    with span("request", service="shop") as request:
        with span("query", tags={"rows": 3}):
            pass
        await traces.wait_for("query")
        assert await shutdown()
        early = {one["name"]: one for one in sink.wait_for(1)}["query"]
        with span("query", tags={"rows": 3}) as second:
            pass
        other = second.span_id
    late = next(one for one in sink.wait_for(3) if one["span_id"] == other)
    assert early["parent_id"] == late["parent_id"] == request.span_id
    assert early["metrics"]["_dd.py.partial_flush"] == 1
    assert (
        early["metrics"]["_sampling_priority_v1"] == 1
    )  # says the first span of a chunk, as other tags of a trace
    assert late["meta"]["_dd.base_service"] == "tests"
    for kind in ("meta", "metrics"):
        assert late[kind].items() <= early[kind].items()


def test_what_ends_late_does_not_pile_up() -> None:
    """Where the thread can't keep up, whoever ends more sends it: memory is bounded, and nothing is lost."""
    told = run(
        """
from ddtrace.trace import TraceFilter, tracer
from asynctrace import span, start_span
from asynctrace._core.early import MOST_LATE, watch
from asynctrace._core.handover import handover
from asynctrace._core.segment import late

class Counting(TraceFilter):
    seen = 0
    def process_trace(self, trace):
        self.seen += sum(one.name == "late" for one in trace)

counting = Counting()
tracer.configure(trace_processors=[counting])
handover.hold()  # the thread waits
for _ in range(MOST_LATE + 500):
    with span("request"):
        one = start_span("late")
    handover.finish()
    one.finish()
print(len(late) == MOST_LATE, counting.seen)
handover.release()
watch.look()
print(counting.seen == MOST_LATE + 500)
""",
        ASYNCTRACE_LEAN="1",
    )
    assert told.split() == ["True", "500", "True"]


async def test_shutdown_hands_over_what_has_ended(traces: Recorder) -> None:
    """However short ago: the process may end before the root does."""
    with span("request"):
        with span("query"):
            pass
        await shutdown()
        assert traces.names() == {"query"}


class Seen(TraceFilter):
    """A user's filter."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
        self.names += [one.name for one in trace]
        return trace


@pytest.fixture
def users() -> Iterator[Seen]:
    seen = Seen()
    tracer.configure(trace_processors=[seen])
    yield seen
    tracer.configure(trace_processors=[])


async def test_a_users_filter_sees_each_span_once(users: Seen, traces: Recorder) -> None:
    """And nothing that is ours alone."""
    with span("request"):
        with span("query"):
            pass
        await traces.wait_for("query")
    assert traces.names() == {"query", "request"}
    assert users.names == ["query", "request"]


@pytest.mark.parametrize("dropped", [True, False])
async def test_what_may_be_dropped_waits_for_its_root(traces: Recorder, dropped: object) -> None:
    """Of a trace that is to be dropped all spans wait: the user may still decide to keep it."""
    with span("request") as request:
        request.set_tag("manual.drop" if dropped else "manual.keep")
        with span("query"):
            pass
        watch.look(quiet_ns=0)
        assert traces.names() == (set() if dropped else {"query"})
        request.set_tag("manual.keep")
    assert traces.one("query").trace_id == request.trace_id


PROGRAM = """
    from asynctrace import span
    from asynctrace._core.early import watch
    from asynctrace.testing import Recorder
    with Recorder() as traces, span("request"):
        with span("query"):
            pass
        watch.look(quiet_ns=0)
        print(*traces.names())
"""


@pytest.mark.parametrize(
    ("settings", "leaves"),
    [
        ({}, "query"),
        ({"DD_TRACE_PARTIAL_FLUSH_ENABLED": "false"}, ""),
        ({"ASYNCTRACE_PARTIAL_FLUSH_MS": "0"}, ""),
        ({"ASYNCTRACE_PARTIAL_FLUSH_MS": "1000"}, "query"),
        ({"DD_TRACE_SAMPLING_RULES": '[{"resource": "GET /late", "sample_rate": 0}]'}, ""),
    ],
)
def test_settings(settings: dict[str, str], leaves: str) -> None:
    """Off by Datadog's setting, and by ours; and a sampling rule decides when it can see all of the root."""
    assert run(PROGRAM, DD_TRACE_AGENT_URL=Sink().start().url, **settings) == leaves


def test_ddtraces_writer_is_not_started_by_two_threads() -> None:
    """It warns when two threads write first: so whoever opens the first span starts it, before ours may write."""
    program = """
        import threading
        from asynctrace import span
        from asynctrace._core.early import watch
        from ddtrace.trace import tracer
        writer, by = tracer._span_aggregator.writer, []
        start, writer.start = writer.start, lambda: (by.append(threading.current_thread()), start())
        with span("request"):
            with span("query"):
                pass
            early = threading.Thread(target=watch.look, kwargs={"quiet_ns": 0})
            early.start()
            early.join()
        print([one.name for one in by])
    """
    assert run(program, DD_TRACE_AGENT_URL=Sink().start().url) == "['MainThread']"


def test_at_exit() -> None:
    """The process ends with a root open: what had ended is not lost, though it was not due yet."""
    sink = Sink().start()
    run(
        """
        import logging
        from asynctrace import span, start_span
        logging.getLogger("ddtrace").setLevel("ERROR")  # it warns of the open one
        root = start_span("root")
        with span("query"):
            pass
        """,
        DD_TRACE_AGENT_URL=sink.url,
        ASYNCTRACE_PARTIAL_FLUSH_MS="600000",
    )
    assert [one["name"] for one in sink.wait_for(1)] == ["query"]


def test_nobody_is_counted_twice(traces: Recorder) -> None:
    """Threads open and end spans while others take them away: each arrives once, the root last."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    hammer = Watch(50)
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            hammer.look(quiet_ns=0)

    def work(context: Any) -> None:
        for _ in range(90):  # ddtrace takes 300 away itself, and miscounts when threads race
            with span("child", parent=context):
                pass

    try:
        looker = threading.Thread(target=look)
        looker.start()
        for _ in range(20):
            with span("root") as root:
                threads = [threading.Thread(target=work, args=(root.context,)) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert "root" not in {one.name for one in traces.spans if one.trace_id == root.trace_id}
    finally:
        sys.setswitchinterval(before)
        over.set()
        looker.join()
    ids = [one.span_id for one in traces.spans]
    assert len(ids) == len(set(ids)) == 20 * 271
    for trace in traces.traces().values():
        assert len(trace) == 271
    assert "asynctrace.carrier" not in traces.names()


async def test_the_watch_sleeps_while_nothing_is_open(traces: Recorder) -> None:
    """An idle process is not woken twenty times a second."""
    with span("request"), span("work"):
        assert not watch.asleep
    deadline = asyncio.get_running_loop().time() + 5
    while not watch.asleep:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
