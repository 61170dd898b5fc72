"""A span as it is on the wire, in each form it has there, and its way into a `Span`.

Here the numbers of a span come into their range, and what travels in tags for want of a field (links) comes out
of them.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec

from asynctrace._sql import obfuscated
from asynctrace.agent.spans import LOW_64, LOW_128, Link, Span

TRACE_ID_UPPER = "_dd.p.tid"  # 16 hex digits, on the first span of a chunk only
_SPAN_LINKS = "_dd.span_links"  # JSON: how links travel where the protocol has no field for them
_MAX_TIME = (1 << 63) - 1


class _WireLink(msgspec.Struct):
    trace_id: int
    span_id: int
    trace_id_high: int = 0
    attributes: dict[str, str] | None = None


class WireSpan(msgspec.Struct):
    """A span of v0.3 and v0.4; keys that are not here (`meta_struct`) are left aside."""

    trace_id: int
    span_id: int
    parent_id: int = 0
    name: str = ""
    service: str = ""
    resource: str = ""
    type: str | None = ""
    start: int = 0
    duration: int = 0
    error: int = 0
    meta: dict[str, str] | None = None
    metrics: dict[str, float] | None = None
    span_links: list[_WireLink] | None = None
    span_events: list[Any] | None = None


Index = Annotated[int, msgspec.Meta(ge=0)]  # into the table; Python would count a negative one from its end


class IndexedSpan(msgspec.Struct, array_like=True):
    """A span of v0.5; an `Index` stands for a string."""

    service: Index
    name: Index
    resource: Index
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    duration: int
    error: int
    meta: dict[Index, Index]
    metrics: dict[Index, float]
    type: Index


def from_wire(wire: WireSpan) -> Span:
    """A span of v0.3 or v0.4, strictly decoded. Raises ValueError when it has no id."""
    meta = wire.meta or {}
    links = [
        Link(((link.trace_id_high & LOW_64) << 64) | (link.trace_id & LOW_64), link.span_id & LOW_64,
             link.attributes or {})
        for link in wire.span_links or ()
    ]  # fmt: skip
    if wire.span_events:
        meta["events"] = json.dumps(wire.span_events, default=str)
    return checked(
        Span(
            wire.trace_id, wire.span_id, wire.parent_id, wire.name, wire.service, wire.resource,
            wire.type or "", wire.start, wire.duration, wire.error, meta, wire.metrics or {}, tuple(links),
        )
    )  # fmt: skip


def from_indexes(wire: IndexedSpan, table: list[str]) -> Span:
    """Raises IndexError for an index that is not in the table."""
    return checked(
        Span(
            wire.trace_id, wire.span_id, wire.parent_id, table[wire.name], table[wire.service],
            table[wire.resource], table[wire.type], wire.start, wire.duration, wire.error,
            {table[key]: table[value] for key, value in wire.meta.items()},
            {table[key]: value for key, value in wire.metrics.items()},
        )
    )  # fmt: skip


def _lookup(table: list[str]) -> Callable[[int], str]:
    def text(index: int) -> str:
        if index < 0:  # Python would count from the end
            raise IndexError(index)
        return table[index]

    return text


def named(values: Any, table: list[str]) -> dict[str, Any]:
    """A v0.5 span of whatever quality as a v0.4 one."""
    text = _lookup(table)
    fields = IndexedSpan.__struct_fields__
    span = dict(zip(fields, values, strict=False))
    for name in ("service", "name", "resource", "type"):
        span[name] = text(span[name]) if isinstance(span.get(name), int) else ""
    for name in ("meta", "metrics"):
        pairs = span.get(name) or {}
        span[name] = {text(key): text(value) if name == "meta" else value for key, value in pairs.items()}
    return span


def from_map(data: dict[str, Any]) -> Span:
    """A span from a map of whatever quality: all but the two ids may be absent, null or of another type."""
    meta = {_text(key): _text(value) for key, value in (data.get("meta") or {}).items() if value is not None}
    metrics = {
        _text(key): float(value)
        for key, value in (data.get("metrics") or {}).items()
        if isinstance(value, (int, float))
    }
    numbers = {key: int(data.get(key) or 0) for key in ("parent_id", "start", "duration", "error")}
    texts = {key: _text(data.get(key) or "") for key in ("name", "service", "resource", "type")}
    return checked(
        Span(int(data["trace_id"]), int(data["span_id"]), meta=meta, metrics=metrics, **texts, **numbers)  # type: ignore[arg-type]
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


_SQL_TAGS = ("db.statement", "db.query.text", "sql.query")


def _without_literals(span: Span) -> None:
    """As Datadog's agent does it: tracers leave this to whoever receives."""
    span.resource = obfuscated(span.resource)
    for key in _SQL_TAGS:
        if key in span.meta:
            span.meta[key] = obfuscated(span.meta[key])


def checked(span: Span) -> Span:
    """The span with every number in its range. Signed ids (Java's) become unsigned, times are clamped.

    Raises:
        ValueError: it has no id.
    """
    span.trace_id &= LOW_64
    span.span_id &= LOW_64
    span.parent_id &= LOW_64
    if not span.trace_id or not span.span_id:
        raise ValueError("a span without an id")
    if not 0 <= span.start <= _MAX_TIME:
        span.start = 0
    if not 0 <= span.duration <= _MAX_TIME:
        span.duration = 0
    span.error = 1 if span.error else 0
    if span.type == "sql":
        _without_literals(span)
    if not all(map(math.isfinite, span.metrics.values())):  # JSON cannot say NaN
        span.metrics = {key: value for key, value in span.metrics.items() if math.isfinite(value)}
    if _SPAN_LINKS in span.meta:
        span.links += tuple(_links_of(span.meta.pop(_SPAN_LINKS)))
    return span


def _links_of(text: str) -> Iterator[Link]:
    """Links from the JSON in a tag, ids in hex; one that cannot be read is left out."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    for data in found if isinstance(found, list) else ():
        link = _link_of(data)
        if link is not None:
            yield link


def _link_of(data: Any) -> Link | None:
    try:
        attributes = {str(key): str(value) for key, value in (data.get("attributes") or {}).items()}
        return Link(int(data["trace_id"], 16) & LOW_128, int(data["span_id"], 16) & LOW_64, attributes)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def upper_half(text: str | None) -> int | None:
    """The upper 64 bits of a trace id from its tag; None when it is absent or no hexadecimal number."""
    try:
        return int(text, 16) & LOW_64 if text else None
    except ValueError:
        return None
