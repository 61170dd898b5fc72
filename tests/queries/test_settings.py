"""Settings of ddtrace's and of ours, each in a process of its own: they are read once."""

from __future__ import annotations

import ast
import re
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import asynctrace.asyncpg as room
from asynctrace.asyncpg.options import settings
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from demos.services import Service
    from tests.sink import Sink

PROGRAM = """
import asyncio, sys
import ddtrace
if {theirs!r} == "before": ddtrace.patch(asyncpg=True)
import asyncpg
from asynctrace import install, span
from asynctrace.testing import Recorder
install()
if {theirs!r} == "after": ddtrace.patch(asyncpg=True)
async def main():
    connection = await asyncpg.connect({url!r})
    with Recorder() as traces, span("request"):
        await ask(connection)
    await connection.close()
    print([(one.name, one.service, one.resource, one.tags) for one in traces.spans if one.name != "request"])
async def ask(connection):
{ask}
asyncio.run(main())
"""

ASK = "await connection.execute('SELECT 1')"


@pytest.fixture
def asked(postgres: Service, sink: Sink) -> Callable[..., list[Any]]:
    """(name, service, resource, tags) of what a program's `ask` leaves, under these settings."""

    def ask(ask: str = ASK, *, theirs: str = "", **settings: str) -> list[Any]:
        code = textwrap.indent(textwrap.dedent(ask).strip(), "    ")
        program = PROGRAM.format(url=postgres.url, ask=code, theirs=theirs)
        seen = run(program, DD_TRACE_AGENT_URL=sink.url, **settings).splitlines()[-1]
        found: list[Any] = ast.literal_eval(seen)
        return found

    return ask


@pytest.mark.parametrize("order", ["before", "after"])
def test_one_span_beside_ddtraces_own_integration(asked: Callable[..., list[Any]], order: str) -> None:
    """With ddtrace's own asyncpg integration on, before or after install(): one span, not two."""
    assert [one[0] for one in asked(theirs=order)] == ["postgres.query"]


def test_under_ddtraces_integration_a_pool_is_still_waited_for(asked: Callable[..., list[Any]]) -> None:
    """What ddtrace has no span for, we have: the wait."""
    ask = """
        (host, port), params = connection._addr, connection._params
        where = dict(host=host, port=port, user=params.user, database=params.database)
        async with asyncpg.create_pool(**where, min_size=1, max_size=1) as pool:
            async with pool.acquire():
                waiting = asyncio.create_task(pool.fetchval("SELECT 1"))
                await asyncio.sleep(0.01)
            await waiting
    """
    assert [one[0] for one in asked(ask, theirs="before")].count("asyncpg.pool.acquire") == 1


def test_switched_off(asked: Callable[..., list[Any]]) -> None:
    """`DD_TRACE_ASYNCPG_ENABLED=false` leaves asyncpg out of install(), unless it is asked for by name."""
    ask = """
        await connection.execute("SELECT 1")
        install("asyncpg")
        await connection.execute("SELECT 2")
    """
    assert [one[2] for one in asked(ask, DD_TRACE_ASYNCPG_ENABLED="false")] == ["SELECT 2"]


@pytest.mark.slow
def test_tracing_off(asked: Callable[..., list[Any]]) -> None:
    """`DD_TRACE_ENABLED=false`: asyncpg's own methods, no span."""
    ask = """
        from asyncpg.protocol import Protocol
        assert "query" not in vars(Protocol)
        await connection.execute("SELECT 1")
    """
    assert asked(ask, DD_TRACE_ENABLED="false") == []


NAMES = {
    "": ("postgres.query", "postgres", "asyncpg"),
    "DD_ASYNCPG_SERVICE=tea": ("postgres.query", "tea", "m"),
    "DD_SERVICE_MAPPING=postgres:mapped": ("postgres.query", "mapped", "opt.service_mapping"),
    "DD_TRACE_SPAN_ATTRIBUTE_SCHEMA=v1": ("postgresql.query", "shop", "asyncpg"),
    "DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED=true": ("postgres.query", "shop", "asyncpg"),
}


