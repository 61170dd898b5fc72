"""A trace as the page wants it: columns instead of objects, so that 100,000 spans are a few megabytes.

Times are nanoseconds since the trace began: they fit a number of JavaScript's, those since 1970 do not. What
only one span's details need is asked for span by span.
"""

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

from asynctrace.agent.analysis.critical import critical_path, shares
from asynctrace.agent.analysis.findings import Case, findings
from asynctrace.agent.analysis.lanes import lanes, walk
from asynctrace.agent.analysis.waits import Part, waits
from asynctrace.agent.spans import Trace
from asynctrace.agent.store import TraceStore
from asynctrace.agent.tree import Node, build

_KEPT_SPANS = 150_000  # some 150 MB


class TraceView:
    """A trace taken apart once, for all that the page asks about it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.by_id = {span.span_id: span for span in trace.spans}
        self._nodes = list(walk(build(trace.spans)))
        self._parts = waits(self._nodes)

    def columns(self) -> dict[str, Any]:
        """The spans, parents before children, and everything that is drawn of them."""
        texts, lane_of = _Table(), lanes(self._nodes)
        spans = [node.span for node, _ in self._nodes]
        index = {span.span_id: number for number, span in enumerate(spans)}
        numbers = {lane: number for number, lane in enumerate(dict.fromkeys(lane_of.values()))}
        start = self.trace.start
        columns = {
            "id": [str(span.span_id) for span in spans],
            "parent": [-1 if parent is None else index[parent.span.span_id] for _, parent in self._nodes],
            "start": [span.start - start if span.start else 0 for span in spans],
            "duration": [span.duration for span in spans],
            "name": texts.numbers(span.name for span in spans),
            "service": texts.numbers(span.service for span in spans),
            "resource": texts.numbers(span.resource for span in spans),
            "outcome": texts.numbers(span.meta.get("async.outcome", "") for span in spans),
            "kind": texts.numbers(span.meta.get("span.kind", "") for span in spans),
            "lane": [numbers[lane_of[span.span_id]] for span in spans],
            "error": [span.error for span in spans],
            "orphan": [int(node.orphan) for node, _ in self._nodes],
        }
        return {
            **self.trace.summary().to_json(),
            "texts": list(texts),
            "lanes": [{"service": lane.service, "process": lane.process} for lane in numbers],
            "columns": columns,
            "parts": [_part(index[one], part) for one, found in self._parts.items() for part in found],
            "links": [
                [index[span.span_id], index[link.span_id]]
                for span in spans
                for link in span.links
                if link.trace_id == self.trace.trace_id and link.span_id in index
            ],
        }

    def analysis(self) -> dict[str, Any]:
        """The critical path, where its time went, and the findings."""
        root = self._main_root()
        path = critical_path(root, self._parts) if root is not None else []
        found = findings(Case(self.trace, self._nodes, self._parts, path))
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
        return next((node for node, _ in self._nodes if node.span is first), None)


def _part(number: int, part: Part) -> list[Any]:
    return [number, part.kind, part.label, part.offset, part.duration]


class Views:
    """The traces that were looked at last, taken apart; as many as have room. For any thread."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._lock = Lock()
        self._views: OrderedDict[tuple[int, int], TraceView] = OrderedDict()  # by id and number of spans

    def find(self, text: str) -> TraceView:
        """The view of a trace as it is now; for `text` see `TraceStore.find`.

        Raises:
            TraceNotFoundError: there is none, or the text stands for several.
        """
        with (
            self._lock
        ):  # the page asks for columns and analysis one after the other: one of them does the work
            summary = self._store.summary(text)
            key = summary.trace_id, summary.span_count
            view = self._views.get(key)
            if view is None:
                view = self._views[key] = TraceView(self._store.find(summary.id))
            self._views.move_to_end(key)
            while len(self._views) > 1 and sum(count for _, count in self._views) > _KEPT_SPANS:
                self._views.popitem(last=False)
            return view


class _Table(dict[str, int]):
    """Texts by number, in the order of their numbers: most spans share theirs."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number

    def numbers(self, texts: Iterable[str]) -> list[int]:
        """The number of each; a text that is new gets the next one."""
        return [self[text] for text in texts]
