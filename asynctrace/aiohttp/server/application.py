"""Applications: which are traced, with what options, and what belongs to no request of theirs."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from asynctrace._core.context import detached
from asynctrace._core.delivery import shutdown
from asynctrace._core.errors import UsageError
from asynctrace._core.tracer import tracer
from asynctrace.aiohttp.server.connections import watch
from asynctrace.aiohttp.server.middleware import middleware, note_headers
from asynctrace.aiohttp.server.options import settings
from asynctrace.aiohttp.switch import patches, watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp import web

log = logging.getLogger("asynctrace")

_traced: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""The middleware of each application that has one."""

_flushed: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
"""Applications with which a program ends, and how long that may take, seconds."""


def trace_application(
    app: web.Application,
    service: str | None = None,
    *,
    trust_headers: bool | None = None,
    untraced: Iterable[str] | None = None,
    websocket_messages: bool | None = None,
) -> web.Application:
    """Trace the application's requests, in place; done twice, it is done once.

    Left out, an option is what `install()` or the environment says; `asynctrace.aiohttp.install` names them. Raises
    `UsageError` when the application is already running.

    Example:
        >>> from aiohttp import web
        >>> from asynctrace.aiohttp import trace_application
        >>> app = trace_application(web.Application(), "edge", trust_headers=False, untraced=["/health"])
    """
    if not tracer.enabled or _is_traced(app):
        return app
    if app.frozen or app.pre_frozen:
        raise UsageError(
            "this application is already running", hint="trace it before run_app() or AppRunner.setup()"
        )
    if not patches and not watching:
        watch(watching)
    chosen = settings.current().changed(service, trust_headers, untraced, websocket_messages)
    _trace(app, middleware(chosen, by_hand=True))
    return app


def flush_after(app: web.Application, seconds: float) -> None:
    """Send the last traces when the application has been cleaned up, in so many seconds at most."""
    if not tracer.enabled:
        return
    if not patches and app not in _flushed and not app.pre_frozen:

        async def flush(_: web.Application) -> None:
            await shutdown(seconds)

        app.on_cleanup.append(flush)
    _flushed[app] = seconds


def _is_traced(app: Any) -> bool:
    return app in _traced or bool(getattr(app, "__datadog_trace", False))  # by ddtrace's trace_app()


def _trace(app: Any, ours: Any) -> None:
    app.middlewares.insert(0, ours)
    app.on_response_prepare.append(note_headers)
    _traced[app] = ours


# -- doors


def frozen(pre_freeze: Callable[..., None], app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The last moment at which an application takes a middleware, and at which ours can be put before the user's."""
    try:
        ours = _traced.get(app)
        if app.pre_frozen or not patches or not tracer.enabled:
            pass
        elif ours is None and not _is_traced(app):
            _trace(app, middleware(settings.current(), by_hand=False))
        elif ours in app.middlewares and app.middlewares[0] is not ours:
            app.middlewares.remove(ours)
            app.middlewares.insert(0, ours)
    except Exception:
        log.debug("the application could not be traced", exc_info=True)
    pre_freeze(*args, **kwargs)


async def started(
    startup: Callable[..., Awaitable[None]], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """What an application starts lives as long as it does, and belongs to nobody, not even to who started that."""
    with detached():
        await startup(*args, **kwargs)


async def cleaned_up(
    cleanup: Callable[..., Awaitable[None]], app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """An application has ended, and with it, maybe, the program."""
    try:
        await cleanup(*args, **kwargs)
    finally:
        if (seconds := _flushed.get(app)) is not None and patches:
            await shutdown(seconds)
