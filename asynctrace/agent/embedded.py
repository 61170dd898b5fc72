"""The agent as an object, in the loop that runs; `threaded` has it in a thread of its own.

async with Agent() as agent:
    ...                                          # programs send to agent.url
    trace = await agent.wait_for(lambda trace: trace.errors > 0)
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from aiohttp import web

from asynctrace.agent.address import is_loopback
from asynctrace.agent.forward import Forwarder
from asynctrace.agent.intake import Intake
from asynctrace.agent.ports import clear_socket
from asynctrace.agent.readers import API, Readers
from asynctrace.agent.server import Handler, build_app
from asynctrace.agent.spans import Trace
from asynctrace.agent.store import DEFAULT_MAX_BYTES, TraceStore
from asynctrace.agent.tracers import Tracers
from asynctrace.agent.version import asynctrace_version
from asynctrace.agent.waiting import wait_any

if TYPE_CHECKING:
    from typing_extensions import Self

DRAIN_TIMEOUT = 10.0  # seconds; a body of the largest size decodes in two
_TURNS = 10  # of the loop: to accept a connection that is already there and read its first bytes takes five

# aiohttp reports what a client does wrong on its logger; a viewer in the terminal must not print that.
_quiet = logging.getLogger("asynctrace.agent.http")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Agent:
    """An agent in the running event loop; an async context manager.

    Args:
        host: the address to listen on. Whatever is not of this machine shows your traces to the network.
        port: 0 takes a free one.
        max_bytes: bound on the traces it keeps, in bytes.
        db: a file to keep them in; in memory when left out.
        forward: the address of a real agent that gets everything as well.

    Raises:
        OSError: from `start()`, when the port is taken.
        AgentError: `db` or `forward` cannot be used.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, max_bytes: int = DEFAULT_MAX_BYTES,
        db: str | None = None, forward: str | None = None,
    ) -> None:  # fmt: skip
        self.host = host
        self.port = port
        self.store = TraceStore(max_bytes, db)
        self._intake = Intake(self.store)
        self._forwarder = Forwarder(forward, self.store.counters) if forward else None
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._runner: web.AppRunner | None = None
        self._sockets: list[str] = []

    @property
    def url(self) -> str:
        """What `DD_TRACE_AGENT_URL` must be for a program on this machine, and where the page is."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104  (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listens; `port` is the real one from here on."""
        if self._forwarder is not None:
            await self._forwarder.start()
        runner = web.AppRunner(
            self._app(),
            handle_signals=False,
            access_log=None,
            logger=_quiet,
            shutdown_timeout=1.0,
            lingering_time=2.0,
            auto_decompress=False,  # see inflate.py
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except BaseException:
            await runner.cleanup()
            await self._close_forwarder()
            raise
        self.port = runner.addresses[0][1]
        self._runner = runner
        self._intake.start()

    def _app(self) -> web.Application:
        loopback_only, version = is_loopback(self.host), asynctrace_version()
        tracers = Tracers(
            self._intake, self.store.counters, version=version, api=API, loopback_only=loopback_only,
            forwarder=self._forwarder,
        )  # fmt: skip
        readers = Readers(self.store, lambda: tracers.last_start, loopback_only=loopback_only)
        app = build_app(tracers, readers)
        app.middlewares.append(self._count_active)

        async def release_pages(_: web.Application) -> None:
            readers.closing.set()

        app.on_shutdown.append(release_pages)
        return app

    async def listen_also(self, port: int) -> int:
        """Takes requests on one more port of the same address; returns the real one.

        Raises:
            OSError: it is taken.
        """
        site = web.TCPSite(self._running(), self.host, port)
        await site.start()
        return int(self._running().addresses[-1][1])

    async def listen_at(self, path: str) -> None:
        """Takes requests at a unix socket, for `DD_TRACE_AGENT_URL=unix:///path`; others than this user's are kept out.

        Raises:
            OSError: something else is there, or listens there.
        """
        await asyncio.to_thread(clear_socket, path)
        await web.UnixSite(self._running(), path).start()
        await asyncio.to_thread(os.chmod, path, 0o600)
        self._sockets.append(path)

    def _running(self) -> web.AppRunner:
        assert self._runner is not None, "start() comes first"
        return self._runner

    @web.middleware
    async def _count_active(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(API):  # a page that watches is never done
            return await handler(request)
        self._active += 1
        self._idle.clear()
        try:
            return await handler(request)
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _close_forwarder(self) -> None:
        if self._forwarder is not None:
            await self._forwarder.close()

    async def drain(self, timeout: float = DRAIN_TIMEOUT) -> bool:
        """Waits until everything that was sent is in the store; False when `timeout` seconds were not enough.

        For programs that have ended: what they sent is in the socket, so the loop is given the turns it needs
        to read it before the requests in work, and then the bodies in the queue, are waited for.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if not await wait_any(self._idle, timeout=timeout):
            return False
        return await asyncio.to_thread(self._intake.wait_idle, timeout)

    async def stop(self) -> None:
        """Closes the port and decodes what is queued. The store can still be read."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            await self._close_forwarder()
            for path in self._sockets:
                await asyncio.to_thread(Path(path).unlink, missing_ok=True)
            await asyncio.to_thread(self._intake.close)

    async def wait_for(self, wanted: Callable[[Trace], bool], timeout: float = 10.0) -> Trace:
        """The first trace that satisfies `wanted`; one that is here already counts.

        Raises:
            TimeoutError: none did within `timeout` seconds; says which traces there are.
        """
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        unsubscribe = self.store.subscribe(lambda: loop.call_soon_threadsafe(changed.set))
        deadline = loop.time() + timeout
        version = 0
        try:
            while True:
                changed.clear()
                traces, version = self.store.changed_since(version)
                for trace in traces:
                    if wanted(trace):
                        return trace
                if not await wait_any(changed, timeout=max(0.0, deadline - loop.time())):
                    raise TimeoutError(f"no such trace within {timeout:g} s; {self.store.describe()}")
        finally:
            unsubscribe()

    async def __aenter__(self) -> "Self":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
