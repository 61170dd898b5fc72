"""The context core. Knows no library but ddtrace, and every door of it that is not public is in `tracer.py`.

- `provider`: what is active, for whom; the ContextVar
- `frames`: in which generator a span was opened, and whether that is suspended
- `received`: what a consumer took from a queue or stream, and what of its work belongs to whom
- `awaited`: the place of a span to come, kept where it is asked for
- `carrier`, `plain`: headers made safe for ddtrace's propagator; those that Datadog's tracers write, without it
- `context`: `SpanContext`, how work crosses a gap; `outgoing`: its headers, written by clients at a glance
- `api`: `span()`, `start_span()`, `current_span()`, `trace_id()`
- `span`, `begin`, `off`: the `Span` handle, how it begins, and what takes its place while tracing is off
- `segment`: where spans wait that ddtrace knows nothing of yet; `record`: how they become ddtrace's
- `deferred`: local roots that begin without ddtrace
- `lean`: where there must be none of these
- `values`, `naming`: names and tags fit for the wire, and named as ddtrace does; `tags`: many of them set at once
- `threads`: work given to thread pools
- `outcome`, `failure`: what an exception that leaves a span means, and what is recorded of it
- `cancel`: who cancelled
- `delivery`, `listening`: what leaves the process, through whose hands; flushing; who looks on
- `early`: what leaves before its trace has ended, or after it has left; `handover`: what its thread does besides
- `beside`: ddtrace's own integration of asyncio
- `process`: forks, and the end of the process
- `tracer`, `aggregator`: set-up; the guarded doors of ddtrace, and of where it collects traces
- `errors`: what we raise

Importing this package sets the tracer up: it is what `import asynctrace` avoids until a name of it is used.
"""

from __future__ import annotations

from asynctrace._core import beside, process
from asynctrace._core.tracer import set_up

set_up()
beside.install()
process.install()