@pytest.mark.parametrize(
    "theirs", [pytest.param("", id="ours"), pytest.param("before", id="ddtrace's", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "setting",
    [pytest.param(one, marks=[pytest.mark.slow] if not one or "REMOVE" in one else []) for one in NAMES],
)
def test_names_are_ddtraces(asked: Callable[..., list[Any]], setting: str, theirs: str) -> None:
    """Operation, service and who named it are those of ddtrace's own integration, whatever is set."""
    environment = dict([setting.split("=")]) if setting else {}
    ((name, service, _, tags),) = asked(theirs=theirs, DD_SERVICE="shop", **environment)
    assert (name, service, tags.get("_dd.svc_src")) == NAMES[setting]


def test_our_own(asked: Callable[..., list[Any]]) -> None:
    """`ASYNCTRACE_ASYNCPG_TRANSACTIONS` and `..._ARGUMENTS`: both are off, and can be asked for."""
    ask = """
        async with connection.transaction():
            await connection.fetch("SELECT $1::int, $2::text", 7, "x" * 1000)
    """
    plain = asked(ask)
    assert [one[0] for one in plain] == ["postgres.query"] * 3
    assert not any(key.startswith("db.query.parameter") for one in plain for key in one[3])
    asked_for = asked(
        ask,
        ASYNCTRACE_ASYNCPG_TRANSACTIONS="true",
        ASYNCTRACE_ASYNCPG_ARGUMENTS="1",
    )
    assert [one[0] for one in asked_for] == ["postgres.transaction"] + ["postgres.query"] * 3
    arguments = {key: value for key, value in asked_for[2][3].items() if key.startswith("db.query.parameter")}
    assert arguments["db.query.parameter.0"] == "7"
    assert len(arguments["db.query.parameter.1"]) <= 102
    assert arguments["db.query.parameter.1"].startswith("'xxx")


@pytest.mark.parametrize(("text", "expected"), [("", 1), ("0", 0), ("2.5", 2.5), ("-3", 0), ("soon", 1)])
def test_the_threshold(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch, text: str, expected: float
) -> None:
    """A number of ms; what is none is the default, with a warning; what is given to install() comes first."""
    monkeypatch.setenv("ASYNCTRACE_ASYNCPG_ACQUIRE_MS", text)
    installed("asyncpg")
    assert settings.acquire_ms == expected
    room.install(acquire_ms=9)
    assert settings.acquire_ms == 9
    room.install(transactions=True)
    assert (settings.acquire_ms, settings.transactions) == (9, True)


class Rude:
    """An argument that can't be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


async def test_arguments_are_cut_and_typed(connection: Any, traces: Recorder) -> None:
    """As Python writes them, so that text is told from numbers; none is longer than 100 characters; no batch is."""
    room.install(arguments=True)
    await connection.set_type_codec("text", encoder=str, decoder=str, schema="pg_catalog")
    await connection.set_type_codec(
        "bytea", encoder=lambda _: "", decoder=str, schema="pg_catalog", format="text"
    )
    sql = "SELECT $1::int, $2::text, $3::float8, $4::bool, $5::text, $6::int[], $7::bytea"
    await connection.fetch(sql, 7, "7", 1.5, True, None, list(range(1000)), b"b" * 9999)
    shown = traces.spans[-1].tags
    values = [shown[f"db.query.parameter.{number}"] for number in range(7)]
    assert values[:5] == ["7", "'7'", "1.5", "True", "None"]
    assert values[5] == "[0, 1, 2, 3, 4, 5, ...]"
    assert values[6].startswith("b'bbb")
    assert max(map(len, values)) <= 102
    await connection.executemany("SELECT $1::int", [(1,), (2,)])
    assert not any(key.startswith("db.query.parameter") for key in traces.spans[-1].tags)


def test_arguments_that_can_not_be_shown() -> None:
    """Whatever their repr does, a query is not harmed by it; and not more of them are shown than can be read."""
    from asynctrace.asyncpg.describe import MAX_ARGUMENTS, describe_arguments

    assert "Rude" in describe_arguments((Rude(),))["db.query.parameter.0"]
    assert len(describe_arguments(tuple(range(999)))) == MAX_ARGUMENTS


# -- Database Monitoring


SEEN = """
    from asyncpg.protocol import Protocol
    asked = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    await connection.execute("CREATE TEMP TABLE seen AS " + asked)
    for number in range(3):
        await connection.execute("INSERT INTO seen " + asked)
        await connection.fetch("INSERT INTO seen " + asked + " AND $1 >= 0", number)
    statement = await connection.prepare("INSERT INTO seen " + asked)
    await statement.fetch()
    assert statement.get_query() == "INSERT INTO seen " + asked
    prepared = await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%seen%'")
    print(prepared, [row["query"] for row in await connection.fetch("SELECT query FROM seen")], sep="|")
"""


@pytest.fixture
def commented(asked: Callable[..., list[Any]], postgres: Service, sink: Sink) -> Callable[[str], Any]:
    """(how many statements were prepared, all queries as the server saw them, all spans)."""

    def ask(mode: str) -> Any:
        program = PROGRAM.format(url=postgres.url, ask=SEEN, theirs="")
        settings = {"DD_SERVICE": "shop", "DD_ENV": "test", "DD_VERSION": "1"}
        *_, said, spans = run(
            program, DD_TRACE_AGENT_URL=sink.url, DD_DBM_PROPAGATION_MODE=mode, **settings
        ).splitlines()
        prepared, _, seen = said.partition("|")
        return int(prepared), ast.literal_eval(seen), ast.literal_eval(spans)

    return ask


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("disabled", marks=pytest.mark.slow),
        pytest.param("service", marks=pytest.mark.slow),
        "full",
    ],
)
def test_database_monitoring(commented: Callable[[str], Any], mode: str) -> None:
    """A query's comment names the service, in full mode the trace, too; the resource has none. As ddtrace's own.

    What is prepared goes without: with a comment that is new each time it would be prepared anew each time.
    """
    prepared, seen, spans = commented(mode)
    simple = [one for one in seen if "$1" not in one and "CREATE" not in one][:3]
    assert prepared == 3  # what fetch asks, what was prepared by hand, and what counts them
    assert not [one for one in seen if "$1" in one and "/*" in one]
    assert not [one for one in spans if "/*" in one[2]]
    injected = [one[3].get("_dd.dbm_trace_injected") for one in spans if one[2].startswith("CREATE")]
    assert injected == (["true"] if mode == "full" else [None])
    if mode == "disabled":
        assert not [one for one in seen if "/*" in one]
        return
    comments = [re.match(r"/\*(.*)\*/ INSERT", one) for one in simple]
    assert all(comments)
    fields = [dict(pair.split("=") for pair in one[1].split(",")) for one in comments if one]
    assert {one["dddbs"] for one in fields} == {"'postgres'"}
    assert {one["ddps"] for one in fields} == {"'shop'"}
    assert {one["ddh"] for one in fields} == {"'127.0.0.1'"}
    assert len({one.get("traceparent") for one in fields}) == (3 if mode == "full" else 1)


# -- who reads the SQL


def test_over_otlp_sql_goes_without_its_literals(postgres: Service, sink: Sink) -> None:
    """There is no Datadog agent on that route: literals are gone before export, also those of ddtrace's own spans."""
    program = f"""
        import asyncio
        import asyncpg
        from ddtrace.trace import tracer
        from asynctrace import install, shutdown, span
        install()
        async def main():
            connection = await asyncpg.connect({postgres.url!r})
            with span("request"):
                await connection.execute("SELECT 'my secret', 4711 -- my secret")
                with tracer.trace("sqlite.query", resource="SELECT 'my secret'", span_type="sql"):
                    pass
                with span("SELECT 'not SQL'"):
                    pass
            await connection.close()
            await shutdown()
        asyncio.run(main())
    """
    run(
        program,
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{sink.url}/v1/traces",
        DD_TRACE_AGENT_URL=sink.url,
    )

    def sent() -> bytes:
        return b"".join(body for _, path, body in sink.requests if "v1/traces" in path)

    assert sink.wait_until(lambda: b"sqlite.query" in sent())
    assert b"SELECT ?" in sent()
    assert b"SELECT 'not SQL'" in sent()
    assert b"my secret" not in sent()
    assert b"4711" not in sent()


def test_to_an_agent_sql_goes_as_it_is(asked: Callable[..., list[Any]]) -> None:
    """Datadog's agent takes the literals out: no lexer is loaded in the program."""
    ask = """
        import sys
        await connection.execute("SELECT 'my secret'")
        assert "sqlglot" not in sys.modules
    """
    assert [one[2] for one in asked(ask)] == ["SELECT 'my secret'"]


def test_the_example_of_the_package(postgres: Service, sink: Sink) -> None:
    """What the package's docstring shows is what happens."""
    assert room.__doc__
    example = textwrap.dedent(re.findall(r"(?:^    .+\n(?:\n(?=    ))?)+", room.__doc__, re.MULTILINE)[0])
    body = textwrap.indent(example.strip(), "            ").replace(
        "items WHERE id = $1", "(SELECT 4 AS price, $1::int) AS i"
    )
    program = f"""
        import asyncio
        import asyncpg
        from asynctrace.testing import Recorder
        async def main(dsn):
            recorder = Recorder().start()
{body}
            recorder.stop()
            await pool.close()
            print(recorder.spans[-1].name, recorder.spans[-1].resource[:12])
        asyncio.run(main({postgres.url!r}))
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url) == "postgres.query SELECT price"
