"""The rules hold whatever of ddtrace's is on: its launcher, its own integrations of asyncio and of thread pools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.core.process import ROOT, environment, run

if TYPE_CHECKING:
    from tests.sink import Sink

RULES = (
    *("tasks", "provider", "generators", "plain_generators", "managers", "spawn", "futures", "anyio"),
    *("queues", "queue_blocks", "cancel_source", "cancel_everywhere", "model"),
)
"""The tests that are run again."""

PYTHON = (sys.executable,)
DDTRACE_RUN = (str(Path(sys.executable).with_name("ddtrace-run")), sys.executable)
OFF = {"DD_PATCH_MODULES": "asyncio:false,futures:false"}
PATCHED = ("-p", "tests.core.ddtrace_patched")

SETTINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]] = {
    "ddtrace-run": (DDTRACE_RUN, (), {}),
    "ddtrace-run without its asyncio": (DDTRACE_RUN, (), OFF),
    "patched": (PYTHON, PATCHED, {}),
    "patched later": (PYTHON, PATCHED, {"ASYNCTRACE_FIRST": "1"}),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_rules(setting: str, sink: Sink) -> None:
    """All of them, on both loops; plain Python without any of it is the suite itself."""
    launcher, options, variables = SETTINGS[setting]
    files = [f"tests/core/test_{name}.py" for name in RULES]
    loaded_before = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # ddtrace, by its launcher
    command = [*launcher, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *loaded_before]
    done = subprocess.run(
        [*command, *options, *files],
        env=environment(DD_TRACE_AGENT_URL=sink.url, **variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ddtraces_asyncio_carries_nothing_into_tasks() -> None:
    """It would wrap their coroutines, override `context=`, and open the request's span in what `isolated` runs."""
    program = """
        import asyncio, contextvars
        import ddtrace
        ddtrace.patch(asyncio=True)
        from ddtrace.trace import tracer
        from asynctrace import current_span, isolated, span
        from asynctrace.testing import Recorder

        async def name():
            return getattr(current_span(), "name", None)

        async def main():
            with span("request"):
                coro = name()
                task = asyncio.get_running_loop().create_task(coro)
                assert task.get_coro() is coro
                cancelled = asyncio.create_task(name())  # before its first step: nobody warns
                cancelled.cancel()
                free = contextvars.Context().run(asyncio.ensure_future, name())
                print(await task, await free, await isolated(name()))
                assert tracer.current_trace_context().span_id == current_span().span_id

        with Recorder():
            asyncio.run(main())
    """
    assert run(program) == "request None None"


def test_with_another_provider_it_does_as_ever(sink: Sink) -> None:
    """Where somebody else's rules hold, its tasks are carried as it carries them."""
    program = """
        import asyncio
        import ddtrace
        ddtrace.patch(asyncio=True)
        from ddtrace.trace import tracer
        from ddtrace._trace.provider import DefaultContextProvider
        from asynctrace import span
        tracer.context_provider = DefaultContextProvider()

        async def work(): pass

        async def main():
            with span("request"):
                coro = work()
                task = asyncio.get_running_loop().create_task(coro)
                print(task.get_coro() is coro)
            await task

        asyncio.run(main())
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url) == "False"


def test_late_spans_of_ddtraces_own_integrations(sink: Sink) -> None:
    """Work that outlives its request keeps its trace in a library that ddtrace instruments, too, and in threads."""
    program = """
        import asyncio, sqlite3
        import ddtrace
        ddtrace.patch(sqlite3=True)
        from asynctrace import span, spawn

        def query(text):
            connection = sqlite3.connect(":memory:")
            connection.execute(text)
            connection.close()

        async def late(go):
            await go.wait()
            for number in range(2):
                query(f"select {number}")
            await asyncio.to_thread(query, "select 'thread'")

        async def main():
            go = asyncio.Event()
            with span("request"):
                tasks = [asyncio.create_task(late(go)), spawn(late(go))]
                query("select 'now'")
            go.set()
            await asyncio.gather(*tasks)

        asyncio.run(main())
    """
    run(program, DD_TRACE_AGENT_URL=sink.url)
    spans = [one for one in sink.wait_for(8) if one["meta"].get("component") == "sqlite"]
    (request,) = [one for one in sink.spans() if one["name"] == "request"]
    assert len(spans) == 7
    assert {(one["trace_id"], one["parent_id"]) for one in spans} == {
        (request["trace_id"], request["span_id"])
    }
