"""Trace and span ids on the lines of logging and structlog, in programs of their own; ids for error pages; baggage."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import structlog
from ddtrace.trace import tracer

from asynctrace import install, span, trace_id, uninstall
from tests.core.process import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sink import Sink

PYTHON = (sys.executable, "-W", "error")
DDTRACE_RUN = (str(Path(sys.executable).with_name("ddtrace-run")), *PYTHON)

PROGRAM = """
    import asyncio, json, logging, sys
    from asynctrace import atraced, current_span, span, spawn, trace_id, traced_app
    from asynctrace.queues import TracedQueue
    LOGGER

    def say(where):
        log.warning(where)

    @atraced
    async def decorated():
        say("decorated")
        await asyncio.sleep(0)
        say("decorated")

    async def consumer(queue):
        await queue.get()
        say("consumer")
        with span("handle"):
            say("consumer's span")

    async def background(go):
        await go.wait()
        say("background")
        with span("late"):
            say("background's span")

    @traced_app(service="shop")
    async def main():
        say("outside")
        queue, go = TracedQueue(), asyncio.Event()
        consuming = asyncio.create_task(consumer(queue))
        with span("request"):
            await decorated()
            queue.put_nowait(1)
            task = spawn(background(go))
            say("request")
        go.set()
        await asyncio.gather(task, consuming)

    asyncio.run(main())
"""

STDLIB = """
    class Json(logging.Formatter):
        def format(self, record):
            names = "trace_id", "span_id", "service", "env", "version"
            ids = {f"dd.{name}": getattr(record, f"dd.{name}") for name in names}
            return json.dumps({"event": record.getMessage(), **ids})
    out = logging.StreamHandler(sys.stdout)
    out.setFormatter(Json())
    log = logging.getLogger("shop")
    log.addHandler(out)
"""

STRUCTLOG = """
    import structlog
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    log = structlog.get_logger()
"""

LIBRARIES = {"logging": STDLIB, "structlog": STRUCTLOG}


def printed(program: str, by: tuple[str, ...], **settings: str) -> list[Any]:
    """The lines of a program that ends well, and says nothing else."""
    done = subprocess.run(
        [*by, "-c", textwrap.dedent(program)],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("by", [PYTHON, DDTRACE_RUN], ids=["python", "ddtrace-run"])
def test_every_line_says_where_it_was_written(library: str, by: tuple[str, ...], sink: Sink) -> None:
    """In a decorated function, a consumer, a background task, with spans of their own and without."""
    program = PROGRAM.replace("    LOGGER\n", LIBRARIES[library])
    lines = printed(program, by, DD_TRACE_AGENT_URL=sink.url, DD_ENV="prod", DD_VERSION="1.2")
    spans = {one["name"]: one for one in sink.wait_for(4)}
    upper = spans["request"]["meta"]["_dd.p.tid"]
    said = {(line["event"], line["dd.trace_id"], line["dd.span_id"]) for line in lines}
    assert len(lines) == 8
    for event, name in {
        "decorated": "__main__.decorated",
        "request": "request",
        "consumer": "request",  # the producer of what it took
        "consumer's span": "handle",
        "background": "request",  # under which it was started, and which has ended
        "background's span": "late",
    }.items():
        assert (event, f"{upper}{spans[name]['trace_id']:016x}", str(spans[name]["span_id"])) in said
    assert ("outside", "0", "0") in said
    assert {(line["dd.service"], line["dd.env"], line["dd.version"]) for line in lines} == {
        ("shop", "prod", "1.2")
    }


def test_switched_off(sink: Sink) -> None:
    """`DD_LOGS_INJECTION=false`: records are Python's own, and the way they are made is."""
    program = """
        import json, logging
        before = logging.Logger.makeRecord
        from asynctrace import install, span
        install()
        install("logging")
        with span("a"):
            record = logging.makeLogRecord(vars(before(logging.getLogger(), "a", 30, "", 1, "", (), None)))
        print(json.dumps([logging.Logger.makeRecord is before, "dd.trace_id" in vars(record)]))
    """
    assert printed(program, PYTHON, DD_TRACE_AGENT_URL=sink.url, DD_LOGS_INJECTION="false") == [[True, False]]


