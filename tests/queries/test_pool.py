"""The wait for a pooled connection, and what a pool asks on its own account."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctrace import span
from asynctrace.asyncpg import install, pool as room
from tests.queries.helpers import ACQUIRE, CONNECT, QUERY, queries, resources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asynctrace.testing import RecordedSpan, Recorder
    from demos.services import Service

HOLD = 0.1


@pytest.fixture
async def single(installed: Callable[..., None], postgres: Service) -> AsyncIterator[Any]:
    """A pool of one connection."""
    installed("asyncpg")
    async with asyncpg.create_pool(postgres.url, min_size=1, max_size=1) as opened:
        yield opened


def acquires(traces: Recorder) -> list[RecordedSpan]:
    return [one for one in traces.spans if one.name == ACQUIRE]


async def hold(pool: Any, seconds: float = HOLD) -> None:
    async with pool.acquire():
        await asyncio.sleep(seconds)


async def busy(pool: Any) -> None:
    """Comes back when no connection is free."""
    while not pool._queue.empty():
        await asyncio.sleep(0)


async def test_starvation_shows_the_wait_it_had(single: Any, traces: Recorder) -> None:
    """One connection, two who hold it for 100 ms each: the third waits for 200, and its query and a span say so."""
    holders = [asyncio.create_task(hold(single)) for _ in range(2)]
    await busy(single)
    with span("request"):
        assert await single.fetchval("SELECT 1") == 1
    await asyncio.gather(*holders)
    query, request = traces.one(QUERY), traces.one("request")
    assert query.tags["db.pool.wait_ms"] >= 195
    (waited,) = [one for one in acquires(traces) if one.parent_id == request.span_id]
    assert waited.duration_ns >= 195e6
    assert abs(waited.duration_ns / 1e6 - query.tags["db.pool.wait_ms"]) < 20
    assert waited.end_ns <= query.start_ns  # type: ignore[operator]
    (held,) = [one for one in acquires(traces) if one != waited]  # the second holder's
    assert held.duration_ns >= 95e6


async def test_what_a_wait_says(single: Any, postgres: Service, traces: Recorder) -> None:
    """The span of a wait has the pool's size, its limit, how many were in use, and how many asked before."""
    holder = asyncio.create_task(hold(single))
    await busy(single)
    others = [asyncio.create_task(single.fetchval("SELECT 1")) for _ in range(3)]
    await asyncio.gather(holder, *others)
    first, *_, last = acquires(traces)
    expected = {
        "component": "asyncpg",
        "db.system": "postgresql",
        "db.name": "postgres",
        "db.pool.size": 1,
        "db.pool.max_size": 1,
        "db.pool.in_use": 1,
        "db.pool.waiting": 2,
    }
    assert {key: last.tags.get(key) for key in expected} == expected
    assert first.tags["db.pool.waiting"] == 0
    assert last.service == "tests"  # the wait is ours, not the database's
    assert "span.kind" not in last.tags


async def test_only_the_first_query_waited(single: Any, traces: Recorder) -> None:
    """The figure is on the query that waited: not on the next one, nor on the next to have the connection."""
    holder = asyncio.create_task(hold(single, 0.01))
    await busy(single)
    async with single.acquire() as connection, connection.transaction():
        await connection.fetchval("SELECT 1")
    await single.fetchval("SELECT 2")
    await holder
    told = {one.resource: "db.pool.wait_ms" in one.tags for one in queries(traces)}
    assert told == {"BEGIN;": True, "SELECT 1": False, "COMMIT;": False, "SELECT 2": False}


async def test_a_wait_that_nobody_told_of_is_forgotten(single: Any, traces: Recorder) -> None:
    """Who waits, and asks nothing, does not leave the figure to the next one."""
    holder = asyncio.create_task(hold(single, 0.01))
    await busy(single)
    async with single.acquire():
        pass
    await single.fetchval("SELECT 1")
    await holder
    assert "db.pool.wait_ms" not in traces.one(QUERY).tags


