"""The doors of `asyncpg.protocol.Protocol`: every statement of every path is one of its methods, a round trip each.

One more round trip is part of the query it is made for: `fetch` and its sisters prepare a statement that is new to
the connection, and their span begins with that. `connection.prepare()` has a span of its own.
"""

from __future__ import annotations

import functools
from time import time_ns
from typing import TYPE_CHECKING, Any

from asyncpg import Connection, utils
from asyncpg.protocol import Protocol

from asynctrace.asyncpg.describe import BATCH, PREPARE
from asynctrace.asyncpg.options import settings
from asynctrace.asyncpg.session import (
    KEPT,
    Session,
    begin,
    ended,
    failed,
    given_up,
    is_off,
    quietly,
    ran,
    remember,
    session_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Run = Callable[..., Awaitable[Any]]


def traced_statement(run: Run) -> Run:
    """`bind_execute`: fetch and its sisters, execute with arguments, a prepared statement, a cursor's first rows."""

    @functools.wraps(run)
    def method(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        running = run(self, *args, **kwargs)
        state, arguments = args[:2] if args else (kwargs.get("state"), kwargs.get("args"))
        span = begin(self, state, arguments)
        return running if span is None else ran(span, running)

    return method


def traced_portal(run: Run) -> Run:
    """`bind` and `execute`: a cursor is opened, and asked for more rows."""

    @functools.wraps(run)
    def method(self: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        running = run(self, *args, **kwargs)
        span = begin(self, args[0] if args else kwargs.get("state"))
        return running if span is None else ran(span, running)

    return method


def traced_query(run: Run) -> Run:
    """`query`: execute without arguments, BEGIN and its like; text that may hold several statements."""

    @functools.wraps(run)
    def method(self: Any, query: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        if settings.commented is not None:
            return commented(self, query, *args, **kwargs)
        running = run(self, query, *args, **kwargs)
        span = begin(self, query)
        return running if span is None else ran(span, running)

    async def commented(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        # what is prepared goes without: a comment that is new each time would prepare it anew each time
        span = begin(self, query, active=True)
        if span is None or settings.commented is None:
            return await run(self, query, *args, **kwargs)
        return await ran(span, run(self, settings.commented(query), *args, **kwargs))

    return method


def traced_many(run: Run) -> Run:
    """`bind_execute_many`: executemany and fetchmany. Their arguments may come from a generator of the user's."""

    @functools.wraps(run)
    async def method(self: Any, state: Any, args: Any, *others: Any, **kwargs: Any) -> Any:
        span = begin(self, state, active=True)
        if span is None:
            return await run(self, state, args, *others, **kwargs)
        batch, size = counted(args)
        try:
            result = await run(self, state, batch, *others, **kwargs)
        except BaseException as exc:
            span.set_metric(BATCH, size())
            failed(span, exc)
            raise
        span.set_metric(BATCH, size())
        ended(span, result)
        return result

    return method


def counted(batch: Any) -> tuple[Any, Callable[[], int]]:
    """A batch, or what takes its place, and its size: where it has no length, that is known when it was consumed."""
    try:
        length = len(batch)
    except Exception:
        try:
            counter = Counter(batch)
        except Exception:  # no batch at all: asyncpg will say so
            return batch, int
        return counter, counter.count
    return batch, lambda: length


class Counter:
    """An iterator that counts."""

    def __init__(self, iterable: Any) -> None:
        self._iterator, self._count = iter(iterable), 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._iterator)
        self._count += 1
        return item

    def count(self) -> int:
        """So far."""
        return self._count


def traced_copy(run: Run) -> Run:
    """`copy_in` and `copy_out`, in all forms. The user's source or sink runs meanwhile."""

    @functools.wraps(run)
    def method(self: Any, copy_stmt: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        running = run(self, copy_stmt, *args, **kwargs)
        span = begin(self, _without_arguments(self, copy_stmt), active=True)
        return running if span is None else ran(span, running)

    return method


def _without_arguments(protocol: Any, statement: Any) -> Any:
    """COPY takes no arguments: asyncpg has written them into the text, where they are nobody's business."""
    session: Session | None = getattr(protocol, KEPT, None)
    if session is None or session.copying is None:
        return statement
    (written, query), session.copying = session.copying, None
    return statement.replace(written, query)


def remembered_arguments(mogrify: Run) -> Run:
    """`asyncpg.utils._mogrify`, which writes them; it asks the server how. Part of the COPY, should it fail."""
    quiet = quietly(mogrify)

    @functools.wraps(mogrify)
    async def function(connection: Any, query: str, args: Any) -> Any:
        started = time_ns()
        try:
            written = await quiet(connection, query, args)
        except BaseException as exc:
            if (span := begin(connection._protocol, query, start_ns=started)) is not None:
                failed(span, exc)
            raise
        if (session := session_of(connection)) is not None:
            session.copying = (written, query)
        return written

    return function


# -- preparing


def traced_prepare(run: Run) -> Run:
    """`prepare`, by whoever: part of the query that follows, unless it fails."""

    @functools.wraps(run)
    def method(self: Any, stmt_name: Any, query: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        running = run(self, stmt_name, query, *args, **kwargs)
        session: Session = getattr(self, KEPT, None) or remember(self, None)
        if session.preparing or session.idle or session.quiet or is_off():
            return running
        return prepared(self, session, query, running)

    async def prepared(protocol: Any, session: Session, query: Any, running: Awaitable[Any]) -> Any:
        started = time_ns()
        try:
            state = await running
        except BaseException as exc:
            if (span := begin(protocol, query, start_ns=started)) is not None:
                failed(span, exc)
            raise
        session.prepared = (state, started)
        return state

    return method


def traced_housekeeping(run: Run) -> Run:
    """`close_statement`: one that has left the cache goes before the query that has taken its place runs."""

    @functools.wraps(run)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await run(self, *args, **kwargs)
        except BaseException as exc:
            given_up(self, exc)
            raise

    return method


def traced_explicit_prepare(run: Run) -> Run:
    """`Connection.prepare`."""

    @functools.wraps(run)
    async def method(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        session = session_of(self)
        span = None if session is None else begin(self._protocol, query, name=PREPARE)
        if session is None or span is None:
            return await run(self, query, *args, **kwargs)
        session.preparing = True
        try:
            return await ran(span, run(self, query, *args, **kwargs))
        finally:
            session.preparing = False

    return method


DOORS = (
    (Protocol, "bind_execute", traced_statement),
    (Protocol, "bind", traced_portal),
    (Protocol, "execute", traced_portal),
    (Protocol, "query", traced_query),
    (Protocol, "bind_execute_many", traced_many),
    (Protocol, "copy_in", traced_copy),
    (Protocol, "copy_out", traced_copy),
    (Protocol, "prepare", traced_prepare),
    (Protocol, "close_statement", traced_housekeeping),
    (Connection, "prepare", traced_explicit_prepare),
    (Connection, "_introspect_types", quietly),
    (Connection, "_introspect_type", quietly),
    (utils, "_mogrify", remembered_arguments),
)
