"""What leaves the process, through whose hands, and how long its end may take."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import Span as DDSpan, TraceFilter, tracer

from asynctrace import shutdown, span
from asynctrace._core.delivery import tail
from tests.core.agents import agent
from tests.core.process import environment, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctrace.testing import Recorder
    from tests.sink import Sink


class Seen(TraceFilter):
    """A user's filter: sees, marks, and drops what is named `dropped`."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
        self.names += [one.name for one in trace]
        for one in trace:
            one.set_tag("seen", "yes")
        return None if trace[0].name == "dropped" else trace


@pytest.fixture
def users() -> Iterator[Seen]:
    """A filter that the user sets after asynctrace was set up."""
    seen = Seen()
    tracer.configure(trace_processors=[seen])
    yield seen
    tracer.configure(trace_processors=[])


def one_trace(name: str = "a") -> None:
    with span(name), span("b"):
        pass


def test_a_recorder_sees_what_the_agent_gets(traces: Recorder, sink: Sink) -> None:
    """The same spans, ids, names, times and tags, in the process and in the bytes."""
    with span("a", resource="r", tags={"text": "x", "number": 7}), span("b"):
        pass
    arrived = {one["span_id"]: one for one in sink.wait_for(2)}
    assert len(traces.spans) == len(arrived)
    for one in traces.spans:
        wire = arrived[one.span_id]
        assert (one.name, one.resource, one.service) == (wire["name"], wire["resource"], wire["service"])
        assert one.trace_id % 2**64 == wire["trace_id"]
        assert (one.start_ns, one.duration_ns) == (wire["start"], wire["duration"])
        assert (one.parent_id or 0) == wire["parent_id"]
        sent = wire["meta"] | wire["metrics"]
        assert {key: sent[key] for key in ("text", "number") if key in one.tags} == {
            key: one.tags[key] for key in ("text", "number") if key in one.tags
        }


def test_a_users_filter_comes_before_the_recorder(users: Seen, traces: Recorder, sink: Sink) -> None:
    """What it marks is marked, and what it drops is not recorded, as it is not sent."""
    one_trace("dropped")
    one_trace("a")
    assert traces.names() == {"a", "b"}
    assert users.names == ["dropped", "b", "a", "b"]
    assert {one["meta"]["seen"] for one in sink.wait_for(2)} == {"yes"}


def test_configure_keeps_our_filter(traces: Recorder) -> None:
    """Whatever the user configures, however often: ours stays, once and last."""
    choices: list[Any] = [[], [Seen()], [tail, Seen()], None]
    for processors in choices:
        tracer.configure(trace_processors=processors)
        one_trace()
    tracer.configure(trace_processors=[])
    assert len(traces.spans) == 8
    assert tracer.configure.__name__ == "configure"


def test_configure_by_position(traces: Recorder) -> None:
    """Its parameters may be positional, as in ddtrace's own signature."""
    seen = Seen()
    try:
        tracer.configure(None, None, None, "", None, None, [seen])
        one_trace()
    finally:
        tracer.configure(trace_processors=[])
    assert seen.names == [one.name for one in traces.spans] == ["a", "b"]


def test_filters_set_before_are_kept(sink: Sink) -> None:
    """A filter that the user set before asynctrace was first used sees and changes every span."""
    program = """
        from ddtrace.trace import TraceFilter, tracer
        class Mark(TraceFilter):
            def process_trace(self, trace):
                for one in trace:
                    one.set_tag("seen", "yes")
                return trace
        tracer.configure(trace_processors=[Mark()])
        from asynctrace import span
        from asynctrace.testing import Recorder
        with Recorder() as traces, span("a"):
            pass
        print(traces.one("a").tags["seen"])
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url) == "yes"
    assert [one["meta"]["seen"] for one in sink.wait_for(1)] == ["yes"]


def test_a_filter_that_raises_is_not_the_programs_problem(
    traces: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """ddtrace logs it; the block ends as if nothing were."""

    class Broken(TraceFilter):
        def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
            raise ValueError

    tracer.configure(trace_processors=[Broken()])
    try:
        one_trace()
    finally:
        tracer.configure(trace_processors=[])
    assert "Broken" in caplog.text


def test_a_writer_that_raises_is_not_the_programs_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while handing over is ours to hide: the block ends, its exception goes on, nothing stays active."""

    def broken(*_: Any) -> None:
        raise RuntimeError("ours")

    def body() -> None:
        with pytest.raises(KeyError), span("a"):
            raise KeyError

    monkeypatch.setattr(tracer._span_aggregator.writer, "write", broken)
    asyncio.run(_in_a_task(body))


async def _in_a_task(body: Any) -> None:
    body()


# -- shutdown


async def test_shutdown_sends_everything(sink: Sink) -> None:
    """What has finished is at the agent when it returns True; the tracer goes on."""
    for number in range(3):
        one_trace()
        assert await shutdown(5) is True
        assert sink.has_at_once("a", number + 1)
        assert sink.has_at_once("b", number + 1)


