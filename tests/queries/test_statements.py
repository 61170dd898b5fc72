"""Every statement on every path is a span a round trip, and says what it was."""

from __future__ import annotations

import asyncio
import io
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from asynctrace import span
from tests.queries.helpers import QUERY, connected, queries, resources, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace.testing import Recorder
    from demos.services import Service

pytestmark = pytest.mark.usefixtures("postgres")

INSERT = "INSERT INTO tea VALUES ($1, $2)"
SELECT = "SELECT id FROM tea ORDER BY id"


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
        "db.row_count": 1,
        "out.host": url.hostname,
        "server.address": url.hostname,
        "network.destination.port": url.port,
        "_dd.measured": 1,
        "_dd.top_level": 1,
        "_dd.base_service": "tests",
    }
    assert {key: query.tags.get(key) for key in expected} == expected


async def test_every_way_to_ask_is_one_span(connection: Any, traces: Recorder) -> None:
    """All methods that ask: one span each, with the rows that came or were affected, where the server says so."""
    await connection.execute("INSERT INTO tea VALUES (1, 'green'), (2, 'black')")
    await connection.execute(INSERT, 3, "white")
    await connection.executemany(INSERT, [(4, "red"), (5, "herbal")])
    assert len(await connection.fetch(SELECT)) == 5
    assert (await connection.fetchrow(SELECT))["id"] == 1
    assert await connection.fetchval("SELECT count(*) FROM tea") == 5
    found = await connection.fetchmany("SELECT name FROM tea WHERE id = $1", [(1,), (2,), (9,)])
    assert [one["name"] for one in found] == ["green", "black"]
    await connection.execute("UPDATE tea SET name = 'x' WHERE id > $1", 2)
    await connection.execute("DELETE FROM tea")
    assert rows(traces) == [
        ("INSERT INTO tea VALUES (1, 'green'), (2, 'black')", 2),
        (INSERT, 1),
        (INSERT, None),
        (SELECT, 5),
        (SELECT, 1),
        ("SELECT count(*) FROM tea", 1),
        ("SELECT name FROM tea WHERE id = $1", 2),
        ("UPDATE tea SET name = 'x' WHERE id > $1", 3),
        ("DELETE FROM tea", 5),
    ]


async def test_every_shortcut_of_a_pool_is_one_span(pool: Any, traces: Recorder) -> None:
    """A pool's own methods, COPY among them: the statement, and nothing of what the pool does around it."""
    await pool.execute("CREATE TABLE IF NOT EXISTS pg_temp.none (a int)")
    await pool.fetch("SELECT 1")
    await pool.fetchrow("SELECT 2")
    await pool.fetchval("SELECT 3")
    await pool.fetchmany("SELECT $1::int", [(4,)])
    await pool.executemany("SELECT $1::int", [(5,)])
    await pool.copy_from_query("SELECT 6", output=io.BytesIO())
    assert [one.split(" TO ")[0] for one in resources(traces)] == [
        "CREATE TABLE IF NOT EXISTS pg_temp.none (a int)",
        "SELECT 1",
        "SELECT 2",
        "SELECT 3",
        "SELECT $1::int",
        "SELECT $1::int",
        "COPY (SELECT 6)",
    ]


async def test_a_batch_says_how_big_it_was(connection: Any, traces: Recorder) -> None:
    """executemany and fetchmany say how often the statement ran, also when the arguments come from a generator."""

    def generated() -> Iterator[tuple[int, str]]:
        for number in range(7):
            with span("made"):
                yield number, "tea"

    await connection.executemany(INSERT, [(100, "a"), (101, "b")])
    await connection.executemany(INSERT, generated())
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.executemany(INSERT, iter([(200, "new"), (100, "there")]))
    sizes = [one.tags.get("db.operation.batch.size") for one in queries(traces) if one.resource == INSERT]
    assert sizes == [2, 7, 2]
    batch = queries(traces)[1]
    assert {one.parent_id for one in traces.spans if one.name == "made"} == {batch.span_id}
    assert await connection.fetchval("SELECT count(*) FROM tea") == 9


async def test_a_cursor_is_a_span_a_round_trip(connection: Any, traces: Recorder) -> None:
    """Rows come in chunks: a span for each chunk, none for a row. Opening a cursor by hand is a round trip."""
    await connection.executemany(INSERT, [(number, "tea") for number in range(120)])
    traces.clear()
    async with connection.transaction():
        seen = [row["id"] async for row in connection.cursor(SELECT, prefetch=50)]
        assert seen == list(range(120))
        cursor = await connection.cursor(SELECT)
        assert await cursor.forward(3) == 3
        assert (await cursor.fetchrow())["id"] == 3
        assert len(await cursor.fetch(10)) == 10
    assert rows(traces) == [
        ("BEGIN;", None),
        (SELECT, 50),
        (SELECT, 50),
        (SELECT, 20),
        (SELECT, None),
        ("MOVE FORWARD 3 __asyncpg_portal_n__", 3),
        (SELECT, 1),
        (SELECT, 10),
        ("COMMIT;", None),
    ]


