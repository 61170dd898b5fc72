"""Connections stay what they are, and belong to nobody: neither to the trace nor the memory of who opened them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import json
import tempfile
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctrace import current_span, span
from asynctrace._core.provider import top_entry
from tests.integrations.asyncpg.helpers import CONNECT, QUERY, connected, queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from demos.services import Service

request_variable: contextvars.ContextVar[object] = contextvars.ContextVar("request")


class Request:
    """Something big that a request keeps in a ContextVar."""


class MyConnection(asyncpg.Connection):  # type: ignore[misc]
    """A user's own."""

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        return list(reversed(await super().fetch(*args, **kwargs)))


class MyRecord(asyncpg.Record):  # type: ignore[misc]
    """With attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


# -- what they are


async def test_connections_are_genuine(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """`connection_class`, `connect=`, `init`, `setup`, `record_class`, codecs: all work as ever, and are traced."""
    installed("asyncpg")
    seen: list[Any] = []

    async def connect(*args: Any, **kwargs: Any) -> Any:
        seen.append("connect")
        return await asyncpg.connect(*args, **kwargs)

    async def init(connection: Any) -> None:
        seen.append(type(connection))
        await connection.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    async def setup(connection: Any) -> None:
        seen.append(type(connection).__name__)

    async with (
        asyncpg.create_pool(
            postgres.url,
            min_size=1,
            max_size=1,
            connection_class=MyConnection,
            record_class=MyRecord,
            connect=connect,
            init=init,
            setup=setup,
        ) as pool,
        pool.acquire() as connection,
    ):
        assert isinstance(connection, asyncpg.Connection)
        found = await connection.fetch("SELECT * FROM generate_series(1, 3) AS id")
        assert [row.id for row in found] == [3, 2, 1]
        assert await connection.fetchval("SELECT $1::json", {"a": [1]}) == {"a": [1]}
    assert seen == ["connect", MyConnection, "PoolConnectionProxy"]
    assert len(queries(traces)) == 2


async def test_a_connection_is_asyncpgs_own(connection: Any) -> None:
    """No proxy: type, attributes and slots are those of asyncpg."""
    assert type(connection) is asyncpg.Connection
    assert type(connection._protocol) is asyncpg.protocol.Protocol
    assert not hasattr(connection, "__wrapped__")


async def test_connecting_is_a_span(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """It has the address, and what it asks on its way (the password, by the user's function) is below it."""
    installed("asyncpg")

    async def password() -> str:
        with span("token"):
            await asyncio.sleep(0)
        return "none is needed"

    with span("request"):
        async with connected(postgres.url, password=password, target_session_attrs="any"):
            pass
    traces.assert_tree("""
        request
          postgres.connect
            token
    """)
    connect = traces.one(CONNECT)
    expected = {"db.name": "postgres", "db.user": "postgres", "out.host": "127.0.0.1", "span.kind": "client"}
    assert {key: connect.tags[key] for key in expected} == expected
    assert (connect.service, connect.type, connect.resource) == ("postgres", "sql", CONNECT)


FAILURES: dict[str, tuple[dict[str, Any], type[Exception], str | None]] = {
    "db.name": ({"database": "no_such_database"}, asyncpg.InvalidCatalogNameError, "3D000"),
    "db.user": ({"user": "no_such_user"}, asyncpg.InvalidAuthorizationSpecificationError, "28000"),
    "network.destination.port": ({"port": 9}, OSError, None),
}


@pytest.mark.parametrize("tag", FAILURES)
async def test_connecting_that_fails(
    installed: Callable[..., None], postgres: Service, traces: Recorder, tag: str
) -> None:
    """An error, with where it wanted to, and its SQLSTATE."""
    options, error, state = FAILURES[tag]
    installed("asyncpg")
    with pytest.raises(error):
        await asyncpg.connect(postgres.url, **options)
    connect = traces.one(CONNECT)
    assert (connect.error, connect.tags.get("db.response.status_code")) == (1, state)
    assert [connect.tags[tag]] == list(options.values())


async def test_several_hosts_are_an_attempt_each(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """A DSN with two hosts, the first of which is dead: a span for each, the first an error."""
    installed("asyncpg")
    port = int(postgres.url.rpartition(":")[2].partition("/")[0])
    async with connected(
        None, host=["127.0.0.1", "127.0.0.1"], port=[9, port], user="postgres", database="postgres"
    ):
        pass
    attempts = [(one.tags["network.destination.port"], one.error) for one in traces.spans]
    assert attempts == [(9, 1), (port, 0)]


class Old(asyncpg.Connection):  # type: ignore[misc]
    """To a server before 14, which does not say of itself whether it is a standby."""

    def get_settings(self) -> Any:
        return SimpleNamespace()


async def test_what_connecting_asks_is_no_query(
    installed: Callable[..., None], postgres: Service, traces: Recorder
) -> None:
    """`target_session_attrs`: asyncpg may have to ask the server what it is, on its own account."""
    installed("asyncpg")
    async with connected(postgres.url, target_session_attrs="primary", connection_class=Old):
        pass
    assert [one.name for one in traces.spans] == [CONNECT]


async def test_a_unix_socket(installed: Callable[..., None], postgres: Service, traces: Recorder) -> None:
    """The folder of a unix socket is the host, the number in its name the port, as libpq has it."""
    installed("asyncpg")
    port = int(postgres.url.rpartition(":")[2].partition("/")[0])

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, ours), pump(theirs, writer))

    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.start_unix_server(relay, f"{folder}/.s.PGSQL.7777")
        async with (
            server,
            connected(None, host=folder, port=7777, user="postgres", database="postgres") as one,
        ):
            assert await one.fetchval("SELECT 1") == 1
            server.close()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        for name in (CONNECT, QUERY):
            tags = traces.one(name).tags
            where = ("out.host", "server.address", "network.destination.port", "db.name", "db.user")
            assert [tags[key] for key in where] == [folder, folder, 7777, "postgres", "postgres"]


