"""A statement is prepared before it runs: part of the query that needs it, or a span of its own."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from asyncpg.protocol import Protocol

from tests.queries.helpers import QUERY, connected, queries, resources, wait_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from demos.services import Service


async def test_prepared_statements(connection: Any, traces: Recorder) -> None:
    """Preparing is a span of its own, each use of the statement is one."""
    statement = await connection.prepare("SELECT $1::int + 1")
    assert await statement.fetchval(1) == 2
    assert await statement.fetch(2) == [(3,)]
    await statement.executemany([(1,), (2,)])
    assert [(one.name, one.resource) for one in traces.spans] == [
        ("postgres.prepare", "SELECT $1::int + 1"),
        (QUERY, "SELECT $1::int + 1"),
        (QUERY, "SELECT $1::int + 1"),
        (QUERY, "SELECT $1::int + 1"),
    ]


async def test_a_statement_that_is_new_is_prepared_within_its_span(
    connection: Any, watcher: Any, traces: Recorder
) -> None:
    """The first `fetch` of a statement waits for its preparing, too, and so does its span; the second need not."""
    table = f"asynctrace_{uuid.uuid4().hex}"
    await watcher.execute(f"CREATE TABLE {table} (id int)")
    asking = f"SELECT * FROM {table}"
    try:
        async with watcher.transaction():
            await watcher.execute(f"LOCK TABLE {table}")  # nothing of it can be prepared
            first = asyncio.create_task(connection.fetch(asking))
            blocked = "SELECT cardinality(pg_blocking_pids($1))"
            while not await watcher.fetchval(blocked, connection.get_server_pid()):
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)  # what is measured
        await first
        await connection.fetch(asking)
    finally:
        await watcher.execute(f"DROP TABLE {table}")
    spans = [one for one in queries(traces) if one.resource == asking]
    assert len(spans) == 2
    assert spans[0].duration_ns >= 50e6
    assert spans[1].duration_ns < 50e6


async def test_what_was_prepared_by_hand_begins_when_it_runs(connection: Any, traces: Recorder) -> None:
    """Only what a query had to wait for is in its span: a statement that was there begins with its use."""
    statement = await connection.prepare("SELECT 1")
    then = time.time_ns()
    await statement.fetch()
    assert traces.one(QUERY).start_ns >= then
    assert (traces.one("postgres.prepare").end_ns or 0) <= then


async def test_what_was_prepared_and_never_ran_is_no_part_of_the_next(
    connection: Any, traces: Recorder
) -> None:
    """A cursor outside a transaction is refused after its statement was prepared: the next query begins with itself."""
    with pytest.raises(asyncpg.NoActiveSQLTransactionError):
        _ = [row async for row in connection.cursor("SELECT 1")]
    then = time.time_ns()
    await connection.execute("SELECT 2")
    assert traces.one(QUERY).start_ns >= then


async def test_a_query_given_up_while_its_predecessor_is_put_away(
    installed: Callable[..., None], postgres: Service, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement takes the place of another, which is closed first; that this fails is the query's failure."""

    async def gone(*_: Any) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    monkeypatch.setattr(Protocol, "close_statement", gone)
    installed("asyncpg")
    async with connected(postgres.url, statement_cache_size=1) as one:
        await one.fetch("SELECT 1")
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await one.fetch("SELECT 2")
    assert [(one.resource, one.error) for one in queries(traces)] == [("SELECT 1", 0), ("SELECT 2", 1)]


async def test_a_query_given_up_between_preparing_and_running(
    connection: Any, watcher: Any, traces: Recorder
) -> None:
    """Cancelled while asyncpg looks up the types of its result: one span, cancelled, that tells of the query."""
    await connection.execute("CREATE TYPE pg_temp.leaf AS (a int)")
    traces.clear()
    connection._intro_query = "SELECT pg_sleep(30), $1::oid[]"  # slow as some people's
    asking = asyncio.create_task(connection.fetch("SELECT ROW(1)::pg_temp.leaf"))
    await wait_event(watcher, connection.get_server_pid())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await connection.fetchval("SELECT 1") == 1
    assert [(one.resource, one.outcome) for one in queries(traces)] == [
        ("SELECT ROW(1)::pg_temp.leaf", "cancelled"),
        ("SELECT 1", "ok"),
    ]


async def test_a_statement_that_can_not_be_prepared_by_hand(connection: Any, traces: Recorder) -> None:
    """`prepare()` that fails is one span, with the error."""
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await connection.prepare("SELEKT")
    failed = traces.spans[-1]
    assert (failed.name, failed.error) == ("postgres.prepare", 1)
    assert failed.tags["db.response.status_code"] == "42601"
    assert resources(traces) == []
