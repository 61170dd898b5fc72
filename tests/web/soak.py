"""`python -m tests.web.soak COUNT`: so many requests, 50 at once, through client and server; prints what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from ddtrace.trace import TraceFilter, tracer

from asynctrace import install, shutdown, span, trace_id
from tests.leaks.workloads import LAPS, resident

if TYPE_CHECKING:
    from ddtrace.trace import Span

CONCURRENCY = 50


class Count(TraceFilter):
    """Counts what would be sent, and sends nothing: ddtrace's own buffers are not what is measured."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()

    def process_trace(self, trace: list[Span]) -> list[Span] | None:
        self.spans.update(f"{one.name} {one.get_tag('span.kind')}" for one in trace)
        return None


async def handler(_: web.Request) -> web.Response:
    with span("work"):
        await asyncio.sleep(0)
    return web.Response(text=trace_id())


async def soak(count: int) -> None:
    counted = Count()
    tracer.configure(trace_processors=[counted])
    install("aiohttp")
    app = web.Application()
    app.router.add_get("/{name}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/tea"
    sizes, crossed, numbers = [], 0, iter(range(count))

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal crossed
        for number in numbers:
            with span("request"):
                async with session.get(url) as reply:
                    crossed += await reply.text() != trace_id()
            if number % (count // LAPS) == 0:
                sizes.append(resident())

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
    await runner.cleanup()
    await shutdown(10)
    print(json.dumps({"sizes": sizes, "crossed": crossed, "spans": counted.spans}))


if __name__ == "__main__":
    asyncio.run(soak(int(sys.argv[1])))
