"""asyncpg: a query and a batch through a pool."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg import connect_utils
from asyncpg.pool import PoolConnectionHolder
from asyncpg.protocol import Protocol
from ddtrace.trace import tracer

from asynctrace import span
from asynctrace.asyncpg.options import ACQUIRE_MS, settings
from tests.contract.subjects import Base
from tests.queries.helpers import quiet, wait_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from demos.services import Service


class Subject(Base):
    integration = component = "asyncpg"
    service = "postgres"
    spans = 2

    @contextlib.asynccontextmanager
    async def open(self, service: Service | None) -> AsyncIterator[None]:
        assert service is not None
        settings.acquire_ms = math.inf  # connecting and waiting have spans, too, but no fixed number of them
        on, tracer.enabled = tracer.enabled, False
        self.pool = await asyncpg.create_pool(service.url, min_size=4, max_size=4)
        self.watcher = quiet(await asyncpg.connect(service.url))
        tracer.enabled = on
        yield
        await self.watcher.close()
        await asyncio.wait_for(self.pool.close(), 5)
        settings.acquire_ms = ACQUIRE_MS

    async def operate(self, number: int) -> object:
        def made() -> Iterator[tuple[int]]:
            with span("made", tags={"request": number}):
                yield (number,)

        async with self.pool.acquire() as connection:
            row = await connection.fetchrow("SELECT $1::int AS number", number)
            await connection.executemany("SELECT $1::int", made())
        return type(connection), type(row), dict(row)

    async def fail(self, exc: Exception) -> None:
        async def source() -> AsyncIterator[bytes]:
            yield b"1\n"
            raise exc

        async with self.pool.acquire() as connection:
            await connection.execute("CREATE TEMP TABLE IF NOT EXISTS numbers (number int)")
            await connection.copy_to_table("numbers", source=source())

    async def hang(self, hanging: asyncio.Event) -> None:
        async def watch(pid: int) -> None:
            await wait_event(self.watcher, pid)
            hanging.set()

        async with self.pool.acquire() as connection:
            watching = asyncio.create_task(watch(connection.get_server_pid()))
            await connection.execute("SELECT pg_sleep(60)")
            await watching

    def doors(self) -> dict[str, Any]:
        doors: dict[Any, tuple[str, ...]] = {
            Protocol: ("bind_execute", "bind_execute_many", "query", "copy_in", "copy_out", "prepare"),
            asyncpg.Connection: ("prepare", "transaction"),
            asyncpg.Pool: ("_acquire",),
            PoolConnectionHolder: ("acquire", "release"),
            connect_utils: ("_connect_addr",),
        }
        return {
            f"{owner.__name__}.{name}": inspect.getattr_static(owner, name)
            for owner, names in doors.items()
            for name in names
        }
