"""What goes wrong inside stays inside: the program goes on, and nobody is told but who asks for debug logs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import tracer

from asynctrace import SpanContext, attached, current_span, shutdown, span
from asynctrace._core import cancel, early, frames, process
from asynctrace._core.api import Description, described
from asynctrace._core.early import Watch, watch
from asynctrace._core.handover import handover

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("ours")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Any:
    """Nothing above the level of debugging is logged."""
    caplog.set_level(logging.DEBUG, "asynctrace")
    yield
    assert not [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]


async def test_a_description_that_fails(traces: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """An integration that can't describe an operation leaves it untraced."""

    def describe(operation: Any) -> Description:
        return {"name": operation.name}

    with described(describe, object()) as silent:
        silent.set_tag("a", 1)
        assert current_span() is None
    assert "describe failed" in caplog.text
    with described(describe, threading.current_thread()):
        pass
    assert traces.tree() == threading.current_thread().name


async def test_a_description_while_tracing_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for one."""
    monkeypatch.setattr(tracer, "enabled", False)
    with described(broken) as silent:
        assert silent.trace_id == 0


async def test_a_cancellation_that_cannot_be_explained(
    monkeypatch: pytest.MonkeyPatch, traces: Recorder
) -> None:
    """The span is cancelled all the same, and so is its task."""
    monkeypatch.setattr(cancel, "_told", broken)
    with pytest.raises(asyncio.CancelledError), span("a"):
        raise asyncio.CancelledError
    assert traces.tree() == "a (cancelled)"


async def test_a_span_that_is_gone_when_its_cancellation_is_explained(traces: Recorder) -> None:
    """It was sent before the TimeoutError came that cut it short; nothing is kept for its sake."""
    before = len(cancel._unexplained)  # of tests whose exceptions the garbage collector has yet to find
    with pytest.raises(asyncio.TimeoutError), span("outer"):  # noqa: PT012 - what leaves the block is the point
        try:
            with span("inner", parent=SpanContext()):
                raise asyncio.CancelledError  # noqa: TRY301 - what is raised here is the point
        except asyncio.CancelledError as exc:
            raise asyncio.TimeoutError from exc
    assert sorted(traces.tree().splitlines()) == ["inner (cancelled)", "outer (timeout)"]
    assert len(cancel._unexplained) <= before


def test_a_flush_that_ends_after_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread finds the loop closed, and ends in silence."""
    go = threading.Event()
    monkeypatch.setattr(tracer, "flush", go.wait)
    assert asyncio.run(shutdown(0)) is False
    (flushing,) = [one for one in threading.enumerate() if one.name == "asynctrace-flush"]
    go.set()
    flushing.join(5)
    assert not flushing.is_alive()


# -- early delivery


async def test_a_watch_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, traces: Recorder) -> None:
    """One look that fails is not the last."""
    fails = iter([True, True])
    look = Watch.look

    def looking(self: Watch, **kwargs: Any) -> None:
        if next(fails, False):
            broken()
        look(self, **kwargs)

    monkeypatch.setattr(Watch, "look", looking)
    with span("request"):
        with span("query"):
            pass
        await traces.wait_for("query")
    assert next(fails, None) is None


def test_at_the_end_everything_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends as it would."""
    monkeypatch.setattr(watch, "look", broken)
    early.everything()


def test_nobody_waits_for_whom_he_interrupted(monkeypatch: pytest.MonkeyPatch, traces: Recorder) -> None:
    """A signal's handler that can't have the lock takes nothing."""
    monkeypatch.setattr(handover, "hold", lambda: False)
    with span("request"):
        with span("query"):
            pass
        early.everything()
        assert traces.names() == set()


@pytest.mark.parametrize(("setting", "quiet_ms"), [("", 50), ("7", 7), ("0", 0), ("-1", 0)])
def test_the_setting_of_early_delivery(
    setting: str, quiet_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of milliseconds; none, or less than none, is off."""
    monkeypatch.setenv("ASYNCTRACE_PARTIAL_FLUSH_MS", setting)
    assert early._setting() == quiet_ms


# -- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("what", ["_inherit", "watch"])
def test_a_fork_that_cannot_be_prepared(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a fork none the less."""
    if what == "watch":
        monkeypatch.setattr(handover, "hold", lambda: False)
    else:
        monkeypatch.setattr(process, what, broken)
    if not (pid := os.fork()):
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


# -- bounds


def test_code_that_is_made_as_the_program_runs(monkeypatch: pytest.MonkeyPatch, traces: Recorder) -> None:
    """What is known of functions is bounded, and found again."""
    monkeypatch.setattr(frames, "_KNOWN", 3)
    for number in range(10):
        names: dict[str, Any] = {"span": span}
        exec(f"def items():\n    with span('{number}'):\n        yield\n        yield", names)
        for _ in names["items"]():
            assert current_span() is None
        assert len(frames._stops) <= 3
    assert len(traces.spans) == 10


def test_a_block_whose_context_somebody_took_away(traces: Recorder) -> None:
    """`activate(None)` within `attached()`: leaving the block is no error, and leaves nothing active."""
    with attached(SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})):
        tracer.context_provider.activate(None)
    assert current_span() is None
    assert not SpanContext.current()