@pytest.mark.parametrize("setting", ["true", "structured", "1"])
def test_switched_on(setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """In every way that ddtrace knows; and by `uninstall()` off again."""
    monkeypatch.setenv("DD_LOGS_INJECTION", setting)
    install("logging")
    with span("a") as a:
        logging.getLogger("shop").warning("on")
        assert vars(caplog.records[0])["dd.trace_id"] == trace_id()
        assert vars(caplog.records[0])["dd.span_id"] == str(a.span_id)
        uninstall()
        logging.getLogger("shop").warning("off")
    assert "dd.trace_id" not in vars(caplog.records[1])


def test_what_the_user_has_switched_on_stays_on() -> None:
    """`ddtrace.patch(logging=True)` before: neither twice, nor off with ours."""
    program = """
        import json, logging
        import ddtrace
        ddtrace.patch(logging=True)
        patched = logging.Logger.makeRecord
        from asynctrace import install, uninstall
        install()
        twice = logging.Logger.makeRecord != patched
        uninstall()
        print(json.dumps([twice, logging.Logger.makeRecord != patched]))
    """
    assert printed(program, PYTHON, DD_TRACE_AGENT_URL="http://127.0.0.1:9") == [[False, False]]


def test_a_chain_that_was_configured_before() -> None:
    """structlog's loggers say their ids whenever they were made; `uninstall()` leaves the user's chain as it was."""
    own = structlog.testing.LogCapture()
    structlog.configure(processors=[own])
    try:
        log = structlog.get_logger()
        install("structlog")
        with span("a"):
            log.warning("on")
            here = trace_id()
        uninstall()
        log.warning("off")
        assert [entry.get("dd.trace_id") for entry in own.entries] == [here, None]
        assert structlog.get_config()["processors"] == [own]
    finally:
        structlog.reset_defaults()


# -- ids and baggage, from one service to another

SERVICE = """
    import logging, socket
    from aiohttp import web
    from ddtrace.trace import tracer
    from asynctrace import atraced, trace_id, traced_app

    @web.middleware
    async def error_page(request, handler):
        try:
            return await handler(request)
        except ZeroDivisionError:
            return web.json_response({"sorry": trace_id()}, status=500)

    @atraced
    async def plan():
        return tracer.current_span().context.get_baggage_item("plan")

    async def hello(request):
        return web.json_response({"plan": await plan()})

    async def fail(request):
        return web.json_response(1 / 0)

    @traced_app(service="second")
    def make_app():
        app = web.Application(middlewares=[error_page])
        app.add_routes([web.get("/", hello), web.get("/fail", fail)])
        return app

    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        web.run_app(make_app(), sock=listening, print=None)
"""


@pytest.fixture
def second(sink: Sink) -> Iterator[str]:
    """The address of a second service, in a process of its own."""
    command = [*PYTHON, "-c", textwrap.dedent(SERVICE)]
    settings = environment(DD_TRACE_AGENT_URL=sink.url)
    with subprocess.Popen(command, env=settings, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield f"http://127.0.0.1:{int(running.stdout.readline())}"
        running.terminate()


async def test_an_error_page_names_its_trace(installed: Any, second: str, sink: Sink) -> None:
    """`trace_id()` in a middleware: the id of the trace that the caller, in another service, has begun."""
    installed("aiohttp")
    with span("caller") as caller:
        async with aiohttp.ClientSession() as session, session.get(f"{second}/fail") as response:
            assert (response.status, await response.json()) == (500, {"sorry": f"{caller.trace_id:032x}"})
    served = next(one for one in sink.wait_for(3) if one["service"] == "second")
    assert served["trace_id"] == caller.trace_id % 2**64


async def test_baggage_goes_from_one_service_to_another(installed: Any, second: str, sink: Sink) -> None:
    """Set on ddtrace's view of a span here, it is read there, below an `@atraced` function."""
    installed("aiohttp")
    with span("caller"):
        current = tracer.current_span()
        assert current is not None
        current.context.set_baggage_item("plan", "gold")
        async with aiohttp.ClientSession() as session, session.get(second) as response:
            assert await response.json() == {"plan": "gold"}
