"""aiohttp's client: a span for every call, its context in the request's headers.

Doors: `ClientSession._request`, behind every method of a session, where a call begins and has its answer; the
connection's own callback, where the answer's body ends; and `BaseConnector.connect`, which every request goes through
on its way, each redirect, too: there its headers are complete, and aiohttp's own copy. A WebSocket's span is that of
its handshake.

| room | job |
|---|---|
| `session` | sessions by hand, and all of them |
| `call` | a call, from its start to the end of the answer's body |
| `body` | how a body ended |
| `attempts` | with client middlewares, a span for each request that is sent |
| `connections` | headers are written; what outlives a call belongs to nobody |
| `waits` | where the time goes: pool, DNS, connect, first byte, body |
| `describe` | names, resources and tags |
| `settings` | what the environment says |
"""

from __future__ import annotations

from asynctrace.aiohttp.client.doors import install, uninstall
from asynctrace.aiohttp.client.session import traced_session

__all__ = ["install", "traced_session", "uninstall"]
