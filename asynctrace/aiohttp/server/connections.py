"""The connection's side: when a response is out, and who closed the connection, client or server.

aiohttp tells nobody when a response has been sent; `RequestHandler._handle_request` returns then. Where it is not what
we know, a request ends with its application's middlewares.
"""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any

from asynctrace._core.cancel import CLIENT_DISCONNECTED, SERVER_SHUTDOWN, note
from asynctrace.aiohttp.server.exchange import Exchange, key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrace._patching import Patches

log = logging.getLogger("asynctrace")

_in_hand: dict[Any, Exchange] = {}
"""By connection, what is served on it: one request at a time, however many have been sent."""


def watch(patches: Patches) -> None:
    """See every request of this process through to its end."""
    from aiohttp.web_protocol import RequestHandler

    handle = vars(RequestHandler).get("_handle_request")
    if inspect.iscoroutinefunction(handle) and "request" in inspect.signature(handle).parameters:
        patches.replace(RequestHandler, "_handle_request", seen_out(handle))
        patches.wrap(RequestHandler, "connection_lost", lost)
        patches.wrap(RequestHandler, "shutdown", shut_down)


def seen_out(handle: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """`RequestHandler._handle_request`: from the request's headers to the end of its response."""
    storage = key()

    @functools.wraps(handle)
    async def method(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        request[storage] = _in_hand[self] = exchange = Exchange(watched=True)
        try:
            result = await handle(self, request, *args, **kwargs)
        except BaseException as exc:
            exchange.abandoned(request, exc)
            raise
        finally:
            _in_hand.pop(self, None)
        try:
            response, cut_short = result
        except Exception:  # not what it was
            response, cut_short = result, False
        exchange.answered(request, response, cut_short=cut_short)
        return result

    return method


def lost(
    connection_lost: Callable[..., None], protocol: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """The connection is gone. Who closes it on this side takes the transport away first: then it was not the client."""
    try:
        exchange = _in_hand.get(protocol)
        if exchange is not None and protocol.transport is not None:
            exchange.client_left = True
            if protocol._manager.handler_cancellation and (task := protocol._task_handler) is not None:
                note(task, CLIENT_DISCONNECTED, lambda: True)
    except Exception:
        log.debug("it is not known who closed a connection", exc_info=True)
    connection_lost(*args, **kwargs)


def shut_down(
    shutdown: Callable[..., Any], protocol: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The server waits for the request in hand, then cancels it and takes the transport away."""
    try:
        if protocol in _in_hand and (task := protocol._task_handler) is not None:
            note(task, SERVER_SHUTDOWN, lambda: protocol.transport is None)
    except Exception:
        log.debug("a server's shutdown is not known as such", exc_info=True)
    return shutdown(*args, **kwargs)
