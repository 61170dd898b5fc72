"""aiohttp: a span for every request, served and sent.

What crosses the gap: Datadog and W3C headers of the request. A served request belongs to its sender's trace, never to
whoever started the server or opened the connection.

    from asynctrace import traced_app
    from asynctrace.aiohttp import traced_session

    app = traced_app(web.Application())                       # span GET /items/{id} for every request

    session = traced_session(aiohttp.ClientSession())         # span and headers for every call
    await session.get("http://pricing/price")

Names and tags: ddtrace/contrib/internal/aiohttp. Query strings are obfuscated, headers recorded when asked for.

| room | job |
|---|---|
| `server/` | requests served: applications, responses, connections |
| `client/` | requests sent: sessions, calls, bodies |
| `url`, `header_tags`, `statuses` | what of URLs and headers becomes tags; which statuses are errors |
| `switch` | versions, operation names, on or off |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrace.aiohttp import client, server
from asynctrace.aiohttp.client import traced_session
from asynctrace.aiohttp.server import flush_after, trace_application
from asynctrace.aiohttp.switch import SUPPORTED, patches, watching

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SUPPORTED", "flush_after", "install", "trace_application", "traced_session", "uninstall"]


def install(
    *,
    trust_headers: bool | None = None,
    untraced: Iterable[str] | None = None,
    websocket_messages: bool | None = None,
) -> None:
    """Trace every application and session of this process made from now on.

    `trust_headers=False`, at a public edge: a request begins a trace of its own, linked to the one in its headers
    (`ASYNCTRACE_AIOHTTP_TRUST_HEADERS`, on). `untraced`: paths without spans, `*` for anything
    (`ASYNCTRACE_AIOHTTP_UNTRACED`, none). `websocket_messages`: a span for each message of a WebSocket
    (`ASYNCTRACE_AIOHTTP_WEBSOCKET_MESSAGES`, off). Called again, it changes what it is given and nothing else.

    Example:
        >>> from asynctrace.aiohttp import install, uninstall
        >>> install(untraced=["/health", "/internal/*"])
        >>> uninstall()
    """
    client_too = not patches
    server.install(trust_headers=trust_headers, untraced=untraced, websocket_messages=websocket_messages)
    if client_too:
        client.install()


def uninstall() -> None:
    """Take the patches off; what was made under them goes untraced from now on, except what was traced by hand."""
    patches.undo()
    watching.undo()
    client.uninstall()
