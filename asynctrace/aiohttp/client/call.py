"""A call, from its start to its end, as aiohttp's `TraceConfig` tells of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asynctrace._core.api import described
from asynctrace._core.off import OFF
from asynctrace._core.tracer import tracer
from asynctrace.aiohttp.client.describe import describe_call
from asynctrace.aiohttp.switch import patches

if TYPE_CHECKING:
    from types import SimpleNamespace

    import aiohttp

    from asynctrace._core.span import Span

log = logging.getLogger("asynctrace")

FIRST_CLIENT_ERROR = 400


def record_status(span: Span, status: int, *, error: bool) -> None:
    """The status; text, as Datadog's search wants it."""
    span.set_tag("http.status_code", str(status))
    if error:
        span.set_outcome("error")


async def _call_started(_: Any, ctx: SimpleNamespace, params: Any) -> None:
    ctx.span = OFF
    if ctx.quiet():
        return
    # not active: what the caller does until it reads the body is the caller's
    ctx.span = described(describe_call, params.method, params.url).open(activate=False)
    try:
        ctx.span.context.inject(params.headers)  # the request's own copy of the caller's headers
    except Exception:
        log.debug("no trace headers written", exc_info=True)


async def _call_ended(_: Any, ctx: SimpleNamespace, params: Any) -> None:
    record_status(ctx.span, params.response.status, error=params.response.status >= FIRST_CLIENT_ERROR)
    ctx.span.finish()


async def _call_failed(_: Any, ctx: SimpleNamespace, params: Any) -> None:
    ctx.span.set_error(params.exception)
    ctx.span.finish()


def trace_config(*, by_hand: bool) -> aiohttp.TraceConfig:
    """Ours, for one session."""
    import types

    import aiohttp

    def quiet() -> bool:
        if not tracer.enabled:
            return True
        return not by_hand and (not patches or bool(getattr(aiohttp, "_datadog_patch", False)))

    def context(**_: object) -> SimpleNamespace:
        return types.SimpleNamespace(span=OFF, quiet=quiet)

    config = aiohttp.TraceConfig(trace_config_ctx_factory=context)  # type: ignore[arg-type]  # called like the class
    config.on_request_start.append(_call_started)
    config.on_request_end.append(_call_ended)
    config.on_request_exception.append(_call_failed)
    config._asynctrace = True  # type: ignore[attr-defined]
    return config
