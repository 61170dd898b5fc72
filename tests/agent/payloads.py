"""Bodies as tracers send them, made from few words."""

from collections.abc import Sequence
from typing import Any

import msgspec

from asynctrace.agent.protocol import Chunk, decode
from asynctrace.agent.spans import Span

LOW, HIGH = 0x0CA1614BB9CEFFE2, 0x6B040C3300000000
TRACE_ID = HIGH << 64 | LOW
MS = 1_000_000
START = 1_795_404_335_000 * MS


def span(span_id: int, parent_id: int = 0, *, at: float = 0, ms: float = 1, **fields: Any) -> Span:
    """A span that starts `at` and lasts `ms` milliseconds."""
    names = {"name": "work", "service": "shop", "resource": "work", "trace_id": TRACE_ID}
    return Span(
        span_id=span_id,
        parent_id=parent_id,
        start=START + int(at * MS),
        duration=int(ms * MS),
        **{**names, **fields},
    )


def chunk(*spans: Span, low: int = LOW, high: int | None = HIGH) -> Chunk:
    """What the decoder would make of a chunk with these spans."""
    return Chunk(low, high, list(spans))


def wire(
    span_id: int, parent_id: int = 0, *, trace_id: int = LOW, tid: int | None = HIGH, **fields: Any
) -> dict[str, Any]:
    """A span as a map, as v0.4 has it; with the upper half of the trace id in its tag, or without."""
    found: dict[str, Any] = {
        "trace_id": trace_id,
        "span_id": span_id,
        "name": "work",
        "service": "shop",
        "resource": "work",
        "start": START,
        "duration": MS,
        "meta": {} if tid is None else {"_dd.p.tid": f"{tid:016x}"},
        "metrics": {"_sampling_priority_v1": 1.0},
    }
    if parent_id:
        found["parent_id"] = parent_id
    return {**found, **fields}


def v04(*traces: Sequence[Any]) -> bytes:
    """A body of v0.4."""
    return msgspec.msgpack.encode(traces)


def v05(*traces: Sequence[dict[str, Any]]) -> bytes:
    """A body of v0.5: a table of strings, and arrays with indexes into it."""
    table: dict[str, int] = {"": 0}

    def index(text: str) -> int:
        return table.setdefault(text, len(table))

    def row(one: dict[str, Any]) -> list[Any]:
        return [
            *(index(one.get(key, "")) for key in ("service", "name", "resource")),
            *(one.get(key, 0) for key in ("trace_id", "span_id", "parent_id", "start", "duration", "error")),
            {index(key): index(value) for key, value in one["meta"].items()},
            {index(key): value for key, value in one["metrics"].items()},
            index(one.get("type", "")),
        ]

    rows = [[row(one) for one in trace] for trace in traces]
    return msgspec.msgpack.encode([list(table), rows])


def read(version: str, body: bytes, *, is_json: bool = False) -> tuple[list[Chunk], int]:
    """All chunks of a body, and the number of its bad spans."""
    parts = list(decode(version, body, is_json=is_json))
    return [one for part in parts for one in part.chunks], sum(part.bad_spans for part in parts)
