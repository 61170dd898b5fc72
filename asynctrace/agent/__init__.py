"""The embedded agent: a process on this machine that takes what Datadog tracers send, and shows it.

It speaks the trace protocol of the Datadog agent, so that any ddtrace program can use it unchanged, and it
loads neither ddtrace nor the tracing half of asynctrace.

    from asynctrace.agent import draw_trace, start_in_thread

    with start_in_thread() as agent:                      # on a free port of 127.0.0.1
        run_my_program(env={"DD_TRACE_AGENT_URL": agent.url})
        trace = agent.wait_for(lambda trace: len(trace.services) == 3)
        print(draw_trace(trace))

The way of a payload, one file each:

    tracers     what tracers call: answered at once, handed on
    inflate     bodies that come compressed, no further than they may grow
    forward     a real agent behind ours, which gets everything as well
    intake      bodies that wait for decoding, bounded in bytes; one thread works them off
    protocol    v0.3, v0.4 and v0.5 bodies to spans; lenient does so for bodies that are not quite right
    wire        a span in the forms it has on the wire, and its way into ours
    otlp        OpenTelemetry's bodies to spans; protobuf reads their encoding
    spans       what a span, a link and a trace are here: plain data, to and from JSON
    store/      traces in SQLite, in memory or a file: joins chunks, refuses duplicates, evicts the oldest

And back:

    readers     the read API; feed is the list, filtered by a query, once or live
    analysis/   why a trace took so long: waits, lanes, critical path, findings
    glance      what a line of the list says of a trace's analysis
    page_data   a trace as the page wants it; export as other viewers do
    page/       the page: JavaScript modules, one job each; main.js puts them together
    server      all of it under one address; address says for which requests
    embedded    the agent as an object, in a running loop; threaded in a thread of its own
    waiting     for events, with a bound
    ports       who has a port, sockets that were left behind
    client      the read API from the other side, for `asynctrace show`
    tree        spans to the rows of a drawing: parents, order, folding
    text        cells and colours: safe text, widths, durations
    terminal    a trace as text on a time axis
    live, run   `asynctrace view` and `asynctrace run`

`spans`, `analysis`, `client`, `tree`, `text` and `terminal` need the standard library only; the rest needs the
extra `asynctrace[view]`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynctrace.agent.embedded import Agent
    from asynctrace.agent.run import agent_environment
    from asynctrace.agent.spans import Link, Span, Trace
    from asynctrace.agent.store import TraceStore
    from asynctrace.agent.terminal import draw_trace
    from asynctrace.agent.threaded import AgentThread, start_in_thread

__all__ = [
    "Agent",
    "AgentThread",
    "Link",
    "Span",
    "Trace",
    "TraceStore",
    "agent_environment",
    "draw_trace",
    "start_in_thread",
]

_HOME = {
    "Agent": "embedded",
    "AgentThread": "threaded",
    "Link": "spans",
    "Span": "spans",
    "Trace": "spans",
    "TraceStore": "store",
    "agent_environment": "run",
    "draw_trace": "terminal",
    "start_in_thread": "threaded",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
