"""A span around the handler and the user's middlewares: ours is the application's first."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asynctrace._core.context import detached
from asynctrace._core.tracer import tracer
from asynctrace.aiohttp.server.exchange import Exchange, exchange_of, key
from asynctrace.aiohttp.switch import patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from asynctrace.aiohttp.server.options import Options

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("asynctrace")


def middleware(options: Options, *, by_hand: bool) -> Any:
    """Ours, for one application. One that was not traced by hand goes untraced once the patches are off."""
    from aiohttp import web

    storage, untraced = key(), options.untraced

    @web.middleware
    async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            exchange = request[storage]
        except KeyError:
            request[storage] = exchange = Exchange(watched=False)
        if exchange.begun or not tracer.enabled or not (by_hand or patches.are_on):
            return await handler(request)
        exchange.begun = True
        if untraced is not None and untraced(request.path):
            with detached():
                return await handler(request)
        exchange.begin(request, options)
        try:
            response = await handler(request)
        except BaseException as exc:
            exchange.raised(request, exc)
            if not exchange.watched:
                exchange.unwatched(request, exc)
            raise
        if not exchange.watched:
            exchange.answered(request, response)
        return response

    return traced


async def note_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The signal `on_response_prepare`."""
    exchange = exchange_of(request)
    if exchange is not None:
        exchange.headers_sent(response)
