"""The three shapes every tracing tutorial begins with, each a program of a few lines.

`python3 -m demos flamegraphs` runs them one by one against an agent of their own and draws what arrived.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from asynctrace import atraced, span, traced_app
from asynctrace.agent.client import find_viewer
from demos.processes import plain_environment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SLOW_SECONDS = 0.06


async def visit(server: BaseTestServer, path: str) -> None:
    """A user comes by, who traces nothing."""
    with await asyncio.to_thread(urllib.request.urlopen, str(server.make_url(path))) as reply:
        reply.read()


@atraced
async def slow() -> None:
    await asyncio.sleep(SLOW_SECONDS)


async def a_slow_function_under_a_request() -> None:
    """The request took long: one look shows where."""

    async def handle(_: web.Request) -> web.Response:
        await slow()
        return web.Response(text="done")

    app = traced_app(web.Application())
    app.router.add_get("/report", handle)
    async with TestServer(app) as server:
        await visit(server, "/report")


@atraced
async def a() -> None:
    await asyncio.sleep(0.01)


@atraced
async def b() -> None:
    await c()


@atraced
async def c() -> None:
    await asyncio.sleep(0.02)


async def a_then_b_that_calls_c() -> None:
    """A and B stand side by side, C below B."""
    with span("main"):
        await a()
        await b()


async def service_a_calls_service_b() -> None:
    """The trace goes on in the other service."""
    inner = web.Application()
    outer = web.Application()

    async def answer(_: web.Request) -> web.Response:
        await slow()
        return web.Response(text="b")

    async def ask(request: web.Request) -> web.Response:
        url = f"http://127.0.0.1:{request.query['port']}/answer"
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return web.Response(text=await reply.text())

    traced_app(inner, service="b").router.add_get("/answer", answer)
    traced_app(outer, service="a").router.add_get("/ask", ask)
    async with TestServer(inner) as b_server, TestServer(outer) as a_server:
        await visit(a_server, f"/ask?port={b_server.port}")


PROGRAMS: dict[str, Callable[[], Awaitable[None]]] = {
    "slow": a_slow_function_under_a_request,
    "siblings": a_then_b_that_calls_c,
    "services": service_a_calls_service_b,
}


def main() -> int:
    """Run each in a process of its own, and draw its trace; a viewer that runs beside gets it, too."""
    viewer = find_viewer(os.environ)
    environment = {**plain_environment(), **({"DD_TRACE_AGENT_URL": viewer} if viewer else {})}
    for name, program in PROGRAMS.items():
        print(f"{program.__name__.replace('_', ' ').capitalize()}. {program.__doc__}", flush=True)
        source = f"import asyncio, demos.flamegraphs as f; asyncio.run(f.traced_app(f.PROGRAMS[{name!r}])())"
        command = [sys.executable, "-m", "asynctrace", "run", "--", sys.executable, "-c", source]
        if code := _run(command, {**environment, "DD_SERVICE": "tutorial"}):
            return code
        print(flush=True)
    return 0


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Its exit code. Ctrl-C is for us alone: it ends the program, which would tell where it was."""
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            raise
