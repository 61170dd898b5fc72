"""Bodies of the Datadog trace protocol, versions 0.3, 0.4 and 0.5, to spans.

v0.3 and v0.4 are a list of traces, a trace a list of spans, a span a map. v0.5 is a pair: a table of strings,
and traces whose spans are arrays of twelve with indexes into that table. See `pkg/trace/api/version.go` of
https://github.com/DataDog/datadog-agent, and ddtrace's `internal/_encoding.pyx` for what is really sent.

Each trace is decoded by itself, and in three steps: typed and strict, for nearly all; if that fails, span by
span; and the spans which fail again with `lenient`, which keeps what can be read of them. One bad span costs
nobody else anything. What a header promises is checked before memory is spent on it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from asynctrace.agent import lenient
from asynctrace.agent.spans import Span
from asynctrace.agent.wire import (
    TRACE_ID_UPPER,
    IndexedSpan,
    WireSpan,
    from_indexes,
    from_map,
    from_wire,
    named,
    upper_half,
)

MAX_TRACES = 100_000  # in one body; an empty trace is one byte here, and sixty in memory
MAX_STRINGS = 1_000_000  # in the table of a v0.5 body
MAX_SPANS = 500_000  # in one trace of a body
MAX_LENIENT_SPAN = 1 << 18  # bytes; a tag has at most 25 000, and a lenient look costs memory
MAX_JSON = 8 << 20  # bytes; "[]," is three of them, and sixty in memory
_SLICE = 5_000  # spans that are objects at the same time


class BadPayloadError(ValueError):
    """A body of which nothing can be used."""


@dataclass(slots=True)
class Chunk:
    """Spans of one trace that arrived together.

    `low` is the lower half of the trace id, which every span carries; `high` the upper one, or None when no
    span of the chunk said it.
    """

    low: int
    high: int | None
    spans: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class Decoded:
    """What was in a body: chunks that can be used, and the number of spans that can not."""

    chunks: list[Chunk] = field(default_factory=list)
    bad_spans: int = 0


_raw_list = msgspec.msgpack.Decoder(list[msgspec.Raw])
_raw_pair = msgspec.msgpack.Decoder(tuple[msgspec.Raw, msgspec.Raw])
_string_table = msgspec.msgpack.Decoder(list[str])
_trace = msgspec.msgpack.Decoder(list[WireSpan])
_indexed_trace = msgspec.msgpack.Decoder(list[IndexedSpan])

# What a refused body or span raises; RecursionError is deep nesting, met by the strict decoder.
_REFUSED = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError, RecursionError)


def decode(version: str, body: bytes, *, is_json: bool = False) -> Iterator[Decoded]:
    """The traces of a body, one or a part of one at a time: the whole of it is never in memory as objects.

    Args:
        version: `"v0.3"`, `"v0.4"` or `"v0.5"`.
        body: what came, already inflated.
        is_json: some tracers send v0.3 and v0.4 as JSON.

    Raises:
        BadPayloadError: nothing in it can be used.
    """
    try:
        if is_json:
            yield from (_from_maps(trace) for trace in load_json(body))
            return
        table = None
        traces: bytes | memoryview = body
        if version == "v0.5":
            head, tail = _raw_pair.decode(body)
            table, traces = _table(bytes(head)), bytes(tail)
        raw_traces = _items(traces, MAX_TRACES, "traces")
    except _REFUSED as error:
        raise BadPayloadError(str(error)) from None
    for raw in raw_traces:
        yield from _decode_trace(bytes(raw), table)


def load_json(body: bytes) -> Any:
    """What a body of JSON says.

    Raises:
        BadPayloadError: it is larger than any tracer's.
        ValueError, RecursionError: it is none.
    """
    if len(body) > MAX_JSON:
        raise BadPayloadError(f"{len(body)} bytes of JSON, the limit is {MAX_JSON}")
    return json.loads(body)


def _items(data: bytes | memoryview, limit: int, what: str) -> list[msgspec.Raw]:
    length = lenient.array_length(data)
    if length > limit:
        raise BadPayloadError(f"{length} {what} in one body, the limit is {limit}")
    return _raw_list.decode(data)


def _table(raw: bytes) -> list[str]:
    length = lenient.array_length(raw)
    if length > MAX_STRINGS:
        raise BadPayloadError(f"{length} strings in one body, the limit is {MAX_STRINGS}")
    try:
        return _string_table.decode(raw)
    except _REFUSED:
        return [str(lenient.unpack(item)) for item in _raw_list.decode(raw)]


def _decode_trace(raw: bytes, table: list[str] | None) -> Iterator[Decoded]:
    try:
        length = lenient.array_length(raw)
        if length > MAX_SPANS:
            yield Decoded(bad_spans=length)
            return
        items = _raw_list.decode(raw) if length > _SLICE else []
    except _REFUSED:
        yield Decoded(bad_spans=1)
        return
    if not items:
        yield _decode_slice(raw, table)
    for first in range(0, len(items), _SLICE):
        yield _decode_slice(msgspec.msgpack.encode(items[first : first + _SLICE]), table)


def _decode_slice(raw: bytes, table: list[str] | None) -> Decoded:
    try:
        if table is None:
            return gather(_trace.decode(raw), from_wire)
        return gather(_indexed_trace.decode(raw), lambda span: from_indexes(span, table))
    except _REFUSED:
        return _decode_spans(raw, table)


def _decode_spans(raw: bytes, table: list[str] | None) -> Decoded:
    """The second and third step, for spans that were refused together."""
    try:
        items = _raw_list.decode(raw)
    except _REFUSED:
        return Decoded(bad_spans=1)

    def convert(item: msgspec.Raw) -> Span:
        if len(item) > MAX_LENIENT_SPAN:
            raise BadPayloadError("too large for a lenient look")
        value = lenient.unpack(item)
        return from_map(value if table is None else named(value, table))

    return gather(items, convert)


def _from_maps(trace: Any) -> Decoded:
    return gather(trace, from_map) if isinstance(trace, list) else Decoded(bad_spans=1)


def gather(items: Iterable[Any], convert: Callable[[Any], Span]) -> Decoded:
    """Spans by trace: a chunk has one trace id, but nothing in the protocol enforces it."""
    chunks: dict[int, Chunk] = {}
    bad = 0
    for item in items:
        try:
            span = convert(item)
        except _REFUSED:
            bad += 1
            continue
        chunk = chunks.get(span.trace_id)
        if chunk is None:
            chunk = chunks[span.trace_id] = Chunk(span.trace_id, None)
        if chunk.high is None:
            chunk.high = upper_half(span.meta.get(TRACE_ID_UPPER))
        chunk.spans.append(span)
    return Decoded(list(chunks.values()), bad)
