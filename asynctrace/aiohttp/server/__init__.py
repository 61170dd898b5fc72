"""aiohttp's server: a span for every request, in the trace that its headers name.

The door is a new-style middleware, first in the application.
"""

from __future__ import annotations

from asynctrace.aiohttp.server.doors import install
from asynctrace.aiohttp.server.middleware import trace_application

__all__ = ["install", "trace_application"]
