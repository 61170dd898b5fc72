"""Connections and pools belong to nobody: neither to the trace nor to the memory of who opened them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import uuid
import weakref
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctrace import current_span, span
from asynctrace._core.handover import handover
from asynctrace._core.provider import top_entry
from tests.queries.helpers import CONNECT, connected, queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from demos.services import Service

request_variable: contextvars.ContextVar[object] = contextvars.ContextVar("request")


class Request:
    """Something big that a request keeps in a ContextVar."""


async def notified(connection: Any, url: str) -> list[Any]:
    """What a listener sees that was registered within request 1, for a message sent within request 2."""
    told: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    messages: list[Any] = []

    def look(*_: Any) -> None:
        active = current_span()
        messages.append((None if active is None else active.name, request_variable.get("nobody")))
        if len(messages) == 2:
            told.set_result(messages)

    async def look_later(*_: Any) -> None:
        look()

    channel = f"asynctrace_{uuid.uuid4().hex}"
    with span("request 1"):
        request_variable.set("request 1")
        await connection.add_listener(channel, look)
        await connection.add_listener(channel, look_later)
    async with connected(url) as other:
        with span("request 2"):
            await other.execute(f"NOTIFY {channel}")
            result = await asyncio.wait_for(told, 5)
    await connection.remove_listener(channel, look)
    await connection.remove_listener(channel, look_later)
    return result


@pytest.mark.parametrize("before", [False, True], ids=["opened under install", "opened before"])
async def test_a_message_is_not_filed_under_who_listened(
    installed: Callable[..., None], postgres: Service, before: bool
) -> None:
    """LISTEN: callbacks see neither the span nor the variables of the request that opened the connection or listens."""
    if not before:
        installed("asyncpg")
    with span("opener"):
        token = request_variable.set("opener")
        opened = await asyncpg.connect(postgres.url)
        request_variable.reset(token)
    installed("asyncpg")
    try:
        assert await notified(opened, postgres.url) == [(None, "nobody")] * 2
    finally:
        await opened.close()


@pytest.mark.parametrize("before", [False, True], ids=["opened under install", "opened before"])
async def test_a_log_message_is_not_filed_either(
    installed: Callable[..., None], postgres: Service, before: bool
) -> None:
    """Log listeners run apart, too."""
    if not before:
        installed("asyncpg")
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def look(_: Any, message: Any) -> None:
        told.set_result((current_span(), message.message))

    with span("opener"):
        opened = await asyncpg.connect(postgres.url)
        installed("asyncpg")
        opened.add_log_listener(look)
        await opened.execute("DO $$ BEGIN RAISE WARNING 'kettle'; END $$")
        assert await asyncio.wait_for(told, 5) == (None, "kettle")
        opened.remove_log_listener(look)
        await opened.close()


async def kept_after(work: Any) -> list[object]:
    """What of a request is still alive when it is over: its own object, and the entry of its span."""
    alive: list[weakref.ref[Any]] = []

    async def request() -> None:
        request_variable.set(mine := Request())
        with span("request"):
            alive.extend([weakref.ref(mine), weakref.ref(top_entry.get())])
            await work()

    await asyncio.create_task(request())
    for _ in range(3):
        await asyncio.sleep(0)
    handover.finish()  # its trace has left
    gc.collect()
    return [one() for one in alive]


async def everything(pool: Any) -> None:
    """What a request may do with a pool."""
    await pool.fetch("SELECT 1")
    async with pool.acquire() as connection:
        statement = await connection.prepare("SELECT 2")
        await statement.fetch()
        async with connection.transaction():
            _ = [row async for row in connection.cursor("SELECT generate_series(1, 100)")]
        await connection.fetch("SELECT $1::int", 3)
        await connection.executemany("SELECT $1::int", [(1,)])


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
async def test_a_pool_opened_in_a_request_keeps_nothing_of_it(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """Neither the connections, nor the pool's timers, nor the statements they remember keep the request alive."""
    installed("asyncpg")
    opened: list[Any] = []

    async def work() -> None:
        pool = await asyncpg.create_pool(postgres.url, min_size=2, max_size=3)
        opened.append(pool)
        await asyncio.gather(*[everything(pool) for _ in range(4)])

    assert await kept_after(work) == [None, None]
    # nor any that came later
    assert await kept_after(lambda: everything(opened[0])) == [None, None]
    await opened[0].close()


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
@pytest.mark.parametrize("copy", [False, True])
async def test_a_connection_opened_in_a_request_keeps_nothing_of_it(
    installed: Callable[..., None], postgres: Service, copy: bool
) -> None:
    """A connection with a listener. COPY stops its reading, and who resumes it is not kept either."""
    installed("asyncpg")
    opened: list[Any] = []

    async def work() -> None:
        connection = await asyncpg.connect(postgres.url)
        opened.append(connection)
        await connection.add_listener("tea", print)
        if copy:
            await connection.copy_from_query("SELECT generate_series(1, 9999)", output=io.BytesIO())

    assert await kept_after(work) == [None, None]
    assert await opened[0].fetchval("SELECT 1") == 1
    await opened[0].close()


async def test_after_a_copy_messages_are_nobodys(connection: Any, postgres: Service) -> None:
    """Reading goes on in an empty context after COPY."""
    with span("copier"):
        request_variable.set("copier")
        await connection.copy_from_query("SELECT 1", output=io.BytesIO())
    assert await notified(connection, postgres.url) == [(None, "nobody")] * 2


async def test_a_background_query_stays_in_its_requests_trace(pool: Any, traces: Recorder) -> None:
    """A task that a request leaves behind asks in that request's trace, whoever uses the pool meanwhile."""

    async def later(gate: asyncio.Event) -> None:
        await gate.wait()
        await pool.fetchval("SELECT 'late'")

    gate = asyncio.Event()
    with span("request 1"):
        task = asyncio.create_task(later(gate))
    with span("request 2"):
        await pool.fetchval("SELECT 'other'")
        gate.set()
        await task
    late = next(one for one in queries(traces) if "late" in one.resource)
    assert late.parent_id == traces.one("request 1").span_id
    assert late.trace_id == traces.one("request 1").trace_id


async def test_the_pools_own_reconnecting_is_nobodys(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """asyncpg restores a pool's floor by itself: connecting is a trace of its own, not part of who broke the other."""
    if tuple(map(int, asyncpg.__version__.split(".")[:2])) < (0, 32):
        pytest.skip("pools have no floor before 0.32")
    installed("asyncpg")
    async with asyncpg.create_pool(postgres.url, min_size=1, max_size=1) as pool:
        traces.clear()
        with span("request"):
            async with pool.acquire() as connection:
                connection.terminate()
            await asyncio.sleep(0)
        await traces.wait_for(lambda seen: CONNECT in seen.names())
        while pool.get_size() == 0:
            await asyncio.sleep(0)
    assert traces.one(CONNECT).parent_id is None
