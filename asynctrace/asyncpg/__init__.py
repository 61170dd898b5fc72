"""asyncpg: a span for every round trip, for connecting, and for the wait for a pooled connection.

Nothing crosses to the database, unless Database Monitoring asks for a comment (`DD_DBM_PROPAGATION_MODE`). Doors: the
methods of `asyncpg.protocol.Protocol`, where every path meets: pools, cursors, prepared statements, COPY, ORMs;
`connect_utils`, through which every connection is opened; and the pool's own `_acquire`. Connections, pools and
records stay asyncpg's own objects.

    from asynctrace import install

    install("asyncpg")
    pool = await asyncpg.create_pool(dsn)
    await pool.fetch("SELECT price FROM items WHERE id = $1", 7)   # span postgres.query, resource: the SQL

What is opened inside a request, and what a pool does on its own account, belongs to nobody: neither its trace nor its
memory. Names and tags: ddtrace/contrib/internal/asyncpg/patch.py; what that has no name for, OpenTelemetry's database
conventions. Arguments are recorded when asked for, only.

| room | job |
|---|---|
| `describe` | names, resources and tags, from asyncpg's objects |
| `session` | what is known of a connection, and a round trip from its begin to its outcome |
| `statements` | the protocol's doors |
| `connect` | opening connections; what runs apart from whoever caused it |
| `pool` | the wait for a connection; the pool's own queries are quiet |
| `transactions` | by option: a span around `async with connection.transaction()` |
| `export` | SQL goes without its literals where no Datadog agent will see to that |
| `options` | what can be asked for |
"""

from __future__ import annotations

from typing import Any

from asynctrace._patching import Patches
from asynctrace.asyncpg import connect, pool, statements, transactions as blocks
from asynctrace.asyncpg.export import guard
from asynctrace.asyncpg.options import settings

SUPPORTED = ("0.29", "1")
"""From this version on, below that one."""

_patches = Patches()


def install(
    *, acquire_ms: float | None = None, transactions: bool | None = None, arguments: bool | None = None
) -> None:
    """Trace every query of this process; `asynctrace.install("asyncpg")` checks the version first.

    A wait of `acquire_ms` milliseconds or more for a pooled connection is a span (`ASYNCTRACE_ASYNCPG_ACQUIRE_MS`, 1).
    `transactions`: a span around each `async with connection.transaction()` (`ASYNCTRACE_ASYNCPG_TRANSACTIONS`, off).
    `arguments`: the arguments of queries as tags, cut (`ASYNCTRACE_ASYNCPG_ARGUMENTS`, off). Called again, it changes
    what it is given and nothing else.

    Example:
        >>> from asynctrace.asyncpg import install, uninstall
        >>> install(acquire_ms=5, transactions=True)
        >>> uninstall()
    """
    if not _patches:
        settings.read()
        guard()
        settings.on = True
        for owner, name, door in (*connect.DOORS, *statements.DOORS, *pool.DOORS, *blocks.DOORS):
            original = getattr(owner, name, None)  # some are not in every version
            if original is not None and not getattr(original, "_asynctrace", False):
                patch: Any = door(original)
                patch._asynctrace = True  # so as not to be doubled, should somebody's patch keep it in place
                _patches.replace(owner, name, patch)
    settings.change(acquire_ms, transactions, arguments)


def uninstall() -> None:
    """Take the patches off."""
    settings.on = False
    _patches.undo()
