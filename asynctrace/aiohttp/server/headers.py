"""Which headers of a request are read: told by their names, which are the same from request to request.

Clients of a kind send the same headers, so that the names are looked at once, and of a request only the headers that
say something.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrace._core.carrier import is_trace_header
from asynctrace._core.context import ROOT, SpanContext

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERRER = "referer"

_SCANS = ("x-datadog-endpoint-scan", "x-datadog-security-test")
"""Headers of Datadog's own that ddtrace always records."""

_TAGS = {"user-agent": "http.useragent", **{name: f"http.request.headers.{name}" for name in _SCANS}}


class Known(NamedTuple):
    """Of the headers of a request, in lower case: those of a trace, those that are tags, and whether one refers."""

    trace: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    refers: bool


_LONGEST = 2000
"""Names of more characters than that are not remembered: what strangers send is not to fill the memory."""


def known(names: tuple[str, ...]) -> Known:
    """What headers of these names are good for.

    Example:
        >>> known(("Host", "Traceparent", "User-Agent"))
        Known(trace=('traceparent',), tags=(('user-agent', 'http.useragent'),), refers=False)
    """
    return _remembered(names) if sum(map(len, names)) < _LONGEST else _looked_at(names)


def _looked_at(names: tuple[str, ...]) -> Known:
    lower = dict.fromkeys(name.lower() for name in names)
    return Known(
        tuple(filter(is_trace_header, lower)),
        tuple((name, tag) for name, tag in _TAGS.items() if name in lower),
        REFERRER in lower,
    )


_remembered = lru_cache(maxsize=200)(_looked_at)


def context_in(headers: Mapping[str, str], known: Known) -> SpanContext:
    """The context in a request's headers."""
    if not known.trace:
        return ROOT
    carrier: dict[Any, Any] = {name: headers[name] for name in known.trace}
    return SpanContext.extract(carrier)
