"""Connections: where a request gets its headers, and what outlives it belongs to nobody.

A transport runs its protocol, and a timer its callback, in the context in which it was begun, and holds that. So these
begin in an empty one: neither the trace nor the variables of the request that happened to need a connection. Resolvers
run where they always do.
"""

from __future__ import annotations

import functools
import logging
import types
import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import connector, helpers

from asynctrace._patching import Patches
from asynctrace.aiohttp.client.call import calling
from asynctrace.aiohttp.client.waits import IS_TOLD, TTFB
from asynctrace.aiohttp.switch import patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    Connect = Callable[..., Awaitable[Any]]

log = logging.getLogger("asynctrace")


def sending(connect: Connect) -> Connect:
    """`connector.connect()`, which every request of a session goes through on its way, each redirect, too."""

    @functools.wraps(connect)
    async def method(self: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        call = calling.get()
        if call is None or call.over:
            return await connect(self, req, *args, **kwargs)
        try:
            call.goes_out(req.headers)
            if IS_TOLD and "traces" in kwargs:
                kwargs["traces"] = [*(kwargs["traces"] or ()), call.waits]  # the list given is the caller's
        except Exception:
            log.debug("a request goes without trace headers", exc_info=True)
        connection = await connect(self, req, *args, **kwargs)
        call.waits.enter(TTFB)
        return connection

    return method


def sees(kind: type) -> bool:
    """Whether requests that go through connectors of this kind are seen here; not if it has a `connect` of its own."""
    return getattr(getattr(kind, "connect", None), "__wrapped__", None) is not None


# -- apart


def apart(run: Callable[..., Any]) -> Callable[..., Any]:
    """A method that starts a timer."""

    @functools.wraps(run)
    def method(*args: Any, **kwargs: Any) -> Any:
        return Context().run(run, *args, **kwargs)

    return method


def released(release: Callable[..., Any]) -> Callable[..., Any]:
    """`connector._release()`, which starts the timer of idle connections, once for many of them."""
    started_apart = apart(release)

    @functools.wraps(release)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        is_started = getattr(self, "_cleanup_handle", None) is not None
        return (release if is_started else started_apart)(self, *args, **kwargs)

    return method


def opened_apart(run: Callable[..., Coroutine[Any, Any, Any]]) -> Connect:
    """A method that opens a transport."""

    @functools.wraps(run)
    async def method(*args: Any, **kwargs: Any) -> Any:
        return await _in_context(Context(), run(*args, **kwargs))

    return method


@types.coroutine
def _in_context(context: Context, coro: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await a coroutine in another context, in the task that awaits: cancelling and deadlines stay what they are."""
    step, given = coro.send, None
    while True:
        try:
            waits_for = context.run(step, given)
        except StopIteration as end:
            return end.value
        try:
            step, given = coro.send, (yield waits_for)
        except GeneratorExit:
            context.run(coro.close)
            raise
        except BaseException as exc:
            step, given = coro.throw, exc


DOORS: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (aiohttp.BaseConnector, "connect", sending),
    (aiohttp.TCPConnector, "_wrap_create_connection", opened_apart),
    (aiohttp.TCPConnector, "_wrap_existing_connection", opened_apart),
    (aiohttp.TCPConnector, "_start_tls_connection", opened_apart),
    (aiohttp.UnixConnector, "_create_connection", opened_apart),
    (connector.NamedPipeConnector, "_create_connection", opened_apart),
    (aiohttp.BaseConnector, "_release", released),
    (aiohttp.BaseConnector, "_cleanup_closed", apart),
    (getattr(helpers, "TimeoutHandle", None), "start", apart),
    (aiohttp.ClientWebSocketResponse, "_reset_heartbeat", apart),
)

doors = Patches()
_by_hand = 0  # sessions that were traced so, and are still there: while there are any, the doors stay open


def open_doors() -> None:
    """From now on; they do nothing for calls that are not traced, but to keep connections apart."""
    if doors:
        return
    for owner, name, door in DOORS:
        original = vars(owner).get(name) if owner is not None else None
        if original is not None:  # some are not in every version
            doors.replace(owner, name, door(original))


def open_doors_for(session: object) -> None:
    """As long as this session, traced by hand, is there."""
    global _by_hand
    _by_hand += 1
    weakref.finalize(session, _gone).atexit = False
    open_doors()


def _gone() -> None:
    global _by_hand
    _by_hand -= 1
    close_doors()


def close_doors() -> None:
    """Unless somebody needs them."""
    if not _by_hand and not patches:
        doors.undo()
