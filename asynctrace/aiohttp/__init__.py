"""aiohttp: a span for every request, served and sent.

What crosses the gap: Datadog and W3C headers of the request. A served request belongs to its sender's trace, never to
whoever started the server or opened the connection.

    from asynctrace import traced_app
    from asynctrace.aiohttp import traced_session

    app = traced_app(web.Application())                       # span GET /items/{id} for every request

    session = traced_session(aiohttp.ClientSession())         # span and headers for every call
    await session.get("http://pricing/price")

Names and tags: ddtrace/contrib/internal/aiohttp. Query strings are not recorded.

| room | job |
|---|---|
| `server/` | requests served: applications, responses, connections |
| `client/` | requests sent: sessions, calls, bodies |
| `switch` | versions, operation names, on or off |
"""

from __future__ import annotations

from asynctrace.aiohttp import client, server
from asynctrace.aiohttp.client import traced_session
from asynctrace.aiohttp.server import trace_application
from asynctrace.aiohttp.switch import SUPPORTED, patches

__all__ = ["SUPPORTED", "install", "trace_application", "traced_session", "uninstall"]


def install() -> None:
    """Trace every application and session of this process made from now on."""
    if patches:
        return
    server.install()
    client.install()


def uninstall() -> None:
    """Take the patches off; what was made under them goes untraced from now on, except what was traced by hand."""
    patches.undo()
    client.uninstall()
