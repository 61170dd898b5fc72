"""What lives longer than the request that happens to open it is in nobody's trace, and holds none back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ddtrace.trace import tracer

from asynctrace import SpanContext, attached, detached, isolated, span

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder


async def ask(port: int, text: str = "\n") -> str:
    """A line from the server that listens there; headers go before it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    line = (await reader.readline()).decode()
    writer.close()
    await writer.wait_closed()
    return line


async def test_a_server_that_is_started_in_a_request(traces: Recorder) -> None:
    """Each connection it serves is a trace of its own, or its caller's."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parent = (await reader.readline()).decode().strip()
        with span("served", parent=SpanContext.extract({"traceparent": parent})):
            tracer.trace("theirs").finish()
        writer.write(b"\n")
        writer.close()

    with span("request"):
        server = await isolated(asyncio.start_server(serve, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        await ask(port)
    with span("caller"):
        await ask(port, SpanContext.current().inject({})["traceparent"] + "\n")
    server.close()
    await server.wait_closed()
    traces.assert_tree("""
        request
        served
          theirs
        caller
          served
            theirs
    """)


async def test_a_periodic_task_that_is_started_in_a_request(traces: Recorder) -> None:
    """Each of its rounds is a trace, whether a task sleeps in between or a timer calls."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    async def task() -> None:
        for _ in range(2):
            with span("round of the task"):
                await asyncio.sleep(0)

    def timer(rounds: int) -> None:
        with span("round of the timer"):
            pass
        if rounds:
            loop.call_later(0, timer, rounds - 1)
        else:
            done.set()

    with span("request"), detached():
        running = asyncio.create_task(task())
        loop.call_later(0, timer, 1)
    await running
    await done.wait()
    assert sorted(traces.tree().splitlines()) == [
        *("request", "round of the task", "round of the task", "round of the timer", "round of the timer"),
    ]


async def test_a_pool_that_is_filled_in_a_request(traces: Recorder) -> None:
    """Its workers serve whoever comes, under the span of the one who asks."""
    jobs: asyncio.Queue[tuple[SpanContext, Callable[[], object], asyncio.Future[None]]] = asyncio.Queue()

    async def worker() -> None:
        while True:
            context, job, done = await jobs.get()
            with attached(context):
                job()
            done.set_result(None)

    async def fill() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(worker()) for _ in range(2)]

    async def run(name: str) -> None:
        done = asyncio.get_running_loop().create_future()
        jobs.put_nowait((SpanContext.current(), lambda: tracer.trace(name).finish(), done))
        await done

    with span("first"):
        workers = await isolated(fill())
        await run("a")
    with span("second"):
        await asyncio.gather(run("b"), run("c"))
    for one in workers:
        one.cancel()
    await asyncio.wait(workers)
    assert sorted(traces.tree().splitlines()) == ["  a", "  b", "  c", "first", "second"]


async def test_a_request_ends_while_what_it_opened_lives(traces: Recorder) -> None:
    """Its spans are delivered then: nothing that is open holds them back."""
    over = asyncio.Event()

    async def connection() -> None:
        with span("connection"):
            await over.wait()

    async def connect() -> asyncio.Task[None]:
        return asyncio.create_task(connection())

    with span("request"):
        opened = await isolated(connect())
        with span("query"):
            pass
    assert traces.tree() == "request\n  query"
    over.set()
    await opened
    assert len(traces.traces()) == 2
