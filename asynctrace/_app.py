"""traced_app: an asyncio app factory, or a whole program, with everything traced."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeVar, overload

import ddtrace

from asynctrace._core.delivery import shutdown
from asynctrace._core.errors import UsageError
from asynctrace._integrations import install

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

FLUSH_SECONDS = 5.0
"""How long the end of a program waits for its last traces."""


@overload
def traced_app(factory: T, /, *, service: str | None = None) -> T: ...
@overload
def traced_app(*, service: str | None = None) -> Callable[[T], T]: ...
def traced_app(factory: Any = None, /, *, service: str | None = None) -> Any:
    """Wrap an asyncio app factory, sync or async, also as a decorator: gives what the factory gives.

    The integrations are installed before the factory runs. An aiohttp `web.Application` comes back with its requests
    traced, in place, and flushes when it is cleaned up. A coroutine function that is the program (`async def main()`)
    runs with everything installed, no span around it, and flushes at its end (5 s at most). `service` names an
    application's requests and what belongs to them, or the whole program. Raises `UsageError` for what can't be called.

    Example:
        >>> from aiohttp import web
        >>> from asynctrace import traced_app
        >>> @traced_app
        ... def make_app():
        ...     return web.Application()
        >>> app = make_app()
    """
    if factory is None:
        return functools.partial(_wrap, service=service)
    return _wrap(factory, service=service)


def _wrap(factory: Any, *, service: str | None) -> Any:
    if _application_in(factory) is not None:
        install()
        return _traced(factory, service)
    if not callable(factory):
        raise UsageError(
            f"traced_app() needs an app factory, got {type(factory).__name__}",
            hint="the function that makes your app, or `async def main()`",
        )
    start = _started_async(factory, service) if _is_async(factory) else _started(factory, service)
    return functools.wraps(factory)(start) if hasattr(factory, "__name__") else start


def _is_async(factory: Any) -> bool:
    """A coroutine function, or an object whose call is one."""
    return inspect.iscoroutinefunction(factory) or inspect.iscoroutinefunction(type(factory).__call__)


def _started(factory: Callable[..., Any], service: str | None) -> Callable[..., Any]:
    def start(*args: Any, **kwargs: Any) -> Any:
        install()
        return _traced(factory(*args, **kwargs), service)

    return start


def _started_async(factory: Callable[..., Any], service: str | None) -> Callable[..., Any]:
    async def start(*args: Any, **kwargs: Any) -> Any:
        install()
        before = ddtrace.config.service
        ddtrace.config.service = service or before
        made = None
        try:
            made = await factory(*args, **kwargs)
            return _traced(made, service)
        finally:
            if _application_in(made) is not None:  # it was a factory: the process may have other applications
                ddtrace.config.service = before
            else:  # it was the program itself: this is its end
                await shutdown(FLUSH_SECONDS)

    return start


def _application_in(made: Any) -> Any:
    """The application that was made, alone or in an `AppRunner`, as gunicorn takes it, too.

    Without importing aiohttp: what it has not loaded is none of its applications.
    """
    web = sys.modules.get("aiohttp.web")
    if web is None:
        return None
    app = made.app if isinstance(made, web.AppRunner) else made
    return app if isinstance(app, web.Application) else None


def _traced(made: T, service: str | None) -> T:
    if (app := _application_in(made)) is not None:
        from asynctrace.aiohttp import flush_after, trace_application

        trace_application(app, service)
        flush_after(app, FLUSH_SECONDS)
    return made
