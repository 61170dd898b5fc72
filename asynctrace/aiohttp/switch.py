"""Whether requests are traced: the patches, and ddtrace's own integration beside us."""

from __future__ import annotations

from asynctrace._core.naming import operation
from asynctrace._patching import Patches

SUPPORTED = ("3.10", "4")
"""From this version on, below that one."""

SERVE = operation("aiohttp.request", "http.server.request")
SEND = operation("aiohttp.request", "http.client.request")

patches = Patches()

watching = Patches()
"""Those that see a request through to its end, for applications that are traced by hand where nothing is installed."""
