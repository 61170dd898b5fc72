"""Queries to a real PostgreSQL, through a pool, under each contender's own integration of asyncpg."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from demos.services import postgres
from tests.bench.rows import LOT, Row, below_root

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from demos.services import Service
    from tests.bench.kits import Kit
    from tests.bench.rows import Operations

POOL = 10
QUERY = "SELECT $1::int AS id, 'tea' AS name"


class FetchRow(Row):
    """fetchrow of a pool"""

    note = "one after the other; the others have a second span for the query with which the pool resets a connection"

    def everyone(self, kit: Kit) -> Operations:
        return queries(kit, self.asked)

    def ddtrace(self, kit: Kit) -> Operations:
        import ddtrace

        ddtrace.patch(asyncpg=True)
        return self.everyone(kit)

    def opentelemetry(self, kit: Kit) -> Operations:
        instrumented()
        return self.everyone(kit)

    async def asked(self, pool: Any) -> None:
        for number in range(LOT):
            await pool.fetchrow(QUERY, number)


class FetchRow10(FetchRow):
    """10 fetchrow at once"""

    note = f"ten at a time, over {POOL} connections; what one query costs, with its share of the gather"

    async def asked(self, pool: Any) -> None:
        for start in range(0, LOT, POOL):
            await asyncio.gather(*[pool.fetchrow(QUERY, start + number) for number in range(POOL)])


@functools.cache
def instrumented() -> None:
    """Once a process: it complains of a second time."""
    from opentelemetry.instrumentation.asyncpg import (  # type: ignore[import-not-found,unused-ignore]
        AsyncPGInstrumentor,
    )

    AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call,unused-ignore]


@functools.cache
def holes() -> list[bytes]:
    """A heap with room in it, as a program has that has run for a while and imported much.

    Without it the untraced contender, who has imported least, maps and unmaps memory for every query (30 us).
    """
    heap = [bytes(number % 400) for number in range(400_000)]
    del heap[::2]
    return heap


@functools.cache
def database() -> Service:
    """One for the process: where it is a private one, it goes with that."""
    return postgres()


def queries(kit: Kit, asked: Callable[[Any], Awaitable[None]]) -> Operations:
    """A pool that stays open, as in a program, and `LOT` queries below a root span each time."""
    pool: Any = None

    async def lot() -> None:
        nonlocal pool
        if pool is None:
            holes()
            import asyncpg  # not above: `--help` needs no environment

            pool = await asyncpg.create_pool(database().url, min_size=POOL, max_size=POOL)
        await asked(pool)

    return below_root(kit, lot)


ROWS = (FetchRow, FetchRow10)
