"""Processes that are forked, and processes that end: each span arrives, and arrives once. In processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.core.process import ROOT, environment, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.sink import Sink

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")

HEAD = """
    import asyncio, multiprocessing, os, signal, sys, threading, warnings
    from ddtrace.trace import tracer
    from asynctrace import span, start_span, traced_app
    warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12: this process has threads
"""


def arrived(sink: Sink, count: int) -> list[str]:
    """What has arrived, each span as the path from its trace's first span; none may come twice."""
    spans = {one["span_id"]: one for one in sink.wait_for(count)}
    assert len(spans) == len(sink.spans()) == count

    def path(one: dict[str, int | str]) -> str:
        above = spans.get(one["parent_id"])
        assert above is not None or not one["parent_id"], f"{one['name']} has a parent that did not arrive"
        assert above is None or above["trace_id"] == one["trace_id"]
        return f"{path(above)}/{one['name']}" if above else str(one["name"])

    return sorted(map(path, spans.values()))


def traced(sink: Sink, program: str, count: int) -> list[str]:
    """What arrives of a program that forks."""
    run(HEAD + program, DD_TRACE_AGENT_URL=sink.url)
    return arrived(sink, count)


@contextlib.contextmanager
def started(program: str, sink: Sink, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A program that goes on until it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HEAD + program)],
        env=environment(DD_TRACE_AGENT_URL=sink.url, **settings),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def ended(program: subprocess.Popen[str], code: int = 0) -> None:
    """It ends, as it should, and without a word."""
    _, errors = program.communicate(timeout=10)
    assert (program.returncode, errors) == (code, "")


# -- forks


@pytest.mark.parametrize("opened", ["span", "tracer.trace"])
def test_a_forked_process_inherits_as_a_task_does(sink: Sink, opened: str) -> None:
    """All its spans, of either kind, are below what was active; that is sent by the process that opened it, alone."""
    program = f"""
    with {opened}("request"):
        with {opened}("before"):
            pass
        if not (pid := os.fork()):
            with span("first"), span("inner"):
                pass
            tracer.trace("second").finish()
            with span("third"):
                pass
            sys.exit()
        os.waitpid(pid, 0)
        with span("after"):
            pass
    """
    assert traced(sink, program, 7) == [
        *("request", "request/after", "request/before"),
        *("request/first", "request/first/inner", "request/second", "request/third"),
    ]


def test_what_had_ended_is_the_parent_processs_to_send(sink: Sink) -> None:
    """Neither the child's end nor the parent's own, right after, loses or repeats it."""
    program = """
    with span("before"):
        pass
    if not os.fork():
        with span("child's"):
            pass
        sys.exit()
    os.wait()
    with span("after"):
        pass
    """
    assert traced(sink, program, 3) == ["after", "before", "child's"]


def test_a_block_that_both_processes_leave(sink: Sink) -> None:
    """Its end in the child ends nothing there, and takes no open span of the child's for finished."""
    program = """
    with span("request"), tracer.trace("theirs"):
        pid = os.fork()
        if not pid:
            late = start_span("child's")
    if not pid:
        with span("inner"):
            pass
        late.finish()
        with span("still below it"):
            pass
        sys.exit()
    os.waitpid(pid, 0)
    """
    assert traced(sink, program, 5) == [
        *("request", "request/theirs", "request/theirs/child's", "request/theirs/child's/inner"),
        "request/theirs/still below it",
    ]
    assert all(one["duration"] > 0 for one in sink.spans())


def test_contexts_that_were_copied_before_a_fork(sink: Sink) -> None:
    """What is opened in one afterwards is delivered by whoever opened it, open or ended as its parent may be."""
    program = """
    import contextvars
    def later():
        with span("later"), span("inside"):
            pass
    with span("root"):
        with span("child"):
            still_open = contextvars.copy_context()
        over = contextvars.copy_context()
    over.run(later)  # it waits, and is sent once
    def work():
        with span("second"):
            with span("child"):
                opened = contextvars.copy_context()
                if not (pid := os.fork()):
                    opened.run(later)
                    over.run(later)
                    still_open.run(later)
                    tracer.shutdown()
                    os._exit(0)
                os.waitpid(pid, 0)
    contextvars.Context().run(work)
    """
    assert traced(sink, program, 12) == sorted(
        [
            *("root", "root/child", "root/later", "root/later/inside"),
            *("root/later", "root/later/inside", "root/child/later", "root/child/later/inside"),
            *("second", "second/child", "second/child/later", "second/child/later/inside"),
        ]
    )


