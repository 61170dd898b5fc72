"""A span around the handler and the user's middlewares: ours is the application's first."""

from __future__ import annotations

import functools
import logging
import weakref
from typing import TYPE_CHECKING, Any

from asynctrace._core.api import described
from asynctrace._core.context import SpanContext
from asynctrace._core.errors import UsageError
from asynctrace._core.tracer import tracer
from asynctrace.aiohttp.server.describe import describe_request
from asynctrace.aiohttp.switch import patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from asynctrace._core.span import Span

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("asynctrace")

FIRST_SERVER_ERROR, LAST_SERVER_ERROR = 500, 599


@functools.cache
def _request_key() -> Any:
    """Where a request keeps its span: a sub-application's middleware sees there that it has one."""
    from aiohttp import web

    typed = getattr(web, "RequestKey", None)  # a plain string before aiohttp 3.14
    return "asynctrace.span" if typed is None else typed("asynctrace.span", object)


def _middleware(service: str | None, *, by_hand: bool) -> Any:
    from aiohttp import web

    key = _request_key()

    @web.middleware
    async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
        if key in request or not (by_hand or patches):
            return await handler(request)
        parent = SpanContext.extract(request.headers)
        with described(describe_request, request, service, parent=parent) as span:
            request[key] = span
            try:
                response = await handler(request)
            except web.HTTPException as exc:  # a response, raised: its status decides whether it is an error
                _record_response(span, exc)
                if exc.status < FIRST_SERVER_ERROR:
                    span.finish()  # before the block sees an exception
                raise
            except Exception:
                span.set_tag("http.status_code", "500")
                raise
            _record_response(span, response)
            return response

    return traced


def _record_response(span: Span, response: Any) -> None:
    status = getattr(response, "status", None)
    if isinstance(status, int):
        span.set_tag("http.status_code", str(status))  # text, as Datadog's search wants it
        if FIRST_SERVER_ERROR <= status <= LAST_SERVER_ERROR:
            span.set_outcome("error")
        if status == 404 and span.resource.count(" ") == 0:  # noqa: PLR2004 - no route matched: one bounded resource
            span.resource = f"{span.resource} 404"


_traced_apps: weakref.WeakSet[Any] = weakref.WeakSet()


def trace_application(app: web.Application, service: str | None = None) -> web.Application:
    """Trace the application's requests, in place; done twice, it is done once.

    Raises `UsageError` when the application is already running.
    """
    if not tracer.enabled or _is_traced(app):
        return app
    if app.frozen or app.pre_frozen:
        raise UsageError(
            "this application is already running", hint="trace it before run_app() or AppRunner.setup()"
        )
    app.middlewares.insert(0, _middleware(service, by_hand=True))
    _traced_apps.add(app)
    return app


def _is_traced(app: Any) -> bool:
    return app in _traced_apps or bool(getattr(app, "__datadog_trace", False))  # by ddtrace's trace_app()


def installed(
    pre_freeze: Callable[..., None], app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """The last moment at which an application takes a middleware."""
    if patches and tracer.enabled and not app.pre_frozen and not _is_traced(app):
        try:
            app.middlewares.insert(0, _middleware(None, by_hand=False))
            _traced_apps.add(app)
        except Exception:
            log.debug("the application could not be traced", exc_info=True)
    pre_freeze(*args, **kwargs)
