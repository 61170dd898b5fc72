"""`asynctrace run -- CMD`: a program with an agent of its own, and its traces when it has ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from asynctrace.agent.client import AgentError, address_of, find_viewer
from asynctrace.agent.spans import Trace
from asynctrace.agent.store import TROUBLE, TraceStore
from asynctrace.agent.terminal import draw_trace
from asynctrace.agent.text import glyphs_for, plural, wants_color
from asynctrace.agent.threaded import start_in_thread

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what a shell answers
_SIGNAL_BASE = 128
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
# ddtrace sends past the agent when one of these says so, whatever DD_TRACE_AGENT_URL is.
_OVERRIDES = ("DD_AGENTLESS_ENABLED", "_DD_APM_TRACING_AGENTLESS_ENABLED", "OTEL_TRACES_EXPORTER")


def agent_environment(url: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a program that shall send its traces to the agent at `url`, and soon.

        subprocess.run([...], env=agent_environment(agent.url))

    Spans leave the program every 0.1 s instead of every second, and telemetry not at all, unless `environ`
    says otherwise. OpenTelemetry's programs are told the same address.
    """
    env = {name: value for name, value in environ.items() if name not in _OVERRIDES}
    env.setdefault("DD_TRACE_WRITER_INTERVAL_SECONDS", "0.1")
    env.setdefault("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false")
    env["DD_TRACE_AGENT_URL"] = env["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
    env["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    env.setdefault("OTEL_BSP_SCHEDULE_DELAY", "100")
    return env


def run(command: Sequence[str], *, max_traces: int, width: int | None, color: str, max_rows: int) -> int:
    """Runs a command, prints its traces on stdout, and returns its exit code (128 + n for signal n).

    A viewer that runs beside is sent the traces as they come.

    Args:
        command: the program and its arguments; it has the terminal to itself while it runs.
        max_traces: how many to print, the newest.
        width: columns; the terminal's when None.
        color: `auto`, `always` or `never`.
        max_rows: rows a trace; 0 for no bound.

    Raises:
        AgentError: no agent could be started.
    """
    viewer = find_viewer(os.environ)
    try:
        agent = start_in_thread(forward=viewer)
    except OSError as error:
        raise AgentError(f"cannot listen on 127.0.0.1: {error.strerror or error}") from None
    with agent:
        try:
            code = _execute(command, agent_environment(agent.url))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            print(f"asynctrace: {command[0]}: {error.strerror or error}", file=sys.stderr)
            return NOT_FOUND if missing else NOT_EXECUTABLE
        if not agent.drain():
            print("asynctrace: some traces were not decoded in time", file=sys.stderr)
    _print_traces(agent.store, Drawing(width, color, max_rows), max_traces, viewer)
    return code


def _execute(command: Sequence[str], env: dict[str, str]) -> int:
    with subprocess.Popen(command, env=env) as process, _forwarding(process):  # noqa: S603  (the user's command)
        code = process.wait()
    return _SIGNAL_BASE - code if code < 0 else code


@contextmanager
def _forwarding(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Signals to us are signals to the command, so that it ends as it would have without us."""

    def forward(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(number)

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Ctrl-C goes to all processes in the terminal's foreground: the command has it already.
        if not _in_foreground():
            forward(number, frame)

    numbers = [getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)]
    before = {number: signal.signal(number, forward) for number in numbers}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a trace is to be drawn; the words are those of the command line's options."""

    width: int | None
    color: str
    max_rows: int

    def draw(self, trace: Trace) -> str:
        """The trace as text for stdout."""
        glyphs, colored = glyphs_for(sys.stdout.encoding), wants_color(sys.stdout, self.color)
        return draw_trace(trace, width=self.width, color=colored, glyphs=glyphs, max_rows=self.max_rows)


def _print_traces(store: TraceStore, drawing: Drawing, max_traces: int, viewer: str | None) -> None:
    newest = sorted(store.traces(max_traces), key=lambda trace: trace.start)
    left_out = len(store) - len(newest)
    if not newest and not left_out:
        print(
            "asynctrace: no trace arrived. Is the program traced (ddtrace-run, asynctrace.install()), and "
            "DD_TRACE_ENABLED not false?",
            file=sys.stderr,
        )
    for trace in newest:
        print(f"\n{address_of(viewer, trace.id)}" if viewer else "")
        print(drawing.draw(trace))
    counted = store.counters.snapshot()
    if left_out:
        print(f"asynctrace: {plural(left_out, 'older trace')} not shown, see --max", file=sys.stderr)
    for name in TROUBLE:
        if counted[name]:
            print(f"asynctrace: {counted[name]} {name.replace('_', ' ')}", file=sys.stderr)
