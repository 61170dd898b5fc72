"""What an exception that leaves a span means. The one place that decides it.

Six outcomes: ok, error, timeout, cancelled, closed (a generator or stream left early), disconnected (the peer went
away). Only `error` and `timeout` are errors to Datadog: cancelling a task is how asyncio programs are written.
"""

from __future__ import annotations

import asyncio
import concurrent.futures

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
    if issubclass(kind, asyncio.CancelledError):
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
