"""The SQLite database behind the store: in memory, or a file that outlives the agent."""

import sqlite3
from pathlib import Path

from asynctrace.agent.client import AgentError

_APPLICATION = 0x61747263  # "atrc", https://www.sqlite.org/pragma.html#pragma_application_id
_VERSION = 1

# `trace` holds a line of the list, so that lists need no spans; `chunk` the spans, as they came together;
# `link` is there to find links from their far end. Ids are signed here: SQLite knows no other.
_SCHEMA = """
CREATE TABLE trace (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL, low INTEGER NOT NULL, high INTEGER, version INTEGER NOT NULL,
    size INTEGER NOT NULL, dropped INTEGER NOT NULL, spans INTEGER NOT NULL, errors INTEGER NOT NULL,
    sampled_out INTEGER NOT NULL, start INTEGER NOT NULL, ended INTEGER NOT NULL, root_start INTEGER NOT NULL,
    root_parent INTEGER NOT NULL, name TEXT NOT NULL, service TEXT NOT NULL, resource TEXT NOT NULL,
    services TEXT NOT NULL
);
CREATE INDEX trace_low ON trace (low);
CREATE INDEX trace_version ON trace (version);
CREATE TABLE chunk (trace INTEGER NOT NULL, ids BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX chunk_trace ON chunk (trace);
CREATE TABLE link (
    trace INTEGER NOT NULL, span INTEGER NOT NULL, to_low INTEGER NOT NULL, to_span INTEGER NOT NULL
);
CREATE INDEX link_to ON link (to_low);
CREATE INDEX link_trace ON link (trace);
"""


def connect(path: str | Path | None) -> sqlite3.Connection:
    """A connection for one user at a time, from any thread.

    Args:
        path: the file, made when it is not there; None keeps all of it in memory.

    Raises:
        AgentError: the file is in use, of something else, or cannot be opened.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            ":memory:" if path is None else path, isolation_level=None, check_same_thread=False, timeout=0
        )
        _prepare(connection, in_memory=path is None)
    except (sqlite3.Error, AgentError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, AgentError):
            raise
        hint = "another `asynctrace view` has it?" if "locked" in str(error) else "name another --db"
        raise AgentError(f"cannot use {path}: {error}", hint, usage=True) from None
    return connection


def _prepare(connection: sqlite3.Connection, *, in_memory: bool) -> None:
    if not in_memory:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may cost the last seconds
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and application in (0, _APPLICATION):
        connection.execute("BEGIN EXCLUSIVE")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    elif application != _APPLICATION:
        raise AgentError("the file of --db is a database of something else", "name another", usage=True)
    elif version != _VERSION:
        raise AgentError(
            f"the file of --db has format {version}, not {_VERSION}", "name another, or remove it", usage=True
        )


def signed(number: int) -> int:
    """An unsigned 64-bit number as SQLite can hold it."""
    return number - (1 << 64) if number >> 63 else number


def unsigned(number: int) -> int:
    """What `signed` was given."""
    return number & ((1 << 64) - 1)
