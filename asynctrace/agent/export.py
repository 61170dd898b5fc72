"""A trace as a file: for asynctrace itself, for https://speedscope.app and for https://ui.perfetto.dev.

Both viewers want spans strictly nested, and asynchronous ones are not: so each lane becomes as many rows as it
takes for siblings that overlap to lie side by side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from asynctrace.agent.analysis.lanes import Lane, lanes, walk
from asynctrace.agent.spans import Span, Trace
from asynctrace.agent.tree import build

_NS_PER_US = 1_000


@dataclass(frozen=True, slots=True)
class _Row:
    """Spans of one lane, each inside the one before it or after its end."""

    lane: Lane
    number: int
    spans: list[Span]


def as_json(trace: Trace) -> dict[str, Any]:
    """Everything that is known of it; `POST /asynctrace/v1/import` takes it back."""
    return trace.to_json()


def as_speedscope(trace: Trace) -> dict[str, Any]:
    """See https://www.speedscope.app/file-format-schema.json; one profile a row."""
    frames: dict[str, int] = {}
    profiles = []
    for row in _rows(trace):
        events = []
        for kind, at, span in _events(row.spans):
            name = f"{span.name} {span.resource}" if span.resource not in ("", span.name) else span.name
            frame = frames.setdefault(name, len(frames))
            events.append({"type": kind, "frame": frame, "at": at - trace.start})
        profiles.append(
            {
                "type": "evented", "name": _title(row), "unit": "nanoseconds", "startValue": 0,
                "endValue": trace.duration, "events": events,
            }
        )  # fmt: skip
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "asynctrace",
        "name": trace.id,
        "shared": {"frames": [{"name": name} for name in frames]},
        "profiles": profiles,
    }


def as_perfetto(trace: Trace) -> dict[str, Any]:
    """Chrome's trace event format, which Perfetto reads: a process a lane, arrows from one to the other."""
    events: list[dict[str, Any]] = []
    processes: dict[Lane, int] = {}
    places: dict[int, tuple[int, int]] = {}
    for row in _rows(trace):
        process = processes.setdefault(row.lane, len(processes) + 1)
        name = f"{row.lane.service} {row.lane.process}".rstrip()
        events.append({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}})
        for span in row.spans:
            places[span.span_id] = process, row.number
            events.append(
                {
                    "ph": "X", "name": span.resource or span.name, "cat": span.name, "pid": process,
                    "tid": row.number, "ts": (span.start - trace.start) / _NS_PER_US,
                    "dur": span.duration / _NS_PER_US,
                    "args": {**span.meta, **span.metrics, "span_id": str(span.span_id)},
                }
            )  # fmt: skip
    events.extend(_flows(trace, places))
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"trace_id": trace.id}}


FORMATS: dict[str, Callable[[Trace], dict[str, Any]]] = {
    "json": as_json,
    "speedscope": as_speedscope,
    "perfetto": as_perfetto,
}


def _flows(trace: Trace, places: dict[int, tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for node, parent in walk(build(trace.spans)):
        if parent is None or places[node.span.span_id][0] == places[parent.span.span_id][0]:
            continue
        for phase, span in (("s", parent.span), ("f", node.span)):
            process, row = places[span.span_id]
            at = span.start if phase == "f" else max(min(span.end, node.span.start), span.start)
            yield {
                "ph": phase, "bp": "e", "name": "hop", "cat": "hop", "id": str(node.span.span_id), "pid": process,
                "tid": row, "ts": (at - trace.start) / _NS_PER_US,
            }  # fmt: skip


def _rows(trace: Trace) -> list[_Row]:
    lane_of = lanes(walk(build(trace.spans)))
    rows: dict[Lane, list[_Row]] = {}
    open_spans: dict[int, list[Span]] = {}  # of each row, by id(): those that are not over yet
    for span in sorted(trace.spans, key=lambda one: (one.start, -one.duration)):
        of_lane = rows.setdefault(lane_of[span.span_id], [])
        row = next((one for one in of_lane if _fits(span, open_spans[id(one)])), None)
        if row is None:
            row = _Row(lane_of[span.span_id], len(of_lane) + 1, [])
            of_lane.append(row)
            open_spans[id(row)] = []
        row.spans.append(span)
        open_spans[id(row)].append(span)
    return [row for of_lane in rows.values() for row in of_lane]


def _fits(span: Span, still_open: list[Span]) -> bool:
    while still_open and still_open[-1].end <= span.start:
        still_open.pop()
    return not still_open or span.end <= still_open[-1].end


def _events(spans: list[Span]) -> Iterator[tuple[str, int, Span]]:
    """Openings and closings in the order of time, each closing after those inside."""
    still_open: list[Span] = []
    for span in spans:
        while still_open and still_open[-1].end <= span.start:
            closed = still_open.pop()
            yield "C", closed.end, closed
        still_open.append(span)
        yield "O", span.start, span
    while still_open:
        closed = still_open.pop()
        yield "C", closed.end, closed


def _title(row: _Row) -> str:
    process = f" pid {row.lane.process}" if row.lane.process else ""
    return f"{row.lane.service}{process} row {row.number}"
