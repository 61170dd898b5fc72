"""aiohttp: a span for every request, served and sent.

What crosses the gap: Datadog and W3C headers of the request. A served request belongs to its sender's trace, never to
whoever started the server or opened the connection. Doors: a new-style middleware, first in the application, and a
`TraceConfig`, last in the session.

    from asynctrace import traced_app
    from asynctrace.aiohttp import traced_session

    app = traced_app(web.Application())                       # span GET /items/{id} for every request

    session = traced_session(aiohttp.ClientSession())         # span and headers for every call
    await session.get("http://pricing/price")

Names and tags: ddtrace/contrib/internal/aiohttp. Query strings are not recorded.
"""

from __future__ import annotations

import functools
import logging
import weakref
from typing import TYPE_CHECKING, Any

from asynctrace._core.api import Description, described
from asynctrace._core.context import SpanContext
from asynctrace._core.errors import UsageError
from asynctrace._core.naming import entry_service, operation
from asynctrace._core.off import OFF
from asynctrace._core.tracer import tracer
from asynctrace._core.values import MEASURED
from asynctrace._patching import Patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import SimpleNamespace

    import aiohttp
    from aiohttp import web

    from asynctrace._core.span import Span

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("asynctrace")

SUPPORTED = ("3.10", "4")
"""From this version on, below that one."""

SERVE = operation("aiohttp.request", "http.server.request")
SEND = operation("aiohttp.request", "http.client.request")

FIRST_SERVER_ERROR, LAST_SERVER_ERROR = 500, 599
FIRST_CLIENT_ERROR = 400

_patches = Patches()


# -- what a span says


def describe_request(request: Any, service: str | None) -> Description:
    """A request served. Resource: method and route, so that there are as many as there are routes."""
    route = getattr(getattr(request.match_info, "route", None), "resource", None)
    template = getattr(route, "canonical", None)
    tags: dict[str, Any] = {
        "component": "aiohttp",
        MEASURED: 1,
        "http.method": request.method,
        "http.url": str(request.url.with_query(None).with_fragment(None).with_user(None)),
    }
    if template is not None:
        tags["http.route"] = template
    if agent := request.headers.get("User-Agent"):
        tags["http.useragent"] = agent
    return {
        "name": SERVE,
        "resource": f"{request.method} {template}" if template is not None else request.method,
        "service": service or entry_service("aiohttp-web"),
        "type": "web",
        "kind": "server",
        "tags": tags,
    }


def describe_call(method: str, url: Any) -> Description:
    """A request sent."""
    tags: dict[str, Any] = {
        "component": "aiohttp_client",
        "http.method": method,
        "http.url": str(url.with_query(None).with_fragment(None).with_user(None)),
        "out.host": url.host or "",
        "server.address": url.host or "",
    }
    if url.port is not None:
        tags["network.destination.port"] = url.port
    return {"name": SEND, "resource": f"{method} {url.path}", "type": "http", "kind": "client", "tags": tags}


def record_status(span: Span, status: int, *, error: bool) -> None:
    """The status; text, as Datadog's search wants it."""
    span.set_tag("http.status_code", str(status))
    if error:
        span.set_outcome("error")


# -- server


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
        if key in request or not (by_hand or _patches):
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
        record_status(span, status, error=FIRST_SERVER_ERROR <= status <= LAST_SERVER_ERROR)
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


def _installed_pre_freeze(
    pre_freeze: Callable[..., None], app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """The last moment at which an application takes a middleware."""
    if _patches and tracer.enabled and not app.pre_frozen and not _is_traced(app):
        try:
            app.middlewares.insert(0, _middleware(None, by_hand=False))
            _traced_apps.add(app)
        except Exception:
            log.debug("the application could not be traced", exc_info=True)
    pre_freeze(*args, **kwargs)


# -- client


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


def _trace_config(*, by_hand: bool) -> aiohttp.TraceConfig:
    import types

    import aiohttp

    def quiet() -> bool:
        if not tracer.enabled:
            return True
        return not by_hand and (not _patches or bool(getattr(aiohttp, "_datadog_patch", False)))

    def context(**_: object) -> SimpleNamespace:
        return types.SimpleNamespace(span=OFF, quiet=quiet)

    config = aiohttp.TraceConfig(trace_config_ctx_factory=context)  # type: ignore[arg-type]  # called like the class
    config.on_request_start.append(_call_started)
    config.on_request_end.append(_call_ended)
    config.on_request_exception.append(_call_failed)
    config._asynctrace = True  # type: ignore[attr-defined]
    return config


def _has_ours(configs: Any) -> bool:
    return any(getattr(config, "_asynctrace", False) for config in configs)


def traced_session(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """The session, with every call a span and its context in the request's headers. In place; twice is once.

    Example:
        >>> async def price(url):
        ...     async with traced_session(aiohttp.ClientSession()) as session:
        ...         async with session.get(url) as response:
        ...             return await response.json()
    """
    configs = getattr(session, "trace_configs", None)
    if configs is None:
        raise UsageError(
            f"traced_session() needs an aiohttp.ClientSession, got {type(session).__name__}",
            hint="traced_session(aiohttp.ClientSession())",
        )
    if tracer.enabled and not _has_ours(configs):
        ours = _trace_config(by_hand=True)
        ours.freeze()
        session._trace_configs = [*configs, ours]  # its list may be the caller's own, shared between sessions
    return session


def _installed_session(
    init: Callable[..., None], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if _patches and tracer.enabled:
        configs = kwargs.get("trace_configs") or []
        if not _has_ours(configs):
            kwargs = {**kwargs, "trace_configs": [*configs, _trace_config(by_hand=False)]}
    init(*args, **kwargs)


# -- all of it


def install() -> None:
    """Trace every application and session of this process made from now on."""
    import aiohttp
    from aiohttp import web

    if _patches:
        return
    _patches.wrap(web.Application, "pre_freeze", _installed_pre_freeze)
    _patches.wrap(aiohttp.ClientSession, "__init__", _installed_session)


def uninstall() -> None:
    """Take the patches off; what was made under them goes untraced from now on, except what was traced by hand."""
    _patches.undo()
