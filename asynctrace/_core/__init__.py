"""The context core. Knows no library but ddtrace, and every door of it that is not public is in `tracer.py`.

- `provider`: what is active, for whom; the ContextVar
- `frames`: in which generator a span was opened, and whether that is suspended
- `received`: what a consumer took from a queue or stream, and what of its work belongs to whom
- `awaited`: the place of a span to come, kept where it is asked for
- `plain`: the headers that Datadog's tracers write, read here
- `context`: `SpanContext`, how work crosses a gap
- `span`: the `Span` handle, `span()`, `start_span()`
- `threads`: work given to thread pools
- `outcome`: what an exception that leaves a span means
- `cancel`: who cancelled
- `delivery`: what leaves the process, through whose hands; flushing
- `early`: what leaves before its trace has ended
- `beside`: ddtrace's own integration of asyncio
- `process`: forks, and the end of the process
- `tracer`: set-up; the guarded doors
- `errors`: what we raise

Importing this package sets the tracer up: it is what `import asynctrace` avoids until a name of it is used.
"""

from __future__ import annotations

from asynctrace._core import beside, process
from asynctrace._core.tracer import set_up

set_up()
beside.install()
process.install()
