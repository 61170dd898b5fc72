"""`traced_app`: factories of every kind, and what is sent when the program ends."""

from __future__ import annotations

import asyncio
import functools
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import ddtrace
import pytest
from aiohttp import web
from ddtrace.trace import tracer

from asynctrace import UsageError, _app, install, span, traced_app
from tests.web.helpers import GET, app_with, ask, at, connection, hello, served

if TYPE_CHECKING:
    from pathlib import Path

    from asynctrace.testing import Recorder
    from tests.sink import Sink


def plain(path: str) -> web.Application:
    return app_with(hello, path)


async def coroutine(path: str) -> web.Application:
    return app_with(hello, path)


class Maker:
    def __call__(self, path: str) -> web.Application:
        return app_with(hello, path)


class AsyncMaker:
    async def __call__(self, path: str) -> web.Application:
        return app_with(hello, path)


async def in_runner(path: str) -> web.AppRunner:
    return web.AppRunner(app_with(hello, path))


KINDS = {
    "plain": lambda: traced_app(plain, service="shop"),
    "coroutine": lambda: traced_app(coroutine, service="shop"),
    "decorator": lambda: traced_app(service="shop")(coroutine),
    "partial": lambda: functools.partial(traced_app(functools.partial(plain), service="shop")),
    "object": lambda: traced_app(Maker(), service="shop"),
    "async object": lambda: traced_app(AsyncMaker(), service="shop"),
    "method": lambda: traced_app(Maker().__call__, service="shop"),
    "runner": lambda: traced_app(in_runner, service="shop"),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
async def test_factories_of_every_kind(serve: Any, traces: Recorder, kind: Any) -> None:
    """Sync and async, with arguments, bare and with brackets: what the factory gives comes back, traced."""
    made = kind()("/tea")
    if asyncio.iscoroutine(made):
        made = await made
    server = await serve(made.app if isinstance(made, web.AppRunner) else made)
    await ask(server, "/tea")
    [request] = await served(traces)
    assert (request.resource, request.service) == ("GET /tea", "shop")
    assert traces.one("work").service == "shop"
    assert ddtrace.config.service == "tests"


def test_a_factory_may_give_anything() -> None:
    """It comes back as it is, with name and docstring of the factory kept."""
    thing = object()

    @traced_app
    def make(*args: object, key: object = None) -> object:
        """What it makes."""
        return args, key, thing

    assert make(1, key=2) == ((1,), 2, thing)
    assert (make.__name__, make.__doc__) == ("make", "What it makes.")


def test_what_is_no_factory_is_refused() -> None:
    """A clear error that says what to pass."""
    with pytest.raises(UsageError, match="app factory, got int"):
        traced_app(7)


@pytest.mark.parametrize("fails", [False, True])
async def test_the_last_traces_leave_after_the_clean_up(serve: Any, sink: Sink, fails: bool) -> None:
    """What `on_cleanup` does is sent, too, whoever registered it and when; also when that raises."""
    app = traced_app(app_with(hello))

    async def cleanup(_: web.Application) -> None:
        with span("cleanup"):
            if fails:
                raise RuntimeError("of the user's")

    app.on_cleanup.append(cleanup)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await runner.cleanup()
    except RuntimeError:
        assert fails
    assert sink.has_at_once("cleanup")


async def test_without_patches_too(monkeypatch: pytest.MonkeyPatch, sink: Sink) -> None:
    """Where aiohttp is not patched, the flush is the last of the clean-ups that were there."""
    monkeypatch.setenv("DD_TRACE_AIOHTTP_ENABLED", "false")
    app = app_with(hello)

    async def cleanup(_: web.Application) -> None:
        span("cleanup").open().finish()

    app.on_cleanup.append(cleanup)
    runner = web.AppRunner(traced_app(traced_app(app)))
    await runner.setup()
    await runner.cleanup()
    assert sink.has_at_once("cleanup")


SHOP = """
import asyncio
from aiohttp import web
from asynctrace import span, traced_app

stopping = asyncio.Event()

async def slow(request):
    print("in hand", flush=True)
    with span("work"):
        await stopping.wait()
        if request.query.get("stuck"):
            await asyncio.Event().wait()
    return web.Response(text="done")

async def stop(app):
    stopping.set()

@traced_app(service="shop")
async def create_app():
    app = web.Application()
    app.router.add_get("/", slow)
    app.on_shutdown.append(stop)
    return app

def told(*_):
    print("ready", flush=True)

if __name__ == "__main__":
    import sys
    web.run_app(create_app(), host="127.0.0.1", port=int(sys.argv[1]), print=told, shutdown_timeout=0.1)
"""

SERVERS = {
    "run_app": ["shop.py", "{port}"],
    "gunicorn": ["-m", "gunicorn", "shop:create_app", "-k", "aiohttp.GunicornWebWorker"],
    "gunicorn, uvloop": ["-m", "gunicorn", "shop:create_app", "-k", "aiohttp.GunicornUVLoopWebWorker"],
}


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("server", "query"),
    [
        *((server, "") for server in SERVERS),
        ("run_app", "?stuck=1"),
    ],  # gunicorn kills before aiohttp gives up
)
async def test_a_request_in_flight_at_sigterm_is_sent(
    tmp_path: Path, sink: Sink, unused_tcp_port: int, server: str, query: str
) -> None:
    """Answered within the server's patience or given up, its trace arrives before the process has ended."""
    (tmp_path / "shop.py").write_text(SHOP)
    words = [word.format(port=unused_tcp_port) for word in SERVERS[server]]
    if words[0] == "-m":
        words += ["--bind", f"127.0.0.1:{unused_tcp_port}", "--graceful-timeout", "10"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await at(unused_tcp_port)
        async with connection(unused_tcp_port, GET.replace(" / ", f" /{query} ")) as client:
            while (line := await process.stdout.readline()) != b"in hand\n":
                assert line, await process.communicate()
            process.send_signal(signal.SIGTERM)
            answer = await client.reader.read()
            assert answer.endswith(b"done") is not bool(query)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    spans = sink.wait_for(2, timeout=0.5)
    assert {one["service"] for one in spans} == {"shop"}
    [request] = [one for one in spans if one["name"] == "aiohttp.request"]
    outcome = request["meta"].get("async.outcome", "ok")
    assert (outcome, request["error"]) == ("cancelled" if query else "ok", 0)


PROGRAM = """
import asyncio
from asynctrace import current_span, span, traced_app

@traced_app(service="job")
async def main(code):
    assert current_span() is None
    with span("work"):
        await asyncio.sleep(0)
    return code

raise SystemExit(asyncio.run(main(7)))
"""


def test_a_program_under_traced_app_delivers_its_spans(sink: Sink) -> None:
    """`async def main()`: result as ever, no span around it, everything sent at its end."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (7, "")
    [work] = sink.wait_for(1)
    assert (work["name"], work["service"], work["parent_id"]) == ("work", "job", 0)


async def test_traced_before_and_after_install(serve: Any, traces: Recorder) -> None:
    """Any order of `traced_app`, `install` and the factory's own making gives one span a request."""
    app = traced_app(app_with(hello))
    install()
    await ask(await serve(traced_app(lambda: app)()))
    await served(traces)


@pytest.mark.parametrize("kind", ["application", "program"])
async def test_an_agent_that_never_answers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for it so long and no longer."""
    answers = threading.Event()
    monkeypatch.setattr(tracer, "flush", answers.wait)
    monkeypatch.setattr(_app, "FLUSH_SECONDS", 0.1)
    try:
        if kind == "program":

            async def main() -> str:
                with span("work"):
                    return "done"

            assert await traced_app(main)() == "done"
        else:
            runner = web.AppRunner(traced_app(plain)("/"))
            await runner.setup()
            await runner.cleanup()
        assert not answers.is_set()
    finally:
        answers.set()
