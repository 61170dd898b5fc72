"""A trace as the page wants it: columns instead of objects, so that 100,000 spans are a few megabytes.

Times are nanoseconds since the trace began: they fit a number of JavaScript's, those since 1970 do not. What
only one span's details need is asked for span by span.
"""

from typing import Any

from asynctrace.agent.analysis.critical import critical_path, shares
from asynctrace.agent.analysis.findings import Case, findings
from asynctrace.agent.analysis.lanes import lanes, walk
from asynctrace.agent.analysis.waits import Part, parts
from asynctrace.agent.spans import Trace
from asynctrace.agent.tree import Node, build


class TraceView:
    """A trace taken apart once, for all that the page asks about it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.by_id = {span.span_id: span for span in trace.spans}
        self._roots = build(trace.spans)
        self._parts = {
            node.span.span_id: found for node, parent in walk(self._roots) if (found := parts(node, parent))
        }

    def columns(self) -> dict[str, Any]:
        """The spans, parents before children, and everything that is drawn of them."""
        texts, index = _Table(), {}
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        lane_of, lane_numbers = lanes(self._roots), dict[Any, int]()
        for number, (node, parent) in enumerate(walk(self._roots)):
            span = node.span
            index[span.span_id] = number
            lane = lane_numbers.setdefault(lane_of[span.span_id], len(lane_numbers))
            row = (
                str(span.span_id), -1 if parent is None else index[parent.span.span_id],
                span.start - self.trace.start if span.start else 0, span.duration, texts.number(span.name),
                texts.number(span.service), texts.number(span.resource), lane, span.error,
                texts.number(span.meta.get("async.outcome", "")), texts.number(span.meta.get("span.kind", "")),
                int(node.orphan),
            )  # fmt: skip
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        return {
            **self.trace.summary().to_json(),
            "texts": texts.texts,
            "lanes": [{"service": lane.service, "process": lane.process} for lane in lane_numbers],
            "columns": columns,
            "parts": [_part(index[one], part) for one, found in self._parts.items() for part in found],
            "links": [
                [index[span.span_id], index[link.span_id]]
                for span in self.trace.spans
                for link in span.links
                if link.trace_id == self.trace.trace_id and link.span_id in index
            ],
        }

    def analysis(self) -> dict[str, Any]:
        """The critical path, where its time went, and the findings."""
        root = self._main_root()
        path = critical_path(root, self._parts) if root is not None else []
        found = findings(Case(self.trace, self._roots, self._parts, path))
        start = self.trace.start
        return {
            "path": [[str(step.span.span_id), step.start - start, step.end - start, step.kind] for step in path],
            "shares": [{"kind": one.kind, "label": one.label, "service": one.service, "time": one.time}
                       for one in shares(path)],
            "findings": [{"kind": one.kind, "title": one.title, "text": one.text, "time": one.time,
                          "spans": [str(span_id) for span_id in one.spans]} for one in found],
        }  # fmt: skip

    def _main_root(self) -> Node | None:
        first = self.trace.root
        return next((node for node in self._roots if node.span is first), None)


_COLUMNS = (
    "id", "parent", "start", "duration", "name", "service", "resource", "lane", "error", "outcome", "kind", "orphan",
)  # fmt: skip


def _part(number: int, part: Part) -> list[Any]:
    return [number, part.kind, part.label, part.offset, part.duration]


class _Table:
    """Texts by number: most spans share theirs."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return found
