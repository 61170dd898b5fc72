"""Thread pools."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import tracer

from asynctrace import current_span, span, uninstall
from tests.core.process import run

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


def work(name: str) -> str:
    with span(name):
        return name


@pytest.fixture(autouse=True)
def futures(installed: Any) -> None:
    """The integration, on."""
    installed("futures")


async def test_run_in_executor_keeps_the_parent(traces: Recorder) -> None:
    """Spans in the pool's threads, ours and ddtrace's, hang from the span that is active where the call is made."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        with span("request"):
            assert await loop.run_in_executor(pool, work, "a") == "a"
            assert await asyncio.to_thread(work, "b") == "b"
            await loop.run_in_executor(pool, lambda: tracer.trace("c").finish())
        assert await loop.run_in_executor(pool, current_span) is None
    assert traces.tree() == "request\n  a\n  b\n  c"


def test_a_thread_of_a_pool_keeps_nothing(traces: Recorder) -> None:
    """One thread for many requests: each call has its own parent, those from outside have none."""
    with ThreadPoolExecutor(1) as pool:
        for number in range(3):
            with span(f"request {number}"):
                pool.submit(work, f"work {number}").result()
            pool.submit(work, f"alone {number}").result()
    assert traces.tree().splitlines() == [
        line for number in range(3) for line in (f"request {number}", f"  work {number}", f"alone {number}")
    ]


def test_work_that_starts_after_its_parent_ended_stays_in_the_trace(traces: Recorder) -> None:
    """Queued behind other work, it starts late, and is a child all the same."""
    with ThreadPoolExecutor(1) as pool:
        with span("request"):
            first = pool.submit(pool.submit, work, "nested")
            last = pool.submit(work, "late")
        first.result().result()
        last.result()
    assert sorted(traces.tree().splitlines()) == ["  late", "  nested", "request"]


def test_results_and_exceptions_are_the_functions_own() -> None:
    """The future has what the function returned or raised, arguments arrive as given."""

    def fail(*args: int, **kwargs: int) -> None:
        raise KeyError(args, kwargs)

    with ThreadPoolExecutor(1) as pool, span("request"):
        failure = pool.submit(fail, 1, two=2).exception()
    assert isinstance(failure, KeyError)
    assert failure.args == ((1,), {"two": 2})


def test_uninstalled_it_is_pythons_own() -> None:
    """uninstall() gives the method back."""
    uninstall()
    assert not hasattr(ThreadPoolExecutor.submit, "__wrapped__")


def test_on_from_the_start() -> None:
    """Whoever only decorates functions has it, too; Datadog's setting keeps it off."""
    program = """
        import asyncio
        from asynctrace import atraced
        from asynctrace.testing import Recorder

        @atraced("b")
        def work(): pass

        @atraced("a")
        async def main():
            await asyncio.get_running_loop().run_in_executor(None, work)

        with Recorder() as traces:
            asyncio.run(main())
        print(len(traces.traces()))
    """
    assert run(program) == "1"
    assert run(program, DD_TRACE_FUTURES_ENABLED="false") == "2"
