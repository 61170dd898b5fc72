"""What is known of a connection, described once and not once a query; and a round trip, from begin to outcome."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctrace._core.cancel import SOURCE_TAG
from asynctrace._core.outcome import CANCELLED
from asynctrace._core.span import Span
from asynctrace._core.tracer import tracer
from asynctrace._core.values import text
from asynctrace.asyncpg.describe import (
    QUERY,
    QUERY_TAGS,
    ROWS,
    SQLSTATE,
    WAIT,
    describe_arguments,
    describe_server,
    outcome_on_server,
    resource_of,
    rows_of,
)
from asynctrace.asyncpg.options import settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("asynctrace")

SERVER = "server"
"""`async.cancel.source` of a query that was cancelled in the database, as by `pg_cancel_backend`."""

KEPT = "_asynctrace"
"""The attribute of a protocol that holds its `Session`."""

_asyncpg = vars(asyncpg)


class Session:
    """One connection. Kept with its protocol, which every query has at hand and which can't be asked for it."""

    __slots__ = ("copying", "idle", "prepared", "preparing", "quiet", "tags", "waited_ms")

    def __init__(self, tags: dict[str, Any]) -> None:
        self.tags = tags
        self.idle = False  # back in its pool: what is asked now, the pool asks
        self.quiet = 0  # above 0 while asyncpg asks on its own account, for types say
        self.waited_ms = 0.0  # for it, in the pool; told by the next query
        self.prepared: tuple[object, int] | None = None  # and when that began; its first query tells
        self.preparing = False  # `connection.prepare()` is under way, which has a span of its own
        self.copying: tuple[str, str] | None = None  # COPY's query with its arguments written in, and without


def is_off() -> bool:
    """Whether there are no spans of ours. With ddtrace's own integration on, too: one span a query, not two."""
    return not settings.on or not tracer.enabled or bool(_asyncpg.get("_datadog_patch"))


def session_of(connection: Any) -> Session | None:
    """The session of a connection; None of one that is closed.

    A protocol can't be asked for its connection: the first door that sees both makes the session. That is
    `_can_use_connection` for a new one, the pool's for one that was open before `install()`.
    """
    try:
        session: Session = connection._protocol._asynctrace
    except AttributeError:
        protocol = getattr(connection, "_protocol", None)
        return None if protocol is None else remember(protocol, connection)
    return session


def remember(protocol: Any, connection: Any) -> Session:
    """A new session; where the connection can't be had, without its address."""
    try:
        tags = describe_server(connection._addr, connection._params)
    except Exception:  # None, or other insides than we know
        tags = {}
    session = Session({**QUERY_TAGS, **settings.service_tags, **tags})
    setattr(protocol, KEPT, session)
    return session


# -- a round trip


def begin(
    protocol: Any,
    statement: Any,
    arguments: Any = None,
    *,
    name: str = QUERY,
    active: bool = False,
    start_ns: int | None = None,
) -> Span | None:
    """The span of a statement (SQL, or what it was prepared to); None where there is to be none. Never raises.

    `active`: the user's code runs meanwhile. Elsewhere there is nothing to be active for, and asyncpg's timers would
    keep it.
    """
    try:
        session: Session = getattr(protocol, KEPT, None) or remember(protocol, None)
        if session.idle or session.quiet or is_off():
            return None
        if session.prepared is not None:
            prepared, session.prepared = session.prepared, None
            if prepared[0] is statement:
                start_ns = prepared[1]
        resource = resource_of(statement) if isinstance(statement, str) else text(statement.query)
        span = Span(name, resource=resource, service=settings.service, type="sql", tags=session.tags)
        span.open(activate=active, start_ns=start_ns)
    except Exception:
        log.debug("a query goes untraced", exc_info=True)
        return None
    if session.waited_ms:
        span.set_metric(WAIT, session.waited_ms)
        session.waited_ms = 0.0
    if settings.arguments and arguments is not None:
        for key, value in describe_arguments(arguments).items():
            span.set_tag(key, value)
    return span


async def ran(span: Span, running: Awaitable[Any]) -> Any:
    """The round trip itself."""
    try:
        result = await running
    except BaseException as exc:
        failed(span, exc)
        raise
    ended(span, result)
    return result


def ended(span: Span, result: Any) -> None:
    """It came back."""
    try:
        if (rows := len(result) if type(result) is list else rows_of(result)) is not None:
            span.set_metric(ROWS, rows)
    except Exception:
        log.debug("rows could not be counted", exc_info=True)
    span.finish()


def failed(span: Span, exc: BaseException) -> None:
    """It did not."""
    try:
        sqlstate = exc.sqlstate if isinstance(exc, asyncpg.PostgresError) else None
        outcome = outcome_on_server(sqlstate, str(exc)) if sqlstate else None
        if outcome == CANCELLED:
            span.set_tag(SOURCE_TAG, SERVER)
        else:
            span.set_error(exc)
        if outcome is not None:
            span.set_outcome(outcome)
        if sqlstate:
            span.set_tag(SQLSTATE, sqlstate)
    except Exception:
        log.debug("the outcome of a query could not be told", exc_info=True)
    span.finish()


# -- what asyncpg asks on its own account


def quietly(run: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """A method of a connection, or a function of one, whose queries nobody asked for."""

    @functools.wraps(run)
    async def method(connection: Any, *args: Any, **kwargs: Any) -> Any:
        session = session_of(connection)
        if session is None:
            return await run(connection, *args, **kwargs)
        protocol = connection._protocol
        session.quiet += 1
        try:
            result = await run(connection, *args, **kwargs)
        except BaseException as exc:
            session.quiet -= 1
            given_up(protocol, exc)
            raise
        session.quiet -= 1
        return result

    return method


def given_up(protocol: Any, exc: BaseException) -> None:
    """Between preparing a query and running it, asyncpg asked for something else, and that failed: so has the query."""
    session: Session | None = getattr(protocol, KEPT, None)
    if session is not None and session.prepared is not None and not session.quiet:
        statement = session.prepared[0]
        if (span := begin(protocol, statement)) is not None:
            failed(span, exc)
