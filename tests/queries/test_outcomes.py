"""How a query ended: cancelled here, cancelled there, too late here, too late there, cut off."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asynctrace import span
from tests.queries.helpers import queries, wait_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import RecordedSpan, Recorder

SLEEP = "SELECT pg_sleep(30)"


def slept(traces: Recorder) -> RecordedSpan:
    (one,) = [one for one in queries(traces) if "pg_sleep" in one.resource]
    return one


async def test_a_cancelled_task_is_no_error(connection: Any, watcher: Any, traces: Recorder) -> None:
    """A task cancelled in its query ends the span as cancelled; the connection is fit for the next one."""
    asleep = asyncio.create_task(connection.execute(SLEEP))
    await wait_event(watcher, connection.get_server_pid())
    asleep.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await asleep
    assert await connection.fetchval("SELECT 1") == 1
    query = slept(traces)
    assert (query.error, query.outcome) == (0, "cancelled")
    assert query.tags["async.cancel.message"] == "enough"
    assert "db.response.status_code" not in query.tags


@pytest.mark.parametrize("method", ["execute", "fetch", "executemany"])
async def test_a_timeout_of_asyncpg_is_a_timeout(connection: Any, traces: Recorder, method: str) -> None:
    """`timeout=` that passes is an error of the kind timeout, and raises asyncpg's own TimeoutError."""
    arguments = ([()],) if method == "executemany" else ()
    with pytest.raises(asyncio.TimeoutError):
        await getattr(connection, method)(SLEEP, *arguments, timeout=0.05)
    query = slept(traces)
    assert (query.error, query.outcome) == (1, "timeout")
    assert await connection.fetchval("SELECT 1") == 1


async def test_a_deadline_further_out_is_a_cancellation(connection: Any, traces: Recorder) -> None:
    """`asyncio.wait_for` around a query cancels it: the deadline is not the query's own, and is named."""
    with pytest.raises(asyncio.TimeoutError), span("request"):
        await asyncio.wait_for(connection.execute(SLEEP), 0.05)
    query = slept(traces)
    assert (query.error, query.outcome) == (0, "cancelled")
    assert query.tags["async.cancel.source"] == "timeout"
    assert traces.one("request").outcome == "timeout"


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
async def test_a_timeout_of_the_server_is_a_timeout(
    connection: Any, watcher: Any, traces: Recorder, setting: str
) -> None:
    """A deadline that is the server's: an error of the kind timeout, with its SQLSTATE."""
    key = connection.get_server_pid()  # nobody else's
    await connection.execute(f"SET {setting} = '50ms'")
    await watcher.fetch("SELECT pg_advisory_lock($1)", key)
    with pytest.raises(asyncpg.PostgresError):
        await connection.fetch("SELECT pg_advisory_lock($1)", key)
    await watcher.fetch("SELECT pg_advisory_unlock($1)", key)
    query = queries(traces)[-1]
    assert (query.error, query.outcome) == (1, "timeout")
    assert (
        query.tags["db.response.status_code"]
        == {"statement_timeout": "57014", "lock_timeout": "55P03"}[setting]
    )
    assert query.tags["error.message"].startswith("canceling statement")


async def test_who_is_cancelled_on_the_server(connection: Any, watcher: Any, traces: Recorder) -> None:
    """`pg_cancel_backend`: cancelled, by the server; the exception that leaves the request is its error, as ever."""
    asleep = asyncio.create_task(connection.fetch(SLEEP))
    await wait_event(watcher, connection.get_server_pid())
    await watcher.fetch("SELECT pg_cancel_backend($1)", connection.get_server_pid())
    with pytest.raises(asyncpg.QueryCanceledError), span("request"):
        await asleep
    query = slept(traces)
    assert (query.error, query.outcome) == (0, "cancelled")
    assert query.tags["async.cancel.source"] == "server"
    assert query.tags["db.response.status_code"] == "57014"
    assert traces.one("request").error == 1


async def test_who_is_cut_off(connection: Any, watcher: Any, traces: Recorder) -> None:
    """`pg_terminate_backend`: an error, and so is what is asked of the connection afterwards."""
    asleep = asyncio.create_task(connection.fetch(SLEEP))
    await wait_event(watcher, connection.get_server_pid())
    await watcher.fetch("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError)):
        await asleep
    assert (slept(traces).error, slept(traces).outcome) == (1, "error")
    with pytest.raises(asyncpg.InterfaceError):
        await connection.fetch("SELECT 1")


async def test_a_server_that_speaks_another_language(
    connection: Any, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the message tells is an error where it can't be read."""
    from asynctrace.asyncpg.describe import outcome_on_server

    assert outcome_on_server("57014", "storniere Anfrage wegen Zeitüberschreitung der Anfrage") is None
    assert outcome_on_server("55P03", "could not obtain lock on row") is None
    assert outcome_on_server("25P03", "was auch immer") == "timeout"


async def test_the_exception_is_the_same_and_nobody_keeps_it(
    installed: Callable[..., None], connection: Any, traces: Recorder
) -> None:
    """What asyncpg raises arrives as it was; with it goes whatever it holds."""

    class Mine(Exception):
        pass

    def encode(_: object) -> str:
        raise raised

    await connection.set_type_codec("text", encoder=encode, decoder=str, schema="pg_catalog")
    raised = Mine("no")
    with pytest.raises(asyncpg.DataError) as caught:
        await connection.fetch("SELECT $1::text", "x")
    assert caught.value.__cause__ is raised
    assert queries(traces)[-1].error == 1
    seen, raised = weakref.ref(caught.value), Mine()
    del caught
    gc.collect()
    assert seen() is None
