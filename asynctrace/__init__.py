"""asynctrace: every span in the right place, in every asyncio shape. Built on ddtrace.

    from asynctrace import SpanContext, atraced, span, traced_app

    @atraced                                   # a span a call, named after the function
    async def price(cart): ...

    with span("checkout", tags={"items": 3}):  # a span a block, in async and plain code
        await asyncio.gather(price(a), price(b))

    headers = SpanContext.current().inject({})           # across a gap of your own ...
    with span("job", parent=SpanContext.extract(headers)):   # ... and on the other side
        ...

    app = traced_app(make_app)()               # an aiohttp app, its clients, queries and messages
    install()                                  # or: the libraries in use, no code touched

`asynctrace run -- python app.py` runs a program against a local agent and draws its traces in the terminal.

Names are loaded when they are used: `import asynctrace` itself loads neither ddtrace nor any library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from asynctrace._app import traced_app
    from asynctrace._core.api import current_span, span, start_span, trace_id
    from asynctrace._core.context import ROOT, SpanContext, attached, detached
    from asynctrace._core.delivery import shutdown
    from asynctrace._core.errors import (
        AsyncTraceError,
        IntegrationError,
        MissingLibraryError,
        UnsupportedVersionError,
        UsageError,
    )
    from asynctrace._core.span import Span
    from asynctrace._decorator import atraced
    from asynctrace._integrations import install, uninstall
    from asynctrace._tasks import isolated, spawn
    from asynctrace.aio_pika import traced_consumer, traced_producer

_HOMES = {
    "traced_app": "_app",
    "current_span": "_core.api",
    "span": "_core.api",
    "start_span": "_core.api",
    "trace_id": "_core.api",
    "ROOT": "_core.context",
    "SpanContext": "_core.context",
    "attached": "_core.context",
    "detached": "_core.context",
    "shutdown": "_core.delivery",
    "AsyncTraceError": "_core.errors",
    "IntegrationError": "_core.errors",
    "MissingLibraryError": "_core.errors",
    "UnsupportedVersionError": "_core.errors",
    "UsageError": "_core.errors",
    "Span": "_core.span",
    "atraced": "_decorator",
    "install": "_integrations",
    "uninstall": "_integrations",
    "isolated": "_tasks",
    "spawn": "_tasks",
    "traced_consumer": "aio_pika",
    "traced_producer": "aio_pika",
}

__all__ = [
    "ROOT",
    "AsyncTraceError",
    "IntegrationError",
    "MissingLibraryError",
    "Span",
    "SpanContext",
    "UnsupportedVersionError",
    "UsageError",
    "atraced",
    "attached",
    "current_span",
    "detached",
    "install",
    "isolated",
    "shutdown",
    "span",
    "spawn",
    "start_span",
    "trace_id",
    "traced_app",
    "traced_consumer",
    "traced_producer",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
