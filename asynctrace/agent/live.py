"""`asynctrace view`: the agent in the foreground, its page, and with `--tail` a line for each trace come to rest.

A trace has no end that anyone announces: its spans come in chunks, from several processes, each once a
second. So it counts as complete when nothing new has come for a little longer than that. When more comes after
all, its line is printed again.
"""

import asyncio
import errno
import gc
import os
import signal
import sys
import webbrowser
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from asynctrace.agent.client import AgentError
from asynctrace.agent.embedded import Agent
from asynctrace.agent.ports import who_holds
from asynctrace.agent.spans import LOW_64, Summary
from asynctrace.agent.store import MIB, TROUBLE, TraceStore
from asynctrace.agent.text import Paint, cells, clean, cut, duration, glyphs_for, plural, wants_color
from asynctrace.agent.waiting import wait_any

DEFAULT_PORT = 8126
DEFAULT_OTLP_PORT = 4318
QUIET = 1.5  # seconds; ddtrace sends once a second
_REMEMBERED = 10_000  # traces whose line was printed


async def quiet_traces(store: TraceStore, quiet: float = QUIET) -> AsyncIterator[tuple[Summary, int]]:
    """Traces to which nothing was added for `quiet` seconds, each with its spans when last yielded."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda: loop.call_soon_threadsafe(changed.set))
    waiting: dict[int, tuple[float, Summary]] = {}  # in the order they are due
    yielded: dict[int, int] = {}
    version = 0
    try:
        while True:
            changed.clear()
            traces, version = store.summaries_since(version)
            for trace in traces:
                key = trace.trace_id & LOW_64  # the upper half may become known later
                waiting.pop(key, None)
                waiting[key] = (loop.time() + quiet, trace)
            while waiting:
                key, (due, trace) = next(iter(waiting.items()))
                if due > loop.time():
                    break
                del waiting[key]
                yield trace, yielded.pop(key, 0)
                yielded[key] = trace.span_count
                if len(yielded) > _REMEMBERED:
                    del yielded[next(iter(yielded))]
            rest = next(iter(waiting.values()))[0] - loop.time() if waiting else None
            await wait_any(changed, timeout=rest)
    finally:
        unsubscribe()


def trace_line(trace: Summary, before: int, paint: Paint, micro: str) -> str:
    """A trace in one line: id, what it was, how long, how much of it, by whom, and whether it failed."""
    title = cut(clean(trace.resource or trace.name), 40)
    names = ", ".join(clean(name) for name in trace.services)
    paint.know(trace.services)
    facts = [
        paint.dim(trace.id),
        title + " " * (24 - cells(title)),
        f"{duration(trace.duration, micro):>7}",
        plural(trace.span_count, "span") + (f" ({trace.span_count - before} new)" if before else ""),
        f"{plural(len(trace.services), 'service')} ({names})",
    ]
    if trace.errors:
        facts.append(paint.error(plural(trace.errors, "error")))
    if trace.sampled_out:
        facts.append(paint.dim("sampled out"))
    return "  ".join(facts)


@dataclass(frozen=True)
class ViewOptions:
    """What `asynctrace view` was asked for; the words are those of its options."""

    host: str = "127.0.0.1"
    port: int | None = None
    max_size: int = 64
    db: str | None = None
    socket: str | None = None
    otlp_port: int | None = None
    forward: str | None = None
    port_file: str | None = None
    tail: bool = False
    browser: bool = True


def view(options: ViewOptions) -> int:
    """Runs until it is interrupted or terminated; the exit code.

    Raises:
        AgentError: a port is taken, the address is not one of this machine, or a file cannot be used.
    """
    # A trace is 100,000 objects of the same age: to look through them often is for nothing.
    gc.set_threshold(100_000, 20, 50)
    try:
        return asyncio.run(_view(options))
    except KeyboardInterrupt:  # where the loop knows no signal handlers
        return 0


async def _view(options: ViewOptions) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stopped.set)
    agent = await _listen(options)
    try:
        otlp = await _listen_also(agent, options)
        if options.port_file:
            await asyncio.to_thread(_write_port, Path(options.port_file), agent.port)
        _greet(agent.url, otlp, options)
        telling = asyncio.ensure_future(_print_news(agent.store, lines=options.tail))
        await stopped.wait()
        await agent.drain(1.0)
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
    finally:
        await agent.stop()
    _print_trouble(agent.store, {})
    agent.store.close()
    return 0


async def _listen(options: ViewOptions) -> Agent:
    agent = _agent(options, DEFAULT_PORT if options.port is None else options.port)
    try:
        await agent.start()
        return agent
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise AgentError(
                f"cannot listen on {options.host}: {error.strerror or error}", "see --host and --port"
            ) from None
    agent.store.close()
    holder = await asyncio.to_thread(who_holds, agent.url, agent.port)
    if options.port is not None:
        raise AgentError(f"port {agent.port} is taken by {holder}", "--port 0 takes a free one")
    print(f"asynctrace: port {agent.port} is taken by {holder}; taking a free one", file=sys.stderr)
    agent = _agent(options, 0)
    await agent.start()
    return agent


def _agent(options: ViewOptions, port: int) -> Agent:
    return Agent(options.host, port, max_bytes=options.max_size * MIB, db=options.db, forward=options.forward)


async def _listen_also(agent: Agent, options: ViewOptions) -> str:
    """The other doors; returns the address for OpenTelemetry."""
    if options.socket:
        try:
            await agent.listen_at(options.socket)
        except OSError as error:
            raise AgentError(
                f"cannot listen at {options.socket}: {error.strerror or error}", "see --socket"
            ) from None
    wanted = options.otlp_port
    if wanted is None and options.port is not None:  # who chose one port wants no other
        return agent.url
    try:
        port = await agent.listen_also(DEFAULT_OTLP_PORT if wanted is None else wanted)
    except OSError as error:
        if wanted is not None:
            raise AgentError(
                f"cannot listen on port {wanted}: {error.strerror or error}", "see --otlp-port"
            ) from None
        print(
            f"asynctrace: port {DEFAULT_OTLP_PORT} is taken; OpenTelemetry's spans go to {agent.url}",
            file=sys.stderr,
        )
        return agent.url
    return agent.url.removesuffix(str(agent.port)) + str(port)


def _greet(url: str, otlp: str, options: ViewOptions) -> None:
    print(f"asynctrace listens at {url}. Open it in a browser; in the programs to be traced set\n")
    print(f"    DD_TRACE_AGENT_URL={url}")
    if options.socket:
        print(f"    DD_TRACE_AGENT_URL=unix://{Path(options.socket).absolute()}")
    print(f"    OTEL_EXPORTER_OTLP_ENDPOINT={otlp}  OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n")
    if options.forward:
        print(f"Everything Datadog's tracers send goes on to {options.forward} as well.")
    print(f"asynctrace show last --url {url} draws the newest trace here. Ctrl-C ends.", flush=True)
    if options.browser and _has_display():
        webbrowser.open(url)


def _has_display() -> bool:
    """Whether a browser would open in a window, and somebody is there to see it."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _write_port(path: Path, port: int) -> None:
    """Writes the port in one step: who waits for the file never reads half of it."""
    half = path.with_name(f".{path.name}.part")
    try:
        half.write_text(f"{port}\n")
        half.replace(path)
    except OSError as error:
        raise AgentError(f"cannot write {path}: {error.strerror}", "see --port-file", usage=True) from None


async def _print_news(store: TraceStore, *, lines: bool) -> None:
    paint, glyphs = Paint(wants_color(sys.stdout)), glyphs_for(sys.stdout.encoding)
    told: dict[str, int] = {}
    async for trace, before in quiet_traces(store):
        if lines:
            print(trace_line(trace, before, paint, glyphs.micro), flush=True)
        told = _print_trouble(store, told)


def _print_trouble(store: TraceStore, told: dict[str, int]) -> dict[str, int]:
    """Says what was dropped since it was last told."""
    counted = store.counters.snapshot()
    news = [
        f"{counted[name]} {name.replace('_', ' ')}" for name in TROUBLE if counted[name] > told.get(name, 0)
    ]
    if news:
        print("asynctrace: so far " + ", ".join(news), file=sys.stderr, flush=True)
    return counted
