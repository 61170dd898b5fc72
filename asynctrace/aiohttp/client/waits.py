"""Where the time of a request goes, station by station; aiohttp tells its tracing of those inside the connector."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import tracing

from asynctrace._core.values import Fit

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

else:
    Trace = getattr(tracing, "Trace", object)

IS_TOLD = hasattr(tracing, "Trace")
"""Whether connectors tell what they wait for, as they do in the versions we know."""

POOL = "http.client.pool_wait_ms"
"""For a connection of the pool to become free."""

DNS = "http.client.dns_ms"
"""For the server's address."""

CONNECT = "http.client.connect_ms"
"""For a new connection, TLS included, DNS not."""

TTFB = "http.client.ttfb_ms"
"""From the connection to the first byte of the answer: the request being sent, and the server at work."""

BODY = "http.client.body_ms"
"""From the answer's headers to the end of its body."""


_NO_HOOKS = aiohttp.TraceConfig()
_NO_HOOKS.freeze()
_NOBODYS: Any = None


class Waits(Trace):
    """A stopwatch that is always at one station, or at none. Of a call with redirects: their sums.

    It is told by the connector, as aiohttp's own tracing is; what else that may come to be told does nothing here.
    """

    _trace_config, _trace_config_ctx, _session = _NO_HOOKS, _NOBODYS, _NOBODYS
    """What aiohttp's own are given one by one: here once for all."""

    def __init__(self) -> None:
        self.figures = Fit()
        """Of each station, in ms: tags of the call's span."""
        self._at: str | None = None
        self._since = 0

    def enter(self, station: str | None) -> None:
        """What was waited for is there; the next wait begins."""
        now = perf_counter_ns()
        if (at := self._at) is not None:
            self.figures[at] = self.figures.get(at, 0.0) + (now - self._since) / 1e6
        self._at, self._since = station, now

    async def send_connection_queued_start(self) -> None:
        """A free connection is waited for."""
        self.enter(POOL)

    async def send_connection_queued_end(self) -> None:
        """It has one, or may make one."""
        self.enter(None)

    async def send_connection_create_start(self) -> None:
        """It makes one."""
        self.enter(CONNECT)

    async def send_dns_resolvehost_start(self, host: str) -> None:  # noqa: ARG002 - the signature is Trace's
        """It looks the address up."""
        self.enter(DNS)

    async def send_dns_resolvehost_end(self, host: str) -> None:  # noqa: ARG002
        """It has the address."""
        self.enter(CONNECT)

    async def send_connection_create_end(self) -> None:
        """It has made one."""
        self.enter(None)

    async def send_connection_reuseconn(self) -> None:
        """It has found one."""
