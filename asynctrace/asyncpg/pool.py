"""The wait for a pooled connection; and what a pool does with one that has come back, which is nobody's query."""

from __future__ import annotations

import functools
import logging
from contextvars import ContextVar
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from asyncpg.pool import Pool, PoolConnectionHolder

from asynctrace._core.api import Description, described
from asynctrace._core.tracer import tracer
from asynctrace.asyncpg.describe import ACQUIRE, describe_pool
from asynctrace.asyncpg.options import settings
from asynctrace.asyncpg.session import failed, session_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrace._core.span import Span

    Run = Callable[..., Awaitable[Any]]

log = logging.getLogger("asynctrace")

waiting: ContextVar[Wait | None] = ContextVar("asynctrace.asyncpg", default=None)
"""Who waits for a connection here: a connection that is opened for it is part of the wait."""


class Wait:
    """One wait for a connection: a span from `acquire_ms` on, or when a connection had to be opened for it."""

    __slots__ = ("_before", "_began", "_pool", "_span", "_started_ns")

    _span: Span | None

    def __init__(self, pool: Any) -> None:
        self._pool, self._span = pool, None
        self._before = _asked_before(pool)
        self._began, self._started_ns = perf_counter_ns(), time_ns()

    def connecting(self) -> None:
        """Whoever waits has a connection opened. Not whom a task of his has left behind: then it is over."""
        if self._pool is not None and self._span is None:
            self._span = self._opened(active=True)

    def over(self, connection: Any) -> None:
        """A connection is handed over; its first query will tell of the wait, too."""
        waited_ms = self._ended()
        if self._span is not None or waited_ms >= settings.acquire_ms:
            (self._span or self._opened()).finish()
        self._pool = None
        if (session := session_of(getattr(connection, "_con", None))) is not None:
            session.waited_ms = waited_ms

    def in_vain(self, exc: BaseException) -> None:
        """There is none: time is up, the task was cancelled, none could be opened."""
        if self._span is not None or isinstance(exc, Exception) or self._ended() >= settings.acquire_ms:
            failed(self._span or self._opened(), exc)
        self._pool = None

    def _ended(self) -> float:
        return (perf_counter_ns() - self._began) / 1e6

    def _opened(self, *, active: bool = False) -> Span:
        span = described(_describe, self._pool, self._before)
        return span.open(activate=active, start_ns=self._started_ns)


def _describe(pool: Any, before: int | None) -> Description:
    return {"name": ACQUIRE, "tags": describe_pool(pool, before)}


def _asked_before(pool: Any) -> int | None:
    """How many wait already."""
    try:
        return len(pool._queue._getters)
    except Exception:
        return None


def traced_acquire(run: Run) -> Run:
    """`Pool._acquire`. With a connection at hand there is no wait, and no clock is read."""

    @functools.wraps(run)
    def method(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        acquiring = run(self, *args, **kwargs)
        if _is_at_hand(self) or not settings.on or not tracer.enabled:
            return acquiring
        return waited(self, acquiring)

    async def waited(pool: Any, acquiring: Awaitable[Any]) -> Any:
        wait = Wait(pool)
        token = waiting.set(wait)
        try:
            connection = await acquiring
        except BaseException as exc:
            wait.in_vain(exc)
            raise
        finally:
            _reset(token)
        wait.over(connection)
        return connection

    return method


def _is_at_hand(pool: Any) -> bool:
    """Whether the next free connection is open and up to date, and nobody else's code runs before it is handed over."""
    try:
        holder = pool._queue._queue[-1]
        return (
            holder._con is not None
            and holder._generation == pool._generation
            and pool._setup is None
            and not holder._con.is_closed()
        )
    except Exception:  # none is free; or other insides than we know
        return False


def _reset(token: Any) -> None:
    try:
        waiting.reset(token)
    except ValueError:  # the coroutine was closed from elsewhere
        log.debug("a wait was given up in another context", exc_info=True)


# -- who asks: the pool, or whoever has the connection


def idle_from_now_on(run: Run) -> Run:
    """`PoolConnectionHolder.release`. A pool with a `reset=` of the user's asks the user's queries."""

    @functools.wraps(run)
    def method(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        if (session := session_of(self._con)) is not None:
            session.idle = getattr(self._pool, "_reset", None) is None
            session.prepared, session.waited_ms = None, 0.0
        return run(self, *args, **kwargs)

    return method


def in_use_again(run: Run) -> Run:
    """`PoolConnectionHolder.acquire`."""

    @functools.wraps(run)
    def method(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        if (session := session_of(self._con)) is not None:
            session.idle = False
        return run(self, *args, **kwargs)

    return method


DOORS = (
    (Pool, "_acquire", traced_acquire),
    (PoolConnectionHolder, "acquire", in_use_again),
    (PoolConnectionHolder, "release", idle_from_now_on),
)
