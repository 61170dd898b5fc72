"""What the tests of asyncpg share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctrace.asyncpg.session import KEPT, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctrace.testing import RecordedSpan, Recorder

QUERY = "postgres.query"
ACQUIRE = "asyncpg.pool.acquire"
CONNECT = "postgres.connect"


def queries(traces: Recorder) -> list[RecordedSpan]:
    return [one for one in traces.spans if one.name == QUERY]


def resources(traces: Recorder) -> list[str]:
    return [one.resource for one in queries(traces)]


def rows(traces: Recorder) -> list[tuple[str, Any]]:
    return [(one.resource, one.tags.get("db.row_count")) for one in queries(traces)]


def quiet(connection: Any) -> Any:
    """A connection to look at the others with: none of its queries is traced."""
    session = Session({})
    session.quiet = 1
    setattr(connection._protocol, KEPT, session)
    return connection


async def wait_event(watcher: Any, pid: int, event: str = "PgSleep") -> None:
    """Comes back when that server process waits for `event`."""
    activity = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1"
    while await watcher.fetchval(activity, pid) != event:
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(url: str | None, **options: Any) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, **options)
    try:
        yield connection
    finally:
        await connection.close()
