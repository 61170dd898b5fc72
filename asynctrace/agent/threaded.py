"""The agent in a thread of its own, for programs without an event loop.

with start_in_thread() as agent:
    trace = agent.wait_for(lambda trace: "worker" in trace.services, timeout=10)
"""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from asynctrace.agent.embedded import DRAIN_TIMEOUT, Agent
from asynctrace.agent.spans import Trace
from asynctrace.agent.store import DEFAULT_MAX_BYTES, TraceStore

if TYPE_CHECKING:
    from typing_extensions import Self


class AgentThread:
    """An agent in a thread of its own, for callers without an event loop; a context manager.

    Made and started by `start_in_thread()`.
    """

    def __init__(self, agent: Agent) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="asynctrace-agent", daemon=True)
        self._agent = agent
        self._stopped = False

    @property
    def url(self) -> str:
        """What `DD_TRACE_AGENT_URL` must be for a program on this machine."""
        return self._agent.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._agent.port

    @property
    def store(self) -> TraceStore:
        """The traces; may be read from any thread, also after `stop()`."""
        return self._agent.store

    def start(self) -> "Self":
        """Listens when it returns.

        Raises:
            OSError: the port is taken.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._agent.start(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise
        return self

    def wait_for(self, wanted: Callable[[Trace], bool], timeout: float = 10.0) -> Trace:
        """The first trace that satisfies `wanted`; see `TraceStore.wait_for`."""
        return self.store.wait_for(wanted, timeout)

    def drain(self, timeout: float = DRAIN_TIMEOUT) -> bool:
        """Waits until everything that was sent is in the store; see `Agent.drain`."""
        return asyncio.run_coroutine_threadsafe(self._agent.drain(timeout), self._loop).result()

    def stop(self) -> None:
        """Closes the port, decodes what is queued and ends the thread. A second call does nothing."""
        if not self._stopped:
            asyncio.run_coroutine_threadsafe(self._agent.stop(), self._loop).result()
            self._end_loop()

    def _end_loop(self) -> None:
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def start_in_thread(
    host: str = "127.0.0.1", port: int = 0, *, max_bytes: int = DEFAULT_MAX_BYTES,
    db: str | None = None, forward: str | None = None,
) -> AgentThread:  # fmt: skip
    """An agent that listens, in a thread of its own; the arguments are those of `Agent`.

        with start_in_thread() as agent:
            subprocess.run([...], env={**os.environ, "DD_TRACE_AGENT_URL": agent.url})
            trace = agent.wait_for(lambda trace: len(trace.services) == 3)

    Raises:
        OSError: the port is taken.
    """
    return AgentThread(Agent(host, port, max_bytes=max_bytes, db=db, forward=forward)).start()
