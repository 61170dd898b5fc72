"""The laws that hold for every integration, for all that asyncpg can do.

Right parent under interleaving; same result, or same exception; a cancellation closes the span and is no error;
installing twice is installing once; off means the library's own objects.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import itertools
import random
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from asyncpg import connect_utils
from asyncpg.pool import PoolConnectionHolder
from asyncpg.protocol import Protocol
from ddtrace.trace import tracer

import asynctrace.asyncpg as room
from asynctrace import SpanContext, span, uninstall
from tests.queries.helpers import ACQUIRE, QUERY, connected, queries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asynctrace.testing import Recorder
    from demos.services import Service

    Operation = Callable[[Any], Awaitable[Any]]


async def cursor(connection: Any) -> list[Any]:
    async with connection.transaction():
        return [row async for row in connection.cursor("SELECT generate_series(1, 5)", prefetch=2)]


async def prepared(connection: Any) -> Any:
    return await (await connection.prepare("SELECT $1::int")).fetch(1)


async def copied(connection: Any) -> tuple[str, bytes]:
    out = io.BytesIO()
    return await connection.copy_from_query("SELECT $1::int", 7, output=out), out.getvalue()


async def rolled_back(connection: Any) -> None:
    async with connection.transaction():
        raise LookupError("mine")


OPERATIONS: dict[str, Operation] = {
    "fetch": lambda one: one.fetch("SELECT generate_series(1, 3)"),
    "fetchrow": lambda one: one.fetchrow("SELECT $1::int AS a, $2::text AS b", 1, "x"),
    "fetchval": lambda one: one.fetchval("SELECT $1::int", 1),
    "fetchmany": lambda one: one.fetchmany("SELECT $1::int", [(1,), (2,)]),
    "execute": lambda one: one.execute("SELECT 1; SELECT 2"),
    "execute with arguments": lambda one: one.execute("SELECT $1::int", 1),
    "executemany": lambda one: one.executemany("SELECT $1::int", iter([(1,), (2,)])),
    "cursor": cursor,
    "prepared": prepared,
    "copy": copied,
}

FAILURES: dict[str, Operation] = {
    "syntax": lambda one: one.fetch("SELEKT"),
    "while it runs": lambda one: one.fetch("SELECT 1 / $1::int", 0),
    "simple": lambda one: one.execute("SELECT 1 / 0"),
    "wrong arguments": lambda one: one.fetch("SELECT $1::int", "x"),
    "too many arguments": lambda one: one.fetch("SELECT 1", 1),
    "wrong batch": lambda one: one.executemany("SELECT $1::int", [(1,), ("x",)]),
    "no batch": lambda one: one.executemany("SELECT $1::int", None),
    "batch of nothing": lambda one: one.executemany("SELECT $1::int", iter([None])),
    "no time": lambda one: one.fetch("SELECT 1", timeout=-1),
    "no time for it": lambda one: one.execute("SELECT pg_sleep(9)", timeout=0.02),
    "nonsense for a time": lambda one: one.execute("SELECT 1", timeout="soon"),
    "outside a transaction": lambda one: one.cursor("SELECT 1"),
    "copy with wrong arguments": lambda one: one.copy_from_query("SELECT $1::int", "x", output=io.BytesIO()),
    "copy of nothing": lambda one: one.copy_from_table("no_such_table", output=io.BytesIO()),
    "rolled back": rolled_back,
}


NEVER_ASKED = {"no time", "nonsense for a time", "outside a transaction", "rolled back"}
"""Nothing that failed there reached the server."""


async def outcome(operation: Operation, connection: Any) -> Any:
    try:
        return await operation(connection)
    except Exception as exc:
        return type(exc), str(exc), getattr(exc, "sqlstate", None)


@pytest.mark.parametrize("kind", [*OPERATIONS, *FAILURES])
async def test_same_result_or_same_exception(
    installed: Callable[..., None], postgres: Service, traces: Recorder, kind: str
) -> None:
    """What an operation returns or raises is the same with and without us; so is the connection's state after it."""
    operation = {**OPERATIONS, **FAILURES}[kind]
    seen = []
    for traced in (False, True):
        if traced:
            installed("asyncpg")
        async with connected(postgres.url) as connection:
            result = await outcome(operation, connection)
            seen.append((result, connection.is_in_transaction(), await connection.fetchval("SELECT 1")))
    assert seen[0] == seen[1]
    traces.assert_finished()
    if kind in FAILURES and kind not in NEVER_ASKED:
        assert [one.error for one in queries(traces)].count(1) == 1


async def test_the_callers_own_exception(connection: Any) -> None:
    """An exception of the caller's own code, in a COPY or a batch, is the same object outside."""
    mine = LookupError("mine")

    async def source() -> Any:
        yield b"1\ttea\n"
        raise mine

    def batch() -> Any:
        yield 1, "tea"
        raise mine

    for operation in (
        connection.copy_to_table("tea", source=source()),
        connection.executemany("INSERT INTO tea VALUES ($1, $2)", batch()),
    ):
        with pytest.raises(LookupError) as caught:
            await operation
        assert caught.value is mine
        assert await connection.fetchval("SELECT count(*) FROM tea") == 0


