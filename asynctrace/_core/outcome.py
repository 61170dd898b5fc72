"""What an exception that leaves a span means. The one place that decides it.

Six outcomes: ok, error, timeout, cancelled, closed (a generator or stream left early), disconnected (the peer went
away). Only `error` and `timeout` are errors to Datadog: cancelling a task is how asyncio programs are written.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING

from asynctrace._core.values import text

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan

OK = "ok"
ERROR = "error"
TIMEOUT = "timeout"
CANCELLED = "cancelled"
CLOSED = "closed"
DISCONNECTED = "disconnected"

OUTCOME_TAG = "async.outcome"
"""The tag that names the outcome; a span without it is `ok`."""

FAILED = frozenset({ERROR, TIMEOUT})
"""The outcomes that set ddtrace's error flag."""

_CANCELLATIONS = (asyncio.CancelledError, concurrent.futures.CancelledError)

_TIMEOUTS = (
    TimeoutError,
    asyncio.TimeoutError,
    concurrent.futures.TimeoutError,
)  # three classes on Python 3.10


def outcome_of(exc: BaseException) -> str:
    """The outcome of a span that `exc` leaves.

    Example:
        >>> outcome_of(asyncio.CancelledError()), outcome_of(TimeoutError()), outcome_of(SystemExit(0))
        ('cancelled', 'timeout', 'ok')
    """
    kind = type(exc)  # an exception may lie about its class
    if issubclass(kind, _CANCELLATIONS):
        return CANCELLED
    if issubclass(kind, GeneratorExit):
        return CLOSED
    if issubclass(kind, _TIMEOUTS):
        return TIMEOUT
    if issubclass(kind, SystemExit) and not getattr(
        exc, "code", 1
    ):  # as ddtrace has it: leaving with 0 or None is no error
        return OK
    return ERROR


UNINTENDED = {
    "asyncio.exceptions.CancelledError": CANCELLED,
    "concurrent.futures._base.CancelledError": CANCELLED,
    "builtins.GeneratorExit": CLOSED,
}
"""Exceptions that ddtrace takes for errors, and what they are."""


def translate(span: DDSpan) -> None:
    """Give a span on which ddtrace has recorded an exception the outcome that one of ours would have."""
    if not span.error or span.get_tag(OUTCOME_TAG) is not None:
        return
    kind = span.get_tag("error.type") or ""
    if (outcome := UNINTENDED.get(kind)) is not None:
        span.error = 0
        for tag in ("error.type", "error.message", "error.stack"):
            span.remove_tag(tag)
    else:
        outcome = TIMEOUT if kind.endswith(".TimeoutError") else ERROR
    span.set_tag(OUTCOME_TAG, outcome)


MAX_LEAVES = 100
"""So many exceptions of a group are looked at."""


def leaf_types(exc: BaseException) -> str:
    """The types of the exceptions in an exception group, however deep, each with how often; "" for other exceptions.

    Example:
        >>> leaf_types(ValueError())
        ''
    """
    counts: dict[str, int] = {}
    pending = list(reversed(members_of(exc)))
    for _ in range(MAX_LEAVES):
        if not pending:
            break
        one = pending.pop()
        if members := members_of(one):
            pending.extend(reversed(members))
        else:
            counts[type_name(one)] = counts.get(type_name(one), 0) + 1
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items())


def members_of(exc: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group: Python's own since 3.11, the `exceptiongroup` package's before; none of others."""
    if all(kind.__name__ != "BaseExceptionGroup" for kind in type(exc).__mro__):
        return ()
    members: tuple[BaseException, ...] = exc.exceptions  # type: ignore[attr-defined]
    return members


def type_name(exc: BaseException) -> str:
    """As ddtrace names it in `error.type`."""
    return text(f"{type(exc).__module__}.{type(exc).__name__}")