async def test_addresses_we_do_not_know(connection: Any, traces: Recorder) -> None:
    """Whatever an address is, a query is traced."""
    from asynctrace.asyncpg.session import remember

    for address in (None, 7, ("::1", 5432, 0, 0)):
        connection._addr, before = address, connection._addr
        remember(connection._protocol, connection)
        connection._addr = before
        assert await connection.fetchval("SELECT 1") == 1
    assert len(queries(traces)) == 3


# -- whose they are


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

    with span("request 1"):
        request_variable.set("request 1")
        await connection.add_listener("tea", look)
        await connection.add_listener("tea", look_later)
    async with connected(url) as other:
        with span("request 2"):
            await other.execute("NOTIFY tea")
            result = await asyncio.wait_for(told, 5)
    await connection.remove_listener("tea", look)
    await connection.remove_listener("tea", look_later)
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


async def test_cancelled_in_the_moment_of_connecting(
    installed: Callable[..., None], postgres: Service
) -> None:
    """However soon or late it is cancelled: the exception is the caller's, and no connection is left open."""
    installed("asyncpg")
    opened: list[weakref.ref[Any]] = []

    class Watched(asyncpg.Connection):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            opened.append(weakref.ref(self))

    for turns in range(40):
        connecting = asyncio.create_task(asyncpg.connect(postgres.url, connection_class=Watched))
        for _ in range(turns):
            await asyncio.sleep(0.0002 if turns > 20 else 0)
        connecting.cancel()
        try:
            await (await connecting).close()
        except asyncio.CancelledError:
            pass
        assert all(one() is None or one().is_closed() for one in opened)  # type: ignore[union-attr]


async def test_the_moment_itself(
    installed: Callable[..., None], postgres: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled when the connection is open and its caller has not been told yet: it is closed."""
    opened: list[Any] = []
    connect_addr = vars(asyncpg.connect_utils)["__connect_addr"]
    cancel: list[asyncio.Task[Any]] = []

    async def opens(*args: Any, **kwargs: Any) -> Any:
        opened.append(await connect_addr(*args, **kwargs))
        asyncio.get_running_loop().call_soon(cancel[0].cancel)
        return opened[-1]

    monkeypatch.setattr(asyncpg.connect_utils, "__connect_addr", opens)
    installed("asyncpg")
    cancel.append(asyncio.create_task(asyncpg.connect(postgres.url)))
    with pytest.raises(asyncio.CancelledError):
        await cancel[0]
    assert opened[0].is_closed()