async def test_right_parent_under_interleaving(pool: Any, traces: Recorder) -> None:
    """50 operations of all kinds at once over three connections: every span is in its own caller's trace."""
    kinds = list(OPERATIONS) * 5
    random.Random(7).shuffle(kinds)

    async def caller(number: int, kind: str) -> None:
        with span(f"caller {number}", tags={"kind": kind}):
            for _ in range(number % 3):
                await asyncio.sleep(0)
            async with pool.acquire() as connection:
                await OPERATIONS[kind](connection)
            with span(f"after {number}"):
                pass

    await asyncio.gather(*[caller(number, kind) for number, kind in enumerate(kinds)])
    roots = {one.trace_id: one for one in traces.spans if one.name.startswith("caller")}
    assert len(roots) == 50
    for one in traces.spans:
        if one.name != roots[one.trace_id].name:
            assert one.parent_id == roots[one.trace_id].span_id
    assert len([one for one in traces.spans if one.name == ACQUIRE]) == 47
    per_caller = {root.name: 0 for root in roots.values()}
    for one in queries(traces):
        per_caller[roots[one.trace_id].name] += 1
    assert min(per_caller.values()) >= 1


async def test_a_cancellation_at_any_moment(pool: Any, traces: Recorder) -> None:
    """Cancelled after any number of the loop's turns: spans are closed, none is an error, the pool works.

    Without COPY: asyncpg 0.32 itself may wait for ever after one that was cancelled in a certain moment.
    """

    async def work(operation: Operation) -> None:
        with span("request"):
            async with pool.acquire() as connection:
                await operation(connection)

    for kind, turns in itertools.product(
        sorted(OPERATIONS.keys() - {"copy"}), (0, 1, 2, 3, 5, 8, 13, 21, 34, 55)
    ):
        task = asyncio.create_task(work(OPERATIONS[kind]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.gather(*[pool.fetchval(f"SELECT {one}") for one in range(3)]) == [0, 1, 2]
        traces.assert_finished()
    assert not [one for one in traces.spans if one.error]
    assert [one.outcome for one in queries(traces)].count("cancelled") > 5
    while pool.get_idle_size() < pool.get_size():
        await asyncio.sleep(0)


async def test_a_copy_that_is_cancelled(connection: Any, traces: Recorder) -> None:
    """Cancelled in the user's sink: its span and that of the COPY are cancelled, and no error."""
    reached = asyncio.Event()

    async def sink(_: bytes) -> None:
        with span("sink"):
            reached.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(connection.copy_from_query("SELECT 1", output=sink))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(one.name, one.outcome) for one in traces.spans] == [(QUERY, "cancelled"), ("sink", "cancelled")]
    connection.terminate()


def state() -> list[Any]:
    """What is patched, as it is."""
    owners = (
        Protocol, asyncpg.Connection, asyncpg.Pool, PoolConnectionHolder, connect_utils, asyncpg.utils,
        asyncpg.connection._StatementCache,
    )  # fmt: skip
    return [dict(vars(owner)) for owner in owners]


async def test_installing_twice_is_once(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """install() again changes nothing; uninstall() leaves asyncpg as it was, also for connections that are open."""
    before = state()
    installed("asyncpg")
    once = state()
    installed("asyncpg")
    room.install()
    assert state() == once != before
    async with connected(postgres.url) as connection:
        await connection.fetchval("SELECT 1")
        uninstall()
        assert state() == before
        await connection.fetchval("SELECT 2")
    assert [one.resource for one in queries(traces)] == ["SELECT 1"]


async def test_somebody_who_patched_over_ours(
    installed: Callable[..., None], postgres: Service, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch over ours keeps ours in place: silent after uninstall(), and not doubled by the next install()."""
    installed("asyncpg")
    ours, calls = Protocol.query, []

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return ours(self, *args, **kwargs)

    monkeypatch.setattr(Protocol, "query", theirs)
    uninstall()
    async with connected(postgres.url) as connection:
        await connection.execute("SELECT 1")
        assert calls
        monkeypatch.undo()
        await connection.execute("SELECT 2")
        assert Protocol.query is ours
        installed("asyncpg")
        await connection.execute("SELECT 3")
    del Protocol.query
    assert [one.resource for one in queries(traces)] == ["SELECT 3"]


async def test_tracing_off_while_it_runs(connection: Any, pool: Any, traces: Recorder) -> None:
    """A tracer that is switched off is silent, and everything works; switched on, it goes on."""
    enabled = tracer.enabled
    tracer.enabled = False
    try:
        for operation in OPERATIONS.values():
            await operation(connection)
            async with pool.acquire() as one:
                await operation(one)
    finally:
        tracer.enabled = enabled
    assert traces.spans == []
    await connection.fetchval("SELECT 1")
    await pool.fetchval("SELECT 2")
    assert [one.resource for one in queries(traces)] == ["SELECT 1", "SELECT 2"]


async def test_the_signatures_stay(installed: Callable[..., None]) -> None:
    """Patched methods look like those they stand for."""
    public = ("prepare", "transaction")
    before = {name: inspect.signature(getattr(asyncpg.Connection, name)) for name in public}
    installed("asyncpg")
    assert {name: inspect.signature(getattr(asyncpg.Connection, name)) for name in public} == before
    assert asyncpg.Connection.prepare.__doc__


async def test_what_is_active_stays_active(connection: Any, pool: Any) -> None:
    """After any operation, ended well or not, what was active before is active again."""
    with span("request"):
        here = SpanContext.current()
        for operation in (*OPERATIONS.values(), *FAILURES.values()):
            await outcome(operation, connection)
            assert SpanContext.current() == here
            async with pool.acquire() as one:
                await outcome(operation, one)
            assert SpanContext.current() == here
