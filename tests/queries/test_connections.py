"""Connections stay what they are; opening one is a span."""

from __future__ import annotations

import asyncio
import json
import tempfile
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctrace import span
from tests.queries.helpers import CONNECT, QUERY, connected, queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from demos.services import Service


class MyConnection(asyncpg.Connection):  # type: ignore[misc]
    """A user's own."""

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        return list(reversed(await super().fetch(*args, **kwargs)))


class MyRecord(asyncpg.Record):  # type: ignore[misc]
    """With attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


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
