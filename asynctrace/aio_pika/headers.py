"""What crosses the broker: Datadog and W3C headers, and when the message was published.

Written as text only (AMQP type S), the one type that Java, .NET, JS and Go all read; read tolerantly.
"""

from __future__ import annotations

import logging
from time import time_ns
from typing import TYPE_CHECKING, Any

from asynctrace._core.carrier import is_trace_header
from asynctrace._core.context import ROOT, SpanContext
from asynctrace._core.plain import plain_context

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("asynctrace")

PRODUCED = "x-asynctrace-produced"
"""When the message was published, in ms since the epoch."""

PRODUCED_IN_JAVA = "x_datadog_rabbitmq_produced"
"""The same as dd-trace-java writes it, a Long (RabbitDecorator.java); it takes no other type, so it is only read."""

_LONGEST_INTEGER = 64  # bits: AMQP's
_LATEST = 10**14  # ms: in the year 5138


def read_context(headers: Mapping[Any, Any] | None) -> SpanContext:
    """The publisher's context. Other languages write text, bytes and numbers; everything else is ignored.

    Example:
        >>> read_context({"x-datadog-trace-id": b"7", "x-datadog-parent-id": 8}).span_id
        8
        >>> bool(read_context({"x-datadog-trace-id": [7], "x-death": [{"count": 1}]}))
        False
    """
    if not headers:
        return ROOT
    try:
        if type(headers) is dict and (plain := plain_context(headers)) is not None:
            return SpanContext(plain)
        if all(type(value) is str for value in headers.values()):
            return SpanContext.extract(headers)
        found = ((key, _text(value)) for key, value in headers.items() if is_trace_header(key))
        return SpanContext.extract([pair for pair in found if pair[1] is not None])
    except Exception:  # headers that are no mapping
        log.debug("no trace headers read", exc_info=True)
        return ROOT


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= _LONGEST_INTEGER:
        return str(value)
    return None


def stamped(headers: Mapping[Any, Any] | None, context: SpanContext) -> dict[Any, Any]:
    """A copy of the headers that carries this context, and no other, and the time.

    Example:
        >>> stamped({"traceparent": "stale", "tenant": "a"}, ROOT).keys() >= {"tenant", PRODUCED}
        True
    """
    copy = context.inject(dict(headers) if headers else {})
    copy[PRODUCED] = str(time_ns() // 1_000_000)
    return copy


def produced_ms(headers: Mapping[Any, Any] | None) -> int | None:
    """When a message was published, in ms since the epoch; None where nobody tells.

    Example:
        >>> produced_ms({PRODUCED: "1700000000000"}), produced_ms({PRODUCED_IN_JAVA: 1700000000001})
        (1700000000000, 1700000000001)
    """
    if not headers:
        return None
    value = headers.get(PRODUCED)
    if value is None:
        value = headers.get(PRODUCED_IN_JAVA)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:15])
    if type(value) is int and 0 < value < _LATEST:
        return value
    return None