async def test_a_cursor_left_early(connection: Any, traces: Recorder) -> None:
    """The spans of a cursor are over with each chunk: what the consumer does in between is not in them."""
    await connection.executemany(INSERT, [(number, "tea") for number in range(10)])
    traces.clear()
    async with connection.transaction():
        async for row in connection.cursor(SELECT, prefetch=2):
            with span(f"row {row['id']}"):
                pass
            if row["id"] == 2:
                break
    traces.assert_finished()
    assert all(one.parent_id is None for one in traces.spans)
    assert resources(traces) == ["BEGIN;", SELECT, SELECT, "COMMIT;"]


async def test_savepoints_are_not_a_resource_each(connection: Any, traces: Recorder) -> None:
    """asyncpg counts its savepoints: the number is not in the resource."""
    async with connection.transaction():
        for _ in range(2):
            async with connection.transaction():
                pass
        with pytest.raises(ValueError, match="no"):
            async with connection.transaction():
                raise ValueError("no")
    savepoint = "__asyncpg_savepoint_n__"
    assert resources(traces) == [
        "BEGIN;",
        *(f"SAVEPOINT {savepoint};", f"RELEASE SAVEPOINT {savepoint};") * 2,
        f"SAVEPOINT {savepoint};",
        f"ROLLBACK TO {savepoint};",
        "COMMIT;",
    ]


async def test_transactions_are_their_statements(connection: Any, traces: Recorder) -> None:
    """BEGIN, COMMIT and ROLLBACK are spans, by block and by hand."""
    by_hand = connection.transaction(isolation="serializable", readonly=True)
    await by_hand.start()
    await by_hand.rollback()
    with pytest.raises(ValueError, match="no"):
        async with connection.transaction():
            raise ValueError("no")
    assert resources(traces) == [
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;",
        "ROLLBACK;",
        "BEGIN;",
        "ROLLBACK;",
    ]
    assert {one.error for one in queries(traces)} == {0}


async def test_what_the_library_asks_for_itself_is_left_out(pool: Any, traces: Recorder) -> None:
    """A pool's reset and the look-up of types are no spans."""
    mood = f"asynctrace_{uuid.uuid4().hex}"
    async with pool.acquire() as connection:
        await connection.execute(f"CREATE TYPE {mood} AS (a int)")
        try:
            await connection.fetch(f"SELECT ROW(1)::{mood} AS m")
            await connection.set_type_codec(mood, encoder=tuple, decoder=tuple, format="tuple")
        finally:
            await connection.execute(f"DROP TYPE {mood}")
    assert [one.split()[0] for one in resources(traces)] == ["CREATE", "SELECT", "DROP"]


@pytest.mark.parametrize(
    ("sql", "error", "state"),
    [
        ("SELECT 1 / $1::int", asyncpg.DivisionByZeroError, "22012"),
        ("SELECT * FROM no_such_table", asyncpg.UndefinedTableError, "42P01"),
    ],
    ids=["while it runs", "while it is prepared"],
)
async def test_a_query_that_fails_is_an_error_and_raises_as_ever(
    pool: Any, traces: Recorder, sql: str, error: type[Exception], state: str
) -> None:
    """A failing query is one span with the error and its SQLSTATE, whether it fails at preparing or at running."""
    arguments = (0,) if "$1" in sql else ()
    with span("request"), pytest.raises(error):
        await pool.fetch(sql, *arguments)
    query = traces.one(QUERY)
    assert (query.error, query.outcome, query.resource) == (1, "error", sql)
    assert query.tags["error.type"].endswith(error.__name__)
    assert query.tags["db.response.status_code"] == state
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


@pytest.mark.parametrize("nonsense", [None, 7, b"SELECT 1", "SELECT '\ud800'"])
async def test_query_text_that_is_no_text(
    installed: Callable[..., None], postgres: Service, traces: Recorder, nonsense: Any
) -> None:
    """What asyncpg refuses is refused as ever, and whatever was said of it can be sent."""
    refusals = []
    for traced in (False, True):
        if traced:
            installed("asyncpg")
        async with connected(postgres.url) as connection:
            for ask in (connection.execute, connection.fetch):
                with pytest.raises(Exception) as caught:
                    await ask(nonsense)
                refusals.append((type(caught.value), str(caught.value)))
    assert refusals[:2] == refusals[2:]
    assert all(one.error and one.resource.isascii() for one in queries(traces))
