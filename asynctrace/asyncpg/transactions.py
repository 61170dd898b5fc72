"""By option: a span around `async with connection.transaction()`, from BEGIN to the end of COMMIT or ROLLBACK."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from asyncpg import Connection
from asyncpg.transaction import Transaction

from asynctrace._core.api import Description, described
from asynctrace._core.tracer import tracer
from asynctrace.asyncpg.describe import LIBRARY_TAGS, TRANSACTION
from asynctrace.asyncpg.options import settings
from asynctrace.asyncpg.session import failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from asynctrace._core.span import Span

STATE = "db.transaction.state"
"""How the block ended: committed, rolledback, or failed."""


class TracedTransaction(Transaction):  # type: ignore[misc]
    """asyncpg's own, which has no room for a span. Only as a block: `start()` and `commit()` are queries, no more."""

    __slots__ = ("_asynctrace",)

    _asynctrace: Span

    async def __aenter__(self) -> None:
        if self._managed:  # twice: asyncpg will say what it thinks of that
            await super().__aenter__()
        self._asynctrace = described(_describe, self._connection).open()
        try:
            await super().__aenter__()
        except BaseException as exc:
            self._over(exc)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, exc, tb)
        except BaseException as at_the_end:
            self._over(at_the_end)
            raise
        self._over(exc)

    def _over(self, exc: BaseException | None) -> None:
        span = self._asynctrace
        span.set_tag(STATE, self._state.name.lower())
        if exc is None:
            span.finish()
        else:
            failed(span, exc)


def _describe(connection: Any) -> Description:
    nested = connection._top_xact is not None
    return {
        "name": TRANSACTION,
        "resource": "savepoint" if nested else "transaction",
        "tags": {**LIBRARY_TAGS, "db.name": connection._params.database},
    }


def traced_transaction(run: Callable[..., Any]) -> Callable[..., Any]:
    """`Connection.transaction`."""

    @functools.wraps(run)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        transaction = run(self, *args, **kwargs)
        wanted = settings.transactions and settings.on and tracer.enabled
        if not wanted or type(transaction) is not Transaction:
            return transaction
        return TracedTransaction(self, transaction._isolation, transaction._readonly, transaction._deferrable)

    return method


DOORS = ((Connection, "transaction", traced_transaction),)