async def test_no_wait_no_figure_no_clock(
    pool: Any, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a connection at hand nothing is measured: neither span nor tag, and no clock is read."""

    def read() -> int:
        raise AssertionError("a clock was read")

    await pool.fetchval("SELECT 1")
    monkeypatch.setattr(room, "perf_counter_ns", read)
    monkeypatch.setattr(room, "time_ns", read)
    await asyncio.gather(*[pool.fetchval("SELECT 1") for _ in range(3)])
    await pool.fetchval("SELECT 1")
    assert acquires(traces) == []
    assert not any("db.pool.wait_ms" in one.tags for one in queries(traces))


async def test_short_waits_are_a_figure_only(single: Any, traces: Recorder) -> None:
    """Below `acquire_ms` a wait is a tag and no span."""
    install(acquire_ms=10_000)
    holder = asyncio.create_task(hold(single, 0.02))
    await busy(single)
    await single.fetchval("SELECT 1")
    await holder
    assert traces.one(QUERY).tags["db.pool.wait_ms"] >= 15
    assert acquires(traces) == []


async def test_a_wait_that_times_out(single: Any, traces: Recorder) -> None:
    """`acquire(timeout=)` that passes: a span that ends then, an error of the kind timeout; the pool is as it was."""
    holder = asyncio.create_task(hold(single))
    await busy(single)
    with span("request"), pytest.raises(asyncio.TimeoutError):
        await single.acquire(timeout=0.03)
    (waited,) = acquires(traces)
    assert (waited.outcome, waited.error) == ("timeout", 1)
    assert waited.parent_id == traces.one("request").span_id
    assert 25e6 <= waited.duration_ns < 95e6
    await holder
    assert await single.fetchval("SELECT 1") == 1
    assert single.get_idle_size() == 1


async def test_a_wait_in_vain_is_always_a_span(single: Any, traces: Recorder) -> None:
    """However short it was: an acquisition that fails is an error of its own."""
    install(acquire_ms=10_000)
    holder = asyncio.create_task(hold(single, 0.02))
    await busy(single)
    with pytest.raises(asyncio.TimeoutError):
        await single.acquire(timeout=0.001)
    await holder
    assert [one.outcome for one in acquires(traces)] == ["timeout"]


async def test_a_connection_that_has_expired(single: Any, traces: Recorder) -> None:
    """It looks free, and is opened anew for whoever gets it, who waits for that."""
    await single.fetchval("SELECT 1")
    await single.expire_connections()
    with span("request"):
        await single.fetchval("SELECT 2")
    assert traces.tree().splitlines()[1:] == [
        "request",
        "  asyncpg.pool.acquire",
        "    postgres.connect",
        "  postgres.query",
    ]


async def test_a_wait_that_is_cancelled(single: Any, traces: Recorder) -> None:
    """Cancelled while it waits: a span that says so and is no error; the others in the line are served."""
    holder = asyncio.create_task(hold(single))
    await busy(single)
    given_up = asyncio.create_task(single.fetchval("SELECT 1"))
    patient = asyncio.create_task(single.fetchval("SELECT 2"))
    await asyncio.sleep(0.01)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await patient == 2
    await holder
    assert [(one.outcome, one.error) for one in acquires(traces)] == [("cancelled", 0), ("ok", 0)]


async def test_a_wait_is_its_callers(pool: Any, traces: Recorder) -> None:
    """Twelve callers, three connections: each wait is below its own caller, before its query."""

    async def ask(number: int) -> None:
        with span(f"caller {number}"):
            await pool.fetchval("SELECT pg_sleep(0.005)")

    await asyncio.gather(*map(ask, range(12)))
    waits = acquires(traces)
    assert len(waits) == 9
    assert len({one.parent_id for one in waits}) == 9
    by_parent = {one.parent_id: one for one in queries(traces)}
    assert all((one.end_ns or 0) <= by_parent[one.parent_id].start_ns for one in waits)
    waited = [one for one in queries(traces) if "db.pool.wait_ms" in one.tags]
    assert {one.parent_id for one in waited} == {one.parent_id for one in waits}


async def test_connecting_is_part_of_the_wait(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """A connection that is opened for a caller: the wait contains connecting, and what `init` asks."""
    installed("asyncpg")

    async def init(connection: Any) -> None:
        await connection.execute("SET application_name = 'tea'")

    async with asyncpg.create_pool(postgres.url, min_size=0, max_size=1, init=init) as lazy:
        with span("request"):
            await lazy.fetchval("SELECT 1")
    assert traces.tree(lambda one: one.resource) == (
        "request\n"
        "  asyncpg.pool.acquire\n"
        "    postgres.connect\n"
        "    SET application_name = 'tea'\n"
        "  SELECT 1\n"
    ).rstrip("\n")
    # the first to use the connection is init, but it did not wait for it
    assert [one.resource for one in queries(traces) if "db.pool.wait_ms" in one.tags] == ["SELECT 1"]


async def test_a_connection_that_can_not_be_opened(installed: Callable[..., None], traces: Recorder) -> None:
    """The attempt and the wait are both errors, and the exception is asyncpg's."""
    installed("asyncpg")
    pool = await asyncpg.create_pool("postgresql://u@127.0.0.1:9/none", min_size=0, max_size=1)
    with pytest.raises(OSError, match=r"refused|Connect"):
        await pool.fetchval("SELECT 1")
    assert [(one.name, one.error) for one in traces.spans] == [(ACQUIRE, 1), (CONNECT, 1)]
    assert traces.one(CONNECT).tags["out.host"] == "127.0.0.1"
    assert traces.one(CONNECT).tags["network.destination.port"] == 9
    pool.terminate()


async def test_setup_is_waited_for(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """`setup=` runs at each hand-over, as the caller's: its query is a span, and its time part of the wait."""
    installed("asyncpg")

    async def setup(connection: Any) -> None:
        await connection.fetchval("SELECT 'set up', pg_sleep(0.01)")

    async with asyncpg.create_pool(postgres.url, min_size=1, max_size=1, setup=setup) as pool:
        await pool.fetchval("SELECT 1")
        assert room.waiting.get() is None  # whoever connects next in this task does not wait for a pool
    assert resources(traces) == ["SELECT 'set up', pg_sleep(0.01)", "SELECT 1"]
    assert queries(traces)[-1].tags["db.pool.wait_ms"] >= 10


async def test_what_setup_leaves_behind_waits_for_nothing(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """A task started in `setup=`, that connects when the wait is long over, is no part of it."""
    installed("asyncpg")
    gate, left = asyncio.Event(), []

    async def later() -> None:
        await gate.wait()
        await (await asyncpg.connect(postgres.url)).close()

    async def setup(_: Any) -> None:
        left.append(asyncio.create_task(later()))

    install(acquire_ms=10_000)
    async with asyncpg.create_pool(postgres.url, min_size=1, max_size=1, setup=setup) as pool:
        traces.clear()
        await pool.fetchval("SELECT 1")
        gate.set()
        await asyncio.gather(*left)
    traces.assert_finished()
    assert [one.name for one in traces.spans] == [QUERY, CONNECT]


class Careful(asyncpg.Connection):  # type: ignore[misc]
    """A connection with a reset of its own."""

    def get_reset_query(self) -> str:
        return "SELECT 'my reset'"


async def test_what_a_pool_resets_with_is_nobodys_query(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """Whatever the connection's class resets with, and the ROLLBACK of a transaction that was left open."""
    installed("asyncpg")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncpg complains of the open transaction
    async with asyncpg.create_pool(postgres.url, min_size=1, max_size=1, connection_class=Careful) as pool:
        async with pool.acquire() as connection:
            await connection.execute("BEGIN")
        await pool.fetchval("SELECT 1")
        async with pool.acquire() as connection:
            await connection.reset()  # this one was asked for
    assert resources(traces) == ["BEGIN", "SELECT 1", "SELECT 'my reset'"]


async def test_what_the_user_resets_with_is_seen(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """`reset=` is the user's code: its queries are spans, children of whoever gave the connection back."""
    installed("asyncpg")

    async def reset(connection: Any) -> None:
        await connection.execute("RESET ALL")

    async with asyncpg.create_pool(postgres.url, min_size=1, max_size=1, reset=reset) as pool:
        with span("request"):
            await pool.fetchval("SELECT 1")
    assert resources(traces) == ["SELECT 1", "RESET ALL"]
    assert {one.parent_id for one in queries(traces)} == {traces.one("request").span_id}


async def test_a_pool_that_was_there_before(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """A pool opened before install(): its queries are traced from then on, with their address."""
    async with asyncpg.create_pool(postgres.url, min_size=1, max_size=1) as pool:
        await pool.fetchval("SELECT 1")
        installed("asyncpg")
        await pool.fetchval("SELECT 2")
        await pool.fetchval("SELECT 3")
    assert resources(traces) == ["SELECT 2", "SELECT 3"]
    assert {one.tags.get("out.host") for one in queries(traces)} == {"127.0.0.1"}


async def test_the_wait_does_not_wait(single: Any, traces: Recorder) -> None:
    """A wait ends at the hand-over: what the caller does with the connection is not in it."""
    holder = asyncio.create_task(hold(single, 0.02))
    await busy(single)
    began = time.perf_counter()
    async with single.acquire():
        waited = time.perf_counter() - began
        await asyncio.sleep(0.05)
    await holder
    (wait,) = acquires(traces)
    assert wait.duration_ns / 1e9 <= waited + 0.005