def test_forked_in_a_loop(sink: Sink) -> None:
    """The tasks of the child's own loop are below what was active in the one it comes from."""
    program = """
    async def work(name):
        with span(name):
            await asyncio.sleep(0)

    async def child():
        await asyncio.gather(work("a"), work("b"))

    async def main():
        with span("request"):
            if not (pid := os.fork()):
                asyncio.run(child())
                tracer.shutdown()
                os._exit(0)
            await asyncio.to_thread(os.waitpid, pid, 0)

    asyncio.run(main())
    """
    assert traced(sink, program, 3) == ["request", "request/a", "request/b"]


def test_a_fork_while_spans_are_taken_away(sink: Sink) -> None:
    """Locks that another thread holds are copied as held: the fork waits until nobody has spans in hand."""
    program = """
    from asynctrace._core.early import watch
    held, over = threading.Event(), threading.Event()

    class Slow:
        def __enter__(self):
            lock.acquire()
            if threading.current_thread() is taker:
                held.set()
                over.wait(0.2)

        def __exit__(self, *exc):
            lock.release()

    taker = threading.Thread(target=watch.look, kwargs={"quiet_ns": 0})
    with span("request"):
        with span("before"):
            pass
        lock = tracer._span_aggregator._lock
        tracer._span_aggregator._lock = Slow()
        taker.start()
        held.wait()
        if not os.fork():
            signal.alarm(5)
            with span("child's"):
                pass
            sys.exit()
        assert os.wait()[1] == 0
    """
    assert traced(sink, program, 3) == ["request", "request/before", "request/child's"]


# -- multiprocessing


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(one, marks=pytest.mark.slow) for one in ("forkserver", "spawn"))]
)
def test_processes_of_multiprocessing_send_what_they_traced(sink: Sink, method: str, tmp_path: Path) -> None:
    """They end without `atexit`; a forked one inherits what was active where it was started."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(HEAD)
        + textwrap.dedent(f"""
    def work():
        with span("work"), tracer.trace("inner"):
            pass

    if __name__ == "__main__":
        with span("request"):
            process = multiprocessing.get_context("{method}").Process(target=work)
            process.start()
            process.join()
        assert process.exitcode == 0
    """)
    )
    run(program, DD_TRACE_AGENT_URL=sink.url)
    root = "request/" if method == "fork" else ""
    assert arrived(sink, 3) == sorted(["request", f"{root}work", f"{root}work/inner"])


def test_a_pools_processes_belong_to_nobodys_request(sink: Sink) -> None:
    """They are forked by whoever comes first, and work for all: nothing is inherited."""
    program = """
    from concurrent.futures import ProcessPoolExecutor
    def work(name):
        with span(name):
            pass
    fork = multiprocessing.get_context("fork")
    with span("request"):
        with ProcessPoolExecutor(1, mp_context=fork) as pool:
            list(pool.map(work, ["a", "b"]))
    with span("another"):
        with fork.Pool(1) as pool:
            pool.map(work, ["c", "d"])
            pool.close()
            pool.join()
    """
    assert traced(sink, program, 6) == ["a", "another", "b", "c", "d", "request"]


# -- the end

PREFORK = """
    import socket
    from aiohttp import web

    async def hello(request):
        with span("inner"):
            return web.Response(text=str(os.getpid()))

    async def ready(app):
        os.write(told, b".")  # whoever gets SIGTERM before is not ended by aiohttp

    @traced_app
    def make_app():
        app = web.Application()
        app.add_routes([web.get("/", hello)])
        app.on_startup.append(ready)
        return app

    workers = []
    hears, told = os.pipe()
    with span("boot"), socket.create_server(("127.0.0.1", 0)) as listening:
        for _ in range(2):
            if not (pid := os.fork()):
                web.run_app(make_app(), sock=listening, print=None)
                sys.exit()
            workers.append(pid)
        for _ in workers:
            os.read(hears, 1)
        print(listening.getsockname()[1], flush=True)
    sys.stdin.read()
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == 0
"""


def test_workers_that_are_forked_before_they_serve(sink: Sink) -> None:
    """As gunicorn does: each request is a trace of its own, wherever it is served, and SIGTERM loses none."""
    with started(PREFORK, sink) as master:
        assert master.stdout is not None
        url = f"http://127.0.0.1:{int(master.stdout.readline())}/"
        for _ in range(10):
            with urllib.request.urlopen(url, timeout=5) as response:
                assert response.status == 200
        ended(master)
    assert arrived(sink, 21) == ["aiohttp.request"] * 10 + ["aiohttp.request/inner"] * 10 + ["boot"]


SERVER = """
    import socket
    from aiohttp import web

    async def stop(request):
        os.kill(os.getpid(), signal.SIGTERM)
        with span("inner"):
            await asyncio.sleep(0)
        return web.Response()

    @traced_app
    def make_app():
        app = web.Application()
        app.add_routes([web.get("/", stop)])
        return app

    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        web.run_app(make_app(), sock=listening, print=None)