async def test_shutdown_without_anything_to_send() -> None:
    """Any number of times, at once too, with any timeout."""
    assert list(await asyncio.gather(shutdown(5), shutdown(5))) == [True, True]
    assert await shutdown(0) in {True, False}
    assert await shutdown(-1) in {True, False}


async def test_shutdown_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very end of the interpreter: it says so, and raises nothing."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert await shutdown(5) is False


async def test_shutdown_may_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled shutdown ends at once, and its thread finds no loop to call: quiet."""
    go = threading.Event()
    monkeypatch.setattr(tracer, "flush", go.wait)
    task = asyncio.create_task(shutdown(5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()


async def test_a_flush_that_fails_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns in its time, whatever ddtrace raises."""

    def broken() -> None:
        raise RuntimeError

    monkeypatch.setattr(tracer, "flush", broken)
    await shutdown(5)


PROGRAM = """
    import asyncio, json, sys, time
    from asynctrace import atraced, shutdown, span
    longest = 0.0
    async def heart():
        global longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - before)
    @atraced
    async def work(number):
        with span("inner"):
            await asyncio.sleep(0)
        return number
    async def main():
        beating = asyncio.create_task(heart())
        worked = sum(await asyncio.gather(*map(work, range(100))))
        before = time.perf_counter()
        sent = await shutdown(0.4)
        took = time.perf_counter() - before
        beating.cancel()
        print(json.dumps([worked, sent, took, longest]), flush=True)
    asyncio.run(main())
"""
PLAIN = """
    import asyncio
    from ddtrace.trace import tracer
    async def work():
        with tracer.trace("work"), tracer.trace("inner"):
            await asyncio.sleep(0)
    async def main():
        await asyncio.gather(*(work() for _ in range(100)))
        await asyncio.sleep(0.4)
    asyncio.run(main())
"""


def timed(program: str, url: str) -> tuple[float, str]:
    """How long it took, and what it printed."""
    before = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(DD_TRACE_AGENT_URL=url),
        capture_output=True,
        text=True,
        timeout=80,
        check=True,
    )
    return time.perf_counter() - before, done.stdout


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(100)
@pytest.mark.parametrize("kind", ["dead", "500", "hangs"])
def test_an_agent_that_is_no_help(kind: str) -> None:
    """The work is done, shutdown is back in its time with the loop turning, the exit no later than ddtrace's own."""
    with agent(kind) as url, ThreadPoolExecutor(2) as both:
        (took, printed), (plain, _) = both.map(timed, (PROGRAM, PLAIN), (url, url))
    worked, sent, waited, longest = json.loads(printed)
    assert worked == sum(range(100))
    assert sent is False
    assert waited < 0.4 + 0.1
    assert longest < 0.1
    assert took < plain + 1.5, "exit"


def test_the_first_use_does_not_wait_for_the_agent() -> None:
    """ddtrace loaded first (`ddtrace-run`), asynctrace later: its import does not depend on an agent that hangs."""
    program = """
        import os, time
        import ddtrace.trace
        ddtrace.trace.tracer.trace("before").finish()
        before = time.perf_counter()
        from asynctrace import span
        print(time.perf_counter() - before, flush=True)
        os._exit(0)
    """
    with agent("hangs") as url:
        _, printed = timed(program, url)
    assert float(printed) < 1


def test_without_ddtraces_list_of_filters(sink: Sink) -> None:
    """Should that list move, our filter gets in by the public way; a tracer that is off stays off."""
    program = """
        from ddtrace.trace import tracer
        class Elsewhere:
            def __getattr__(self, name):
                if name == "user_processors":
                    raise AttributeError(name)
                return getattr(aggregator, name)
        aggregator, tracer._span_aggregator = tracer._span_aggregator, Elsewhere()
        from asynctrace import span
        from asynctrace._core.delivery import head, tail
        print(aggregator.user_processors == [head, tail], tracer.enabled)
    """
    for enabled in ("true", "false"):
        printed = run(program, DD_TRACE_AGENT_URL=sink.url, DD_TRACE_ENABLED=enabled)
        assert printed == f"True {enabled.title()}"


# -- outcomes of ddtrace's own spans


@pytest.mark.parametrize(
    ("exc", "outcome", "error"),
    [
        (asyncio.CancelledError(), "cancelled", 0),
        (GeneratorExit(), "closed", 0),
        (asyncio.TimeoutError(), "timeout", 1),
        (ValueError("x"), "error", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_spans_of_ddtrace_have_our_outcomes(
    exc: BaseException, outcome: str, error: int, traces: Recorder
) -> None:
    """A span of ddtrace's that is cancelled, or closed early, is no error."""
    with pytest.raises(type(exc)), tracer.trace("theirs"):
        raise exc
    theirs = traces.one("theirs")
    assert (theirs.outcome, theirs.error) == (outcome, error)
    assert ("error.stack" in theirs.tags) is bool(error)
