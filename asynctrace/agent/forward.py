"""A real agent behind ours: what tracers send is passed on to it, unchanged, after it is safe here.

The tracer must not notice: it has its answer within a second, the other agent's if that came in time (its
sampling rates count), ours if not.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from asynctrace.agent.client import AgentError
from asynctrace.agent.store import MIB, Counters

PATIENCE = 1.0  # seconds that a tracer is kept waiting for the other agent
_GIVE_UP = 10.0
_MAX_HELD = 64 * MIB  # bytes on their way
MARK = "X-Asynctrace-Forwarded"  # so that two agents that name each other do not play ball
_NOT_FORWARDED = {
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "content-encoding",
    "transfer-encoding",
}
_OK = 200


def check_url(url: str) -> str:
    """The address of an agent, without a slash at its end.

    Raises:
        AgentError: it is neither `http://host:port` nor `unix:///path`.
    """
    try:
        parts = urlsplit(url)
        valid = (parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0) or (
            parts.scheme == "unix" and bool(parts.path)
        )
    except ValueError:
        valid = False
    if not valid:
        raise AgentError(
            f"{url} is no agent's address",
            "http://host:8126 or unix:///var/run/datadog/apm.socket",
            usage=True,
        )
    return url.rstrip("/")


class Forwarder:
    """Passes requests on to the agent at `url`; `start` in a loop, `close` at its end."""

    def __init__(self, url: str, counters: Counters) -> None:
        self.url = check_url(url)
        self._counters = counters
        self._session: aiohttp.ClientSession | None = None
        self._base = self.url
        self._under_way: set[asyncio.Task[bytes | None]] = set()
        self._held = 0

    async def start(self) -> None:
        """Makes the session; nothing is sent yet."""
        parts = urlsplit(self.url)
        connector: aiohttp.BaseConnector
        if parts.scheme == "unix":
            connector, self._base = aiohttp.UnixConnector(parts.path), "http://localhost"
        else:
            connector = aiohttp.TCPConnector()
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=_GIVE_UP), auto_decompress=True
        )

    async def close(self) -> None:
        """Gives what is under way a moment, then ends it."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=PATIENCE)
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes | None:
        """The other agent's answer, JSON of a success; None when there is none within a second."""
        if MARK in headers:
            return None
        if self._held + len(body) > _MAX_HELD:
            self._counters.add(failed_forwards=1)
            return None
        task = asyncio.ensure_future(self._post(method, path, headers, body))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        return task.result() if done and not task.cancelled() else None

    async def _post(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes | None:
        sent = {key: value for key, value in headers.items() if key.lower() not in _NOT_FORWARDED}
        assert self._session is not None, "start() comes first"
        self._held += len(body)
        try:
            async with self._session.request(
                method, self._base + path, data=body, headers={**sent, MARK: "1"}, allow_redirects=False
            ) as reply:
                answer = await reply.content.read(MIB)
                if reply.status == _OK:
                    self._counters.add(forwarded_payloads=1)
                    return answer if answer.lstrip()[:1] == b"{" else None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
            pass
        finally:
            self._held -= len(body)
        self._counters.add(failed_forwards=1)
        return None
