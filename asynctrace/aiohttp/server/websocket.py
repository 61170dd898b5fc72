"""By option: a span for each message of a WebSocket, a trace of its own with a link to the connection's span.

It lasts from the message's arrival until the next one is asked for, and is active meanwhile. Names and tags:
ddtrace/contrib/internal/asgi/middleware.py and ddtrace/ext/websocket.py.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from asynctrace._core.context import ROOT
from asynctrace._core.span import Span
from asynctrace._core.tracer import tracer
from asynctrace._core.values import Fit
from asynctrace.aiohttp.server.exchange import exchange_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrace.aiohttp.server.exchange import Exchange

log = logging.getLogger("asynctrace")

EXECUTED_BY = {"dd.kind": "executed_by"}
"""The link to the connection's span."""


def receiving(receive: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """`WebSocketResponse.receive`, through which every message comes, whichever way it is asked for."""

    @functools.wraps(receive)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = _exchange(self)
        if exchange is None:
            return await receive(self, *args, **kwargs)
        exchange.let_go_of_message()
        message = await receive(self, *args, **kwargs)
        if isinstance(message.data, (str, bytes)) and tracer.enabled:
            _begin(exchange, message)
        return message

    return method


def _exchange(response: Any) -> Exchange | None:
    """Of a WebSocket whose messages are asked for."""
    request = getattr(response, "_req", None)
    exchange = None if request is None else exchange_of(request)
    return exchange if exchange is not None and exchange.traces_messages else None


def _begin(exchange: Exchange, message: Any) -> None:
    try:
        data, connection = message.data, exchange.span
        is_text = message.type == 1  # decoded or not
        tags = Fit(
            {
                "component": "aiohttp",
                "span.kind": "consumer",
                "websocket.message.type": "text" if is_text else "binary",
                "websocket.message.length": len(data.encode() if isinstance(data, str) else data),
            }
        )
        resource = f"websocket {connection.resource.partition(' ')[2]}"
        span = Span("websocket.receive", ROOT, resource, exchange.options.service, "websocket", tags)
        exchange.message = span.open()
        span.link(connection.context, EXECUTED_BY)
    except Exception:
        log.debug("a message of a WebSocket goes untraced", exc_info=True)
