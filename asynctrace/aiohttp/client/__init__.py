"""aiohttp's client: a span for every call, its context in the request's headers.

The door is a `TraceConfig`, last in the session.
"""

from __future__ import annotations

from asynctrace.aiohttp.client.doors import install
from asynctrace.aiohttp.client.session import traced_session

__all__ = ["install", "traced_session"]
