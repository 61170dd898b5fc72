"""A server that dies, statements that take too long, a pool that is exhausted, a thousand cancellations.

Each is played twice, without us and with us: the same happens, and the pool is as healthy afterwards.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctrace import install, span, uninstall
from demos.services import postgres
from tests.queries.helpers import ACQUIRE, queries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from asynctrace.testing import Recorder
    from demos.services import Service

    Play = Callable[[Any], Awaitable[Any]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SIZE = 3


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    """A PostgreSQL of our own."""
    with postgres(private=True) as service:
        yield service


@pytest.fixture
async def twice(server: Service) -> AsyncIterator[Callable[..., Awaitable[list[Any]]]]:
    """Plays something with a pool, without and with us; gives what happened, and how the pool is then."""
    opened = []

    async def played(play: Play, **options: Any) -> list[Any]:
        told = []
        for traced in (False, True):
            if traced:
                install("asyncpg")
            pool = await asyncpg.create_pool(server.url, min_size=SIZE, max_size=SIZE, **options)
            opened.append(pool)
            happened = await play(pool)
            told.append((happened, await health(pool)))
            await asyncio.wait_for(pool.close(), 20)
            uninstall()
        return told

    yield played
    for pool in opened:
        pool.terminate()


async def outcomes(*running: Awaitable[Any]) -> list[Any]:
    """Results, and the types of exceptions."""
    results = await asyncio.gather(*running, return_exceptions=True)
    return [type(one).__name__ if isinstance(one, BaseException) else one for one in results]


async def health(pool: Any) -> Any:
    """Three queries at once work, all connections are idle again, and the server has nothing left to do for us."""
    answers = await asyncio.gather(
        *[pool.fetchval(f"SELECT {number}, pg_sleep(0.01)") for number in range(SIZE)]
    )
    while pool.get_idle_size() < SIZE:
        await asyncio.sleep(0.01)
    busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
    while await pool.fetchval(busy + " AND backend_type = 'client backend'"):
        await asyncio.sleep(0.01)
    return answers, pool.get_size()


async def asleep(server: Service, count: int) -> None:
    """Comes back when so many queries sleep on the server."""
    watcher = await asyncpg.connect(server.url)
    while (
        await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") < count
    ):
        await asyncio.sleep(0.01)
    await watcher.close()


async def test_killed_and_restarted(
    server: Service, twice: Callable[..., Awaitable[list[Any]]], traces: Recorder
) -> None:
    """PostgreSQL is killed amid queries: they fail, so do others while it is gone; after its restart all is well."""

    async def play(pool: Any) -> Any:
        async def ask() -> None:
            with span("request"):
                await pool.fetchval("SELECT pg_sleep(60)")

        running = [asyncio.create_task(ask()) for _ in range(SIZE)]
        await asleep(server, SIZE)
        await asyncio.to_thread(server.kill)
        cut_off = await outcomes(*running)
        gone = await outcomes(*[pool.fetchval("SELECT 1") for _ in range(5)])
        await asyncio.to_thread(server.restart)
        return cut_off, gone, await outcomes(*[pool.fetchval("SELECT 1") for _ in range(5)])

    without, with_us = await twice(play)
    assert with_us == without
    assert with_us[0][2] == [1] * 5
    cut = [one for one in queries(traces) if "pg_sleep(60)" in one.resource]
    assert [one.error for one in cut] == [1] * SIZE
    traces.assert_finished()
    requests = {one.span_id for one in traces.spans if one.name == "request"}
    assert {one.parent_id for one in cut} <= requests


async def test_statements_that_take_too_long(
    twice: Callable[..., Awaitable[list[Any]]], traces: Recorder
) -> None:
    """Thirty statements against the server's `statement_timeout`: each is a timeout, the pool is not worn out."""

    async def play(pool: Any) -> Any:
        return await outcomes(*[pool.fetchval("SELECT pg_sleep(60)") for _ in range(30)])

    without, with_us = await twice(play, server_settings={"statement_timeout": "50ms"})
    assert with_us == without
    assert with_us[0] == ["QueryCanceledError"] * 30
    late = [one for one in queries(traces) if "pg_sleep(60)" in one.resource]
    assert [(one.outcome, one.tags["db.response.status_code"]) for one in late] == [("timeout", "57014")] * 30
    traces.assert_finished()


async def test_exhausted(twice: Callable[..., Awaitable[list[Any]]], traces: Recorder) -> None:
    """All connections are held: fifty who wait for a while give up, and each of them has a span of its own wait."""

    async def play(pool: Any) -> Any:
        async def hungry() -> None:
            async with pool.acquire(timeout=0.1):
                raise AssertionError("there was one")

        held = [await pool.acquire() for _ in range(SIZE)]
        told = await outcomes(*[hungry() for _ in range(50)])
        for one in held:
            await pool.release(one)
        return told

    without, with_us = await twice(play)
    assert with_us == without
    assert with_us[0] == ["TimeoutError"] * 50
    waits = [one for one in traces.spans if one.name == ACQUIRE and one.error]
    assert [one.outcome for one in waits] == ["timeout"] * 50
    assert all(one.duration_ns >= 95e6 for one in waits)
    assert {one.tags["db.pool.in_use"] for one in waits} == {SIZE}
    assert sorted(one.tags["db.pool.waiting"] for one in waits) == list(range(50))
    traces.assert_finished()


async def test_a_thousand_cancelled_queries(
    twice: Callable[..., Awaitable[list[Any]]], traces: Recorder
) -> None:
    """Cancelled whenever: all spans are closed, none is an error, and the pool is as good as new."""

    async def play(pool: Any) -> Any:
        chance = random.Random(4711)

        async def ask(number: int) -> None:
            with span(f"request {number}"):
                # a cancel request that overtakes its query is lost on PostgreSQL: asyncpg waits for the query, then
                await pool.fetchval("SELECT $1::int, pg_sleep(2)", number)

        cancelled = 0
        for start in range(0, 1000, 20):
            tasks = [asyncio.create_task(ask(start + number)) for number in range(20)]
            for task in chance.sample(tasks, len(tasks)):
                await asyncio.sleep(chance.choice((0, 0, 0.0005, 0.002)))
                task.cancel()
            cancelled += (await outcomes(*tasks)).count("CancelledError")
        return cancelled

    without, with_us = await twice(play)
    assert with_us == without
    assert with_us[0] == 1000
    traces.assert_finished()
    assert not [one for one in traces.spans if one.error]
    requests = {one.span_id: one for one in traces.spans if one.name.startswith("request ")}
    asked = [one for one in queries(traces) if one.parent_id in requests]
    assert len(asked) > 100
    assert {one.outcome for one in asked} == {"cancelled"}
    assert all(one.trace_id == requests[one.parent_id].trace_id for one in asked if one.parent_id)
