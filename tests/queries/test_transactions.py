"""By option: a span around `async with connection.transaction()`, with its outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from asynctrace import span
from asynctrace.asyncpg import install
from tests.queries.helpers import queries

if TYPE_CHECKING:
    from asynctrace.testing import RecordedSpan, Recorder

BLOCK = "postgres.transaction"


@pytest.fixture
def blocks(connection: Any) -> None:
    install(transactions=True)


def block(traces: Recorder) -> RecordedSpan:
    return next(one for one in traces.spans if one.name == BLOCK)


async def test_without_the_option_it_is_asyncpgs_own(connection: Any, traces: Recorder) -> None:
    """Off: the library's own object, and no span."""
    transaction = connection.transaction()
    assert type(transaction) is Transaction
    async with transaction:
        pass
    assert not [one for one in traces.spans if one.name == BLOCK]


@pytest.mark.usefixtures("blocks")
async def test_a_block_is_a_span(connection: Any, traces: Recorder) -> None:
    """All that happens in it is below it, of savepoints, too; it says how it ended."""
    with span("request"):
        async with connection.transaction():
            await connection.execute("SELECT 1")
            with span("work"):
                async with connection.transaction():
                    await connection.execute("SELECT 2")
    traces.assert_tree("""
        request
          postgres.transaction
            postgres.query
            postgres.query
            work
              postgres.transaction
                postgres.query
                postgres.query
                postgres.query
            postgres.query
    """)
    found = [(one.resource, one.tags["db.transaction.state"]) for one in traces.spans if one.name == BLOCK]
    assert found == [("transaction", "committed"), ("savepoint", "committed")]
    assert block(traces).service == "tests"


@pytest.mark.usefixtures("blocks")
async def test_an_exception_rolls_back(connection: Any, traces: Recorder) -> None:
    """What leaves the block is its error, and it was rolled back; the exception is the same one."""
    mine = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught:
        async with connection.transaction():
            raise mine
    assert caught.value is mine
    assert (block(traces).outcome, block(traces).tags["db.transaction.state"]) == ("error", "rolledback")
    assert [one.error for one in queries(traces)] == [0, 0]


@pytest.mark.usefixtures("blocks")
async def test_a_cancelled_block_is_no_error(connection: Any, traces: Recorder) -> None:
    """Cancelled: rolled back, and no error."""
    inside = asyncio.Event()

    async def work() -> None:
        async with connection.transaction():
            inside.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (block(traces).outcome, block(traces).error) == ("cancelled", 0)
    assert block(traces).tags["db.transaction.state"] == "rolledback"


@pytest.mark.usefixtures("blocks")
async def test_a_commit_that_fails(connection: Any, traces: Recorder) -> None:
    """The commit's error is the block's, with its SQLSTATE."""
    await connection.execute("CREATE TEMP TABLE a (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with connection.transaction():
            await connection.execute("INSERT INTO a VALUES (1), (1)")
    failed = block(traces)
    assert (failed.outcome, failed.tags["db.transaction.state"]) == ("error", "failed")
    assert failed.tags["db.response.status_code"] == "23505"
    assert not connection.is_in_transaction()


@pytest.mark.usefixtures("blocks")
async def test_a_begin_that_fails(connection: Any, traces: Recorder) -> None:
    """A block that never began is an error, too, and leaves nothing active."""
    connection.terminate()
    with pytest.raises(asyncpg.InterfaceError):
        async with connection.transaction():
            pytest.fail("it must not begin")
    assert traces.open == []


@pytest.mark.usefixtures("blocks")
async def test_it_is_a_transaction(connection: Any, traces: Recorder) -> None:
    """isinstance holds; by hand it does what it always does, without a span; entered twice, it is refused as ever."""
    transaction = connection.transaction(isolation="serializable", readonly=True, deferrable=True)
    assert isinstance(transaction, Transaction)
    await transaction.start()
    await transaction.commit()
    assert queries(traces)[0].resource == "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;"
    assert BLOCK not in traces.names()
    again = connection.transaction()
    async with again:
        with pytest.raises(asyncpg.InterfaceError, match="already in"):
            await again.__aenter__()
    traces.assert_finished()
    assert [one.name for one in traces.spans].count(BLOCK) == 1


@pytest.mark.usefixtures("blocks")
async def test_blocks_of_a_pool(connection: Any, pool: Any, traces: Recorder) -> None:
    """Through the pool's proxy, too; side by side, each is its own task's."""

    async def work(number: int) -> None:
        with span(f"request {number}"):
            async with pool.acquire() as one, one.transaction():
                await one.fetchval(f"SELECT {number}")

    traces.clear()
    await asyncio.gather(*map(work, range(3)))
    for number in range(3):
        (asked,) = [one for one in queries(traces) if one.resource == f"SELECT {number}"]
        (around,) = [one for one in traces.spans if one.span_id == asked.parent_id]
        assert around.name == BLOCK
        assert around.parent_id == traces.one(f"request {number}").span_id
