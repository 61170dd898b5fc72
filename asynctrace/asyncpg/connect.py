"""Opening a connection is a span; the connection itself is nobody's.

A transport runs its protocol, and so every listener's callback, in the context that it was opened in, and holds that
for as long as it lives; a timer does until it fires. So these begin in an empty context: neither the trace nor the
variables of the request that happened to need a connection. `password=`, `init=` and `setup=` run where they always do.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from contextvars import Context
from typing import TYPE_CHECKING, Any

from asyncpg import Connection, connect_utils, connection
from asyncpg.pool import Pool, PoolConnectionHolder

from asynctrace._core.api import Description, described
from asynctrace._core.tracer import tracer
from asynctrace.asyncpg.describe import CLIENT_TAGS, CONNECT, describe_server
from asynctrace.asyncpg.options import settings
from asynctrace.asyncpg.pool import waiting
from asynctrace.asyncpg.session import is_off, quietly, ran

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Run = Callable[..., Awaitable[Any]]

log = logging.getLogger("asynctrace")


def _describe(addr: Any, params: Any) -> Description:
    return {
        "name": CONNECT,
        "service": settings.service,
        "type": "sql",
        "tags": {**CLIENT_TAGS, **settings.service_tags, **describe_server(addr, params)},
    }


def traced_connect(run: Run) -> Run:
    """`connect_utils._connect_addr`: one server of those that a DSN may name, its password asked for."""

    @functools.wraps(run)
    async def function(*args: Any, **kwargs: Any) -> Any:
        if is_off():
            return await run(*args, **kwargs)
        if (wait := waiting.get()) is not None:
            wait.connecting()
        span = described(_describe, kwargs.get("addr"), kwargs.get("params")).open()
        return await ran(span, run(*args, **kwargs))

    return function


# -- apart


def opened_apart(run: Run) -> Run:
    """`connect_utils.__connect_addr`: the transport, in a task with an empty context."""

    @functools.wraps(run)
    async def function(*args: Any, **kwargs: Any) -> Any:
        if not settings.on or not tracer.enabled:
            return await run(*args, **kwargs)
        create = asyncio.get_running_loop().create_task
        opening: asyncio.Task[Any] = Context().run(create, run(*args, **kwargs))  # type: ignore[arg-type]
        try:
            return await opening
        except asyncio.CancelledError:
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result().terminate()  # cancelled in the very moment in which it was open
            raise

    return function


def apart(run: Callable[..., Any]) -> Callable[..., Any]:
    """A method that starts a timer or a task, or calls the user's listeners."""

    @functools.wraps(run)
    def method(*args: Any, **kwargs: Any) -> Any:
        return Context().run(run, *args, **kwargs)

    return method


def read_apart(run: Run) -> Run:
    """`Connection._copy_out` stops and resumes reading, which makes its caller's context that of the reader."""

    @functools.wraps(run)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await run(self, *args, **kwargs)
        finally:
            try:
                if not self._transport.is_closing():
                    Context().run(_read_anew, self._transport)
            except Exception:
                log.debug("the reader keeps its context", exc_info=True)

    return method


def _read_anew(transport: Any) -> None:
    transport.pause_reading()
    transport.resume_reading()


DOORS = (
    (connect_utils, "_connect_addr", traced_connect),
    (connect_utils, "__connect_addr", opened_apart),
    (connect_utils, "_can_use_connection", quietly),
    (Connection, "_process_notification", apart),
    (Connection, "_process_log_message", apart),
    (Connection, "_copy_out", read_apart),
    (getattr(connection, "_StatementCache", None), "_set_entry_timeout", apart),
    (PoolConnectionHolder, "_setup_inactive_callback", apart),
    (Pool, "_schedule_min_size_maintenance", apart),
)
