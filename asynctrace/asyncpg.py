"""asyncpg: a span for every query, of connections and pools, prepared statements and cursors.

Nothing crosses to the database; what is traced is the round trip. Door: the methods of `asyncpg.protocol.Protocol`,
where every path meets: pools, cursors, prepared statements, ORMs. Connections stay asyncpg's own objects.

    from asynctrace import install

    install("asyncpg")
    pool = await asyncpg.create_pool(dsn)
    await pool.fetch("SELECT price FROM items WHERE id = $1", 7)   # span postgres.query, resource: the SQL

Names and tags: ddtrace/contrib/internal/asyncpg/patch.py. Arguments are never recorded.
"""

from __future__ import annotations

import functools
from time import time_ns
from typing import TYPE_CHECKING, Any

from asynctrace._core.api import Description, described
from asynctrace._core.naming import integration_service, operation
from asynctrace._core.span import MEASURED
from asynctrace._core.tracer import tracer
from asynctrace._patching import Patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SUPPORTED = ("0.29", "1")
"""From this version on, below that one."""

OPERATION = operation("postgres.query", "postgresql.query")

QUERIES = ("query", "execute", "bind_execute", "bind_execute_many")
"""The protocol's methods that run a statement."""

COMMON_TAGS = {"component": "asyncpg", "db.system": "postgresql", "span.kind": "client", MEASURED: 1}

RESET = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;"
"""How the query begins with which a pool resets a connection (asyncpg/connection.py, get_reset_query)."""

_patches = Patches()


# -- what a span says


def describe_connection(connection: Any) -> dict[str, Any]:
    """The tags of everything that happens on a connection."""
    params, address = connection._params, connection._addr
    tags: dict[str, Any] = {"db.user": params.user, "db.name": params.database}
    if isinstance(address, tuple):
        tags.update(
            {"out.host": address[0], "server.address": address[0], "network.destination.port": address[1]}
        )
    else:  # the path of a unix socket
        tags.update({"out.host": address, "server.address": address})
    return {key: value for key, value in tags.items() if value is not None}


def describe_query(protocol: Any, query: str) -> Description:
    """One round trip."""
    return {
        "name": OPERATION,
        "resource": query,
        "service": integration_service("asyncpg", "postgres"),
        "type": "sql",
        "tags": {**COMMON_TAGS, **getattr(protocol, "_asynctrace_tags", {})},
    }


def query_of(statement: Any) -> str:
    """The SQL of a protocol method's first argument: text, or a prepared statement's state."""
    query = getattr(statement, "query", statement)
    return query.decode("utf-8", "replace") if isinstance(query, bytes) else str(query)


def is_of_the_library(query: str) -> bool:
    """Whether asyncpg asks on its own account: a pool's reset, the look-up of types."""
    return (
        query.startswith(RESET) or query in _introspection() or ("'jit'" in query and "set_config" in query)
    )


@functools.cache
def _introspection() -> frozenset[str]:
    from asyncpg import introspection

    return frozenset(value for value in vars(introspection).values() if isinstance(value, str))


# -- doors


def _traced(run: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @functools.wraps(run)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        query = query_of(args[0] if args else kwargs.get("state", kwargs.get("query", "")))
        if _is_quiet(query):
            return await run(self, *args, **kwargs)
        with described(describe_query, self, query):
            return await run(self, *args, **kwargs)

    return method


def _traced_prepare(prepare: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """A statement is prepared before it runs; one that can't be has no other span to be seen in."""

    @functools.wraps(prepare)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = time_ns()
        try:
            return await prepare(self, *args, **kwargs)
        except BaseException as exc:
            query = query_of(args[1] if len(args) > 1 else kwargs.get("query", ""))
            if not _is_quiet(query):
                failed = described(describe_query, self, query).open(activate=False, start_ns=started)
                failed.set_error(exc)
                failed.finish()
            raise

    return method


def _is_quiet(query: str) -> bool:
    if not _patches or not tracer.enabled or is_of_the_library(query):
        return True
    import asyncpg

    return bool(
        getattr(asyncpg, "_datadog_patch", False)
    )  # ddtrace's own integration is on: one span, not two


def _remembering(set_connection: Callable[..., None]) -> Callable[..., None]:
    """The protocol can't be asked for its connection: its tags are kept when it is given one."""

    @functools.wraps(set_connection)
    def method(self: Any, connection: Any) -> None:
        set_connection(self, connection)
        try:
            self._asynctrace_tags = describe_connection(connection)
        except Exception:  # other insides than we know: queries go without host and port
            self._asynctrace_tags = {}

    return method


def install() -> None:
    """Trace every query of this process; `asynctrace.install("asyncpg")` checks the version first."""
    from asyncpg.protocol import Protocol

    if _patches:
        return
    for name in QUERIES:
        _patches.replace(Protocol, name, _traced(getattr(Protocol, name)))
    _patches.replace(Protocol, "prepare", _traced_prepare(Protocol.prepare))
    _patches.replace(Protocol, "set_connection", _remembering(Protocol.set_connection))


def uninstall() -> None:
    """Take the patches off."""
    _patches.undo()
