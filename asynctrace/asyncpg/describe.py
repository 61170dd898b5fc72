"""What spans of asyncpg say: names, resources, tags. Pure functions of asyncpg's objects."""

from __future__ import annotations

import re
from reprlib import Repr
from typing import TYPE_CHECKING, Any

from asynctrace._core.naming import operation
from asynctrace._core.outcome import CANCELLED, TIMEOUT
from asynctrace._core.values import MEASURED, text

if TYPE_CHECKING:
    from collections.abc import Mapping

QUERY = operation("postgres.query", "postgresql.query")
PREPARE = operation("postgres.prepare", "postgresql.prepare")
TRANSACTION = operation("postgres.transaction", "postgresql.transaction")
CONNECT = "postgres.connect"
ACQUIRE = "asyncpg.pool.acquire"

ROWS = "db.row_count"
SQLSTATE = "db.response.status_code"
BATCH = "db.operation.batch.size"
ARGUMENT = "db.query.parameter."
WAIT = "db.pool.wait_ms"

LIBRARY_TAGS = {"component": "asyncpg", "db.system": "postgresql"}
CLIENT_TAGS: dict[str, Any] = {**LIBRARY_TAGS, "span.kind": "client"}
QUERY_TAGS: dict[str, Any] = {**CLIENT_TAGS, MEASURED: 1}


def describe_server(address: Any, params: Any) -> dict[str, Any]:
    """Where queries go: of a connection's `_addr` and `_params`.

    A unix socket is told as libpq writes it: its folder is the host, and the port is the end of its name.
    """
    host, port = address if isinstance(address, tuple) else socket_of(str(address))
    tags = {
        "db.name": params.database,
        "db.user": params.user,
        "out.host": host,
        "server.address": host,
        "network.destination.port": port,
    }
    return {key: value for key, value in tags.items() if value is not None}


def socket_of(path: str) -> tuple[str, int | None]:
    """Host and port of a unix socket.

    Example:
        >>> socket_of("/var/run/postgresql/.s.PGSQL.5432")
        ('/var/run/postgresql', 5432)
    """
    folder, _, name = path.rpartition("/")
    number = name.removeprefix(".s.PGSQL.")
    return (folder, int(number)) if number.isdecimal() else (path, None)


_COUNTED = re.compile(r"(__asyncpg_[a-z]+_)[0-9a-f]+__")


def resource_of(query: Any) -> str:
    """The SQL, as ddtrace has it. Names that asyncpg counts (of savepoints, cursors) go without their number.

    Each would be a resource of its own.

    Example:
        >>> resource_of("SAVEPOINT __asyncpg_savepoint_1f__;")
        'SAVEPOINT __asyncpg_savepoint_n__;'
    """
    query = text(query)
    return _COUNTED.sub(r"\1n__", query) if "__asyncpg_" in query else query


def rows_of(result: Any) -> int | None:
    """How many rows came, or were affected; None where that is not told.

    A protocol method's result: rows; or a status; or rows, a status and whether that was all.

    Example:
        >>> rows_of([1, 2]), rows_of("INSERT 0 3"), rows_of(([], b"UPDATE 4", True)), rows_of("BEGIN")
        (2, 3, 4, None)
    """
    kind = type(result)
    if kind is list:
        return len(result)
    if kind is tuple:
        rows, status, *_ = result
        return len(rows) if rows or status is None else _affected(status.decode())
    return _affected(result) if kind is str else None


def _affected(status: str) -> int | None:
    number = status.rpartition(" ")[2]
    return int(number) if number.isdecimal() else None


_cut = Repr()
_cut.maxstring = _cut.maxother = _cut.maxlong = 100
MAX_ARGUMENTS = 50
"""So many arguments of a query are recorded, each as Python writes it (so its type is seen), cut to 100 characters."""


def describe_arguments(arguments: Any) -> dict[str, str]:
    """The arguments of one query. `$1` is parameter 0: OpenTelemetry counts from there.

    Example:
        >>> describe_arguments(("tea", 7))
        {'db.query.parameter.0': "'tea'", 'db.query.parameter.1': '7'}
    """
    shown = arguments[:MAX_ARGUMENTS] if isinstance(arguments, (tuple, list)) else ()
    return {f"{ARGUMENT}{number}": _cut.repr(value) for number, value in enumerate(shown)}


_TIMEOUTS = {"25P03", "25P04", "57P05"}  # idle in a transaction, the whole of one, an idle session
_CUT_SHORT = {"57014", "55P03"}  # query canceled, lock not available


def outcome_on_server(sqlstate: str, message: str) -> str | None:
    """What an error of the server is, when it is none: its own deadline passed, or somebody cancelled there.

    Which of the two, only the message tells; where it does so in another language, it is an error.

    Example:
        >>> outcome_on_server("57014", "canceling statement due to statement timeout")
        'timeout'
    """
    if sqlstate in _TIMEOUTS or (sqlstate in _CUT_SHORT and "timeout" in message):
        return TIMEOUT
    if sqlstate == "57014" and "user request" in message:
        return CANCELLED
    return None


def describe_pool(pool: Any, waiting: int | None) -> dict[str, Any]:
    """The state of a pool whose connections were waited for: `waiting` others had asked before."""
    holders = pool._holders
    known: Any = next((holder._con for holder in holders if holder._con is not None), None)
    server: Mapping[str, Any] = {} if known is None else describe_server(known._addr, known._params)
    tags = {
        **LIBRARY_TAGS,
        **{key: server[key] for key in ("db.name", "db.user", "server.address") if key in server},
        "db.pool.size": pool.get_size(),
        "db.pool.max_size": pool.get_max_size(),
        "db.pool.in_use": sum(holder._in_use is not None for holder in holders),
        "db.pool.waiting": waiting,
    }
    return {key: value for key, value in tags.items() if value is not None}
