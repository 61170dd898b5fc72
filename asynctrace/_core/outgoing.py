"""The trace headers of a request that goes out, from its span: what `Span.context.inject()` does, at a glance.

Clients write into headers of a library's own, whose names are text and the same from request to request.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from asynctrace._core.carrier import trace_headers_in
from asynctrace._core.plain import plain_headers

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from asynctrace._core.span import Span


def write(span: Span, headers: MutableMapping[str, str]) -> None:
    """Name this span in `headers`, instead of what they name."""
    if (plain := _headers_of_record(span)) is None:
        span.context.inject(headers)
        return
    for key in _trace_headers(tuple(headers)):
        if key in headers:  # a multidict lets go of "Traceparent" and "traceparent" at once
            del headers[key]
    headers.update(plain)


def _headers_of_record(span: Span) -> dict[str, str] | None:
    """Of a record in a trace that is sampled or not: it differs from its local root in its id only."""
    segment = span.written()
    if segment is None or span._dd is not None:
        return None
    return plain_headers(segment.context, span._id)


@lru_cache(maxsize=200)
def _trace_headers(names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(trace_headers_in(names))
