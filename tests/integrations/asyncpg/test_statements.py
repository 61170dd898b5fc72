"""asyncpg against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from asynctrace import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asynctrace.testing import RecordedSpan, Recorder
    from demos.services import Service

QUERY = "postgres.query"


@pytest.fixture
async def pool(installed: Callable[..., None], postgres: Service) -> AsyncIterator[Any]:
    """A pool of three connections, opened under install()."""
    installed("asyncpg")
    async with asyncpg.create_pool(postgres.url, min_size=3, max_size=3) as opened:
        yield opened


def queries(traces: Recorder) -> list[RecordedSpan]:
    return [one for one in traces.spans if one.name == QUERY]


async def test_a_query_of_a_pool_is_one_span_with_its_address(
    pool: Any, postgres: Service, traces: Recorder
) -> None:
    """A query through a pool says which host, port, database and user it went to."""
    with span("request"):
        assert await pool.fetchval("SELECT 40 + $1::int", 2) == 42
    url = urlsplit(postgres.url)
    query = traces.one(QUERY)
    assert query.resource == "SELECT 40 + $1::int"
    assert query.parent_id == traces.one("request").span_id
    assert (query.service, query.type, query.error) == ("postgres", "sql", 0)
    expected = {
        "component": "asyncpg",
        "span.kind": "client",
        "db.system": "postgresql",
        "db.name": url.path.strip("/"),
        "db.user": url.username,
        "out.host": url.hostname,
        "server.address": url.hostname,
        "network.destination.port": url.port,
        "_dd.measured": 1,
        "_dd.top_level": 1,
        "_dd.base_service": "tests",
    }
    assert {key: query.tags.get(key) for key in expected} == expected


async def test_every_way_to_ask_is_one_span(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """fetch, fetchrow, fetchval, execute with and without arguments, executemany: one span each."""
    installed("asyncpg")
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute("CREATE TEMP TABLE tea (id int)")
        await connection.execute("INSERT INTO tea VALUES ($1)", 1)
        await connection.executemany("INSERT INTO tea VALUES ($1)", [(2,), (3,)])
        await connection.fetch("SELECT id FROM tea")
        await connection.fetchrow("SELECT id FROM tea LIMIT 1")
        await connection.fetchval("SELECT count(*) FROM tea")
        statement = await connection.prepare("SELECT id + 1 FROM tea")
        await statement.fetch()
    finally:
        await connection.close()
    assert [one.resource for one in queries(traces)] == [
        "CREATE TEMP TABLE tea (id int)",
        "INSERT INTO tea VALUES ($1)",
        "INSERT INTO tea VALUES ($1)",
        "SELECT id FROM tea",
        "SELECT id FROM tea LIMIT 1",
        "SELECT count(*) FROM tea",
        "SELECT id + 1 FROM tea",
    ]


async def test_what_the_library_asks_for_itself_is_left_out(pool: Any, traces: Recorder) -> None:
    """A pool's reset and the look-up of types are no spans."""
    async with pool.acquire() as connection:
        await connection.execute(
            "DROP TYPE IF EXISTS asynctrace_mood; CREATE TYPE asynctrace_mood AS (a int)"
        )
        try:
            await connection.fetch("SELECT ROW(1)::asynctrace_mood AS m")
        finally:
            await connection.execute("DROP TYPE asynctrace_mood")
    assert [one.resource.split()[0] for one in queries(traces)] == ["DROP", "SELECT", "DROP"]


@pytest.mark.parametrize(
    ("sql", "error"),
    [("SELECT 1 / $1::int", "DivisionByZeroError"), ("SELECT * FROM no_such_table", "UndefinedTableError")],
    ids=["while it runs", "while it is prepared"],
)
async def test_a_query_that_fails_is_an_error_and_raises_as_ever(
    pool: Any, traces: Recorder, sql: str, error: str
) -> None:
    """A failing query is one span with the error, whether it fails at preparing or at running."""
    arguments = (0,) if "$1" in sql else ()
    with span("request"), pytest.raises(getattr(asyncpg, error)):
        await pool.fetch(sql, *arguments)
    query = traces.one(QUERY)
    assert (query.error, query.outcome, query.resource) == (1, "error", sql)
    assert query.tags["error.type"].endswith(error)
    assert query.parent_id == traces.one("request").span_id
    assert traces.one("request").error == 0


async def test_gathered_queries_hang_from_their_own_callers(pool: Any, traces: Recorder) -> None:
    """Twelve queries over three connections: each is the child of the task that asked."""

    async def ask(number: int) -> None:
        with span(f"caller {number}"):
            assert await pool.fetchval(f"SELECT {number}") == number

    await asyncio.gather(*map(ask, range(12)))
    callers = {one.span_id: one.name for one in traces.spans if one.name.startswith("caller")}
    found = {one.resource: callers[one.parent_id or 0] for one in queries(traces)}
    assert found == {f"SELECT {number}": f"caller {number}" for number in range(12)}


async def test_a_cancelled_query_is_no_error(pool: Any, traces: Recorder) -> None:
    """A task cancelled in its query ends the span as cancelled; the pool stays healthy."""
    async with pool.acquire() as connection:
        pid = connection.get_server_pid()
        asleep = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
        activity = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1"
        while await pool.fetchval(activity, pid) != "PgSleep":
            pass
        asleep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asleep
    assert await pool.fetchval("SELECT 1") == 1
    slept = [one for one in queries(traces) if "pg_sleep" in one.resource]
    assert [(one.error, one.outcome) for one in slept] == [(0, "cancelled")]


async def test_uninstalled_queries_are_not_traced(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """install() twice is once, and uninstall() gives asyncpg's own methods back, also to open connections."""
    from asyncpg.protocol import Protocol

    from asynctrace import uninstall

    before = {
        name: getattr(Protocol, name) for name in ("query", "bind_execute", "prepare", "set_connection")
    }
    installed("asyncpg")
    installed("asyncpg")
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.fetchval("SELECT 1")
        uninstall()
        await connection.fetchval("SELECT 2")
    finally:
        await connection.close()
    assert [one.resource for one in queries(traces)] == ["SELECT 1"]
    assert {name: getattr(Protocol, name) for name in before} == before


BESIDE_DDTRACE = """
import asyncio, sys
import ddtrace
if sys.argv[2] == "before": ddtrace.patch(asyncpg=True)
import asyncpg
from asynctrace import install
from asynctrace.testing import Recorder
install()
if sys.argv[2] == "after": ddtrace.patch(asyncpg=True)
async def main():
    connection = await asyncpg.connect(sys.argv[1])
    with Recorder() as traces:
        await connection.fetchval("SELECT 1")
    await connection.close()
    print([span.name for span in traces.spans])
asyncio.run(main())
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_one_span_beside_ddtraces_own_integration(postgres: Service, order: str) -> None:
    """With ddtrace's own asyncpg integration on, before or after install(): one span, not two."""
    command = [sys.executable, "-c", BESIDE_DDTRACE, postgres.url, order]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['postgres.query']"
