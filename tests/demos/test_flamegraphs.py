"""The three shapes every tracing tutorial begins with."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from demos import flamegraphs

if TYPE_CHECKING:
    from asynctrace.testing import RecordedSpan, Recorder

MS = 1_000_000


async def ended(traces: Recorder, count: int) -> list[RecordedSpan]:
    """The spans, once there are `count`: a client has its answer a moment before the server's span ends."""
    while len(traces.spans) < count:
        await asyncio.sleep(0)
    return traces.spans


def assert_inside(inner: RecordedSpan, outer: RecordedSpan) -> None:
    """A sleep of 60 ms shows at least 60 ms and no more than its parent."""
    assert inner.parent_id == outer.span_id
    assert 60 * MS <= inner.duration_ns <= outer.duration_ns


async def test_a_slow_function_shows_under_its_request(traces: Recorder) -> None:
    """The slow function hangs below the request, and is as long as it was."""
    await flamegraphs.a_slow_function_under_a_request()
    request, slow = await ended(traces, 2)
    assert (request.resource, slow.name) == ("GET /report", "demos.flamegraphs.slow")
    assert_inside(slow, request)


async def test_a_and_b_stand_side_by_side_and_c_below_b(traces: Recorder) -> None:
    """A, then B that calls C: siblings one after the other, and a child."""
    await flamegraphs.a_then_b_that_calls_c()
    assert traces.tree() == "main\n  demos.flamegraphs.a\n  demos.flamegraphs.b\n    demos.flamegraphs.c"
    a, b = traces.one("demos.flamegraphs.a"), traces.one("demos.flamegraphs.b")
    assert a.end_ns is not None
    assert a.end_ns <= b.start_ns


async def test_the_trace_goes_from_service_a_to_service_b(traces: Recorder) -> None:
    """Request, call, request of the other service, function: one below the other, in two services."""
    await flamegraphs.service_a_calls_service_b()
    ask, call, answer, slow = await ended(traces, 4)
    assert [span.service for span in (ask, call, answer, slow)] == ["a", "a", "b", "b"]
    assert (ask.resource, answer.resource) == ("GET /ask", "GET /answer")
    assert call.parent_id == ask.span_id
    assert answer.parent_id == call.span_id
    assert_inside(slow, answer)
    assert answer.duration_ns <= call.duration_ns <= ask.duration_ns
    assert len({span.trace_id for span in traces.spans}) == 1


def test_they_are_drawn() -> None:
    """`python3 -m demos flamegraphs` draws the three, each a trace of its own, and says nothing else."""
    ran = subprocess.run(
        [sys.executable, "-m", "demos", "flamegraphs"], capture_output=True, text=True, check=True
    )
    last_lines = [line.partition(": ")[2] for line in ran.stdout.splitlines() if line.startswith("trace ")]
    assert last_lines == [
        "2 spans, 1 service (tutorial)",
        "4 spans, 1 service (tutorial)",
        "4 spans, 2 services (a, b)",
    ]
    assert ran.stderr == ""


def test_ctrl_c_ends_them_without_a_word() -> None:
    """Whoever has seen enough gets no traceback of a program that was about to end anyway."""
    with subprocess.Popen(
        [sys.executable, "-m", "demos", "flamegraphs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("A slow function")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, complaints = process.communicate()
    assert (process.returncode, complaints) == (128 + signal.SIGINT, "")