"""


def test_sigterm_while_a_request_is_served(sink: Sink) -> None:
    """aiohttp lets it end; it arrives."""
    with started(SERVER, sink) as server:
        assert server.stdout is not None
        with urllib.request.urlopen(
            f"http://127.0.0.1:{int(server.stdout.readline())}/", timeout=5
        ) as response:
            assert response.status == 200
        ended(server)
    assert arrived(sink, 2) == ["aiohttp.request", "aiohttp.request/inner"]


PROGRAM = """
    import logging
    logging.getLogger("ddtrace").setLevel("ERROR")  # it warns of what is open

    @traced_app
    async def main():
        with span("done"):
            pass
        with span("request"):
            with span("inner"):
                pass
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


def test_sigterm_of_a_program(sink: Sink) -> None:
    """It ends as it would without us, and what had ended until then arrives: of what is open, too, however recent."""
    with started(PROGRAM, sink, ASYNCTRACE_PARTIAL_FLUSH_MS="60000") as program:
        ended(program, -signal.SIGTERM)
    assert {one["name"] for one in sink.wait_for(2)} == {"done", "inner"}


def test_the_tracers_own_shutdown(sink: Sink) -> None:
    """`tracer.shutdown()`, by whomever it is called, sends what has ended of what is open."""
    program = """
    import logging
    logging.getLogger("ddtrace").setLevel("ERROR")
    with span("request"):
        with span("inner"):
            pass
        tracer.shutdown()
    """
    run(HEAD + program, DD_TRACE_AGENT_URL=sink.url, ASYNCTRACE_PARTIAL_FLUSH_MS="60000")
    assert [one["name"] for one in sink.wait_for(1)] == ["inner"]


LEFT_TO_LOOP = """
    import asyncio, os, signal, sys

    async def main():
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        from asynctrace import shutdown, span  # as a worker of gunicorn's imports its application
        with span("request"):
            os.kill(os.getpid(), signal.SIGTERM)
            await stopped.wait()
            with span("work"):
                pass
        await shutdown(5)

    if sys.argv[1:]:
        import uvloop
        uvloop.run(main())
    else:
        asyncio.run(main())
"""


@pytest.mark.parametrize("loop", [[], ["uvloop"]], ids=["asyncio", "uvloop"])
def test_sigterm_is_left_to_a_loop_that_handles_it(sink: Sink, tmp_path: Path, loop: list[str]) -> None:
    """Wherever ddtrace was imported: what is in flight ends as the program has it end, and is sent."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(LEFT_TO_LOOP))
    ended = subprocess.run(
        [sys.executable, program, *loop],
        env=environment(DD_TRACE_AGENT_URL=sink.url),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(one["name"] for one in sink.wait_for(2)) == ["request", "work"]
