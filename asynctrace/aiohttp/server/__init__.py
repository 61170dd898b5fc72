"""aiohttp's server: a span for every request, in the trace that its headers name.

The doors are a new-style middleware, first in the application, and the connection, which sees the response out.

| room | job |
|---|---|
| `headers` | which headers are read, and the context in them |
| `describe` | names, resources and tags, from aiohttp's request |
| `client_ip` | who asks, behind proxies |
| `exchange` | a request and its response: the span, from begin to outcome |
| `middleware` | where it begins |
| `connections` | where it ends; client and server leaving, told apart |
| `websocket` | by option: a span for each message |
| `application` | which applications are traced; what belongs to no request of theirs |
| `options` | what can be asked for |
"""

from __future__ import annotations

from asynctrace.aiohttp.server.application import flush_after, trace_application
from asynctrace.aiohttp.server.doors import install

__all__ = ["flush_after", "install", "trace_application"]
