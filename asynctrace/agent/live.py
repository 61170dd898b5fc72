"""`asynctrace view`: the agent in the foreground, a line for each trace when it has come to rest.

A trace has no end that anyone announces: its spans come in chunks, from several processes, each once a
second. So it counts as complete when nothing new has come for a little longer than that. When more comes after
all, its line is printed again.
"""

import asyncio
import errno
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from asynctrace.agent.client import AgentError, identify
from asynctrace.agent.embedded import Agent
from asynctrace.agent.spans import LOW_64, Trace
from asynctrace.agent.store import MIB, TraceStore
from asynctrace.agent.text import Paint, cells, clean, cut, duration, glyphs_for, plural, wants_color

DEFAULT_PORT = 8126
QUIET = 1.5  # seconds; ddtrace sends once a second
_REMEMBERED = 10_000  # traces whose line was printed
_TROUBLE = ("bad_payloads", "dropped_payloads", "bad_spans", "dropped_spans", "evicted_traces")


async def quiet_traces(store: TraceStore, quiet: float = QUIET) -> AsyncIterator[tuple[Trace, int]]:
    """Traces to which nothing was added for `quiet` seconds, each with its spans when last yielded."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda: loop.call_soon_threadsafe(changed.set))
    waiting: dict[int, tuple[float, Trace]] = {}  # in the order they are due
    yielded: dict[int, int] = {}
    version = 0
    try:
        while True:
            changed.clear()
            traces, version = store.changed_since(version)
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
                yielded[key] = len(trace.spans)
                if len(yielded) > _REMEMBERED:
                    del yielded[next(iter(yielded))]
            rest = next(iter(waiting.values()))[0] - loop.time() if waiting else None
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), rest)
    finally:
        unsubscribe()


def trace_line(trace: Trace, before: int, paint: Paint, micro: str) -> str:
    """A trace in one line: id, what it was, how long, how much of it, by whom, and whether it failed."""
    root = trace.root
    title = cut(clean((root.resource or root.name) if root else ""), 40)
    names = ", ".join(clean(name) for name in trace.services)
    paint.know(trace.services)
    facts = [
        paint.dim(trace.id),
        title + " " * (24 - cells(title)),
        f"{duration(trace.duration, micro):>7}",
        plural(len(trace.spans), "span") + (f" ({len(trace.spans) - before} new)" if before else ""),
        f"{plural(len(trace.services), 'service')} ({names})",
    ]
    if trace.errors:
        facts.append(paint.error(plural(trace.errors, "error")))
    if trace.sampled_out:
        facts.append(paint.dim("sampled out"))
    return "  ".join(facts)


def view(host: str, port: int | None, max_memory: int, port_file: str | None) -> int:
    """Runs until it is interrupted or terminated; the exit code.

    Args:
        host: the address to listen on.
        port: the port; None for 8126, or any free one when that is taken. 0 for any free one.
        max_memory: the bound on the traces it keeps, in MiB.
        port_file: a file to write the port to, when it listens.

    Raises:
        AgentError: the port is taken, or the address is not one of this machine.
    """
    try:
        return asyncio.run(_view(host, port, max_memory, port_file))
    except KeyboardInterrupt:  # where the loop knows no signal handlers
        return 0


async def _view(host: str, port: int | None, max_memory: int, port_file: str | None) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stopped.set)
    agent = await _listen(host, port, max_memory * MIB)
    try:
        if port_file:
            await asyncio.to_thread(_write_port, Path(port_file), agent.port)
        print(f"asynctrace listens at {agent.url}. In the programs to be traced set")
        print(f"\n    DD_TRACE_AGENT_URL={agent.url}\n")
        print(f"asynctrace show last --url {agent.url} draws the newest trace. Ctrl-C ends.", flush=True)
        lines = asyncio.ensure_future(_print_lines(agent.store))
        await stopped.wait()
        await agent.drain(1.0)
        lines.cancel()
        with suppress(asyncio.CancelledError):
            await lines
    finally:
        await agent.stop()
    _print_trouble(agent.store, {})
    return 0


async def _listen(host: str, port: int | None, max_bytes: int) -> Agent:
    agent = Agent(host, DEFAULT_PORT if port is None else port, max_bytes=max_bytes)
    try:
        await agent.start()
        return agent
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise AgentError(
                f"cannot listen on {host}: {error.strerror or error}", "see --host and --port"
            ) from None
    holder = await asyncio.to_thread(identify, agent.url)
    if port is not None:
        raise AgentError(f"port {port} is taken by {holder}", "--port 0 takes a free one")
    print(f"asynctrace: port {agent.port} is taken by {holder}; taking a free one", file=sys.stderr)
    agent = Agent(host, 0, max_bytes=max_bytes)
    await agent.start()
    return agent


def _write_port(path: Path, port: int) -> None:
    """Writes the port in one step: who waits for the file never reads half of it."""
    half = path.with_name(f".{path.name}.part")
    try:
        half.write_text(f"{port}\n")
        half.replace(path)
    except OSError as error:
        raise AgentError(f"cannot write {path}: {error.strerror}", "see --port-file", usage=True) from None


async def _print_lines(store: TraceStore) -> None:
    paint, glyphs = Paint(wants_color(sys.stdout)), glyphs_for(sys.stdout.encoding)
    told: dict[str, int] = {}
    async for trace, before in quiet_traces(store):
        print(trace_line(trace, before, paint, glyphs.micro), flush=True)
        told = _print_trouble(store, told)


def _print_trouble(store: TraceStore, told: dict[str, int]) -> dict[str, int]:
    """Says what was dropped since it was last told: a viewer that hides its gaps misleads."""
    counted = store.counters.snapshot()
    news = [
        f"{counted[name]} {name.replace('_', ' ')}" for name in _TROUBLE if counted[name] > told.get(name, 0)
    ]
    if news:
        print("asynctrace: so far " + ", ".join(news), file=sys.stderr, flush=True)
    return counted
