"""What a line of the list says beyond its summary: how many findings the trace has, and where its time went.

That takes a look at the spans, so it is done for small traces only, for so many at a time, and remembered as
long as a trace does not grow.
"""

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

from asynctrace.agent.page_data import TraceView
from asynctrace.agent.spans import Summary
from asynctrace.agent.store import TraceNotFoundError, TraceStore

_MOST_SPANS = 500
_SPANS_AT_A_TIME = 5_000  # about a tenth of a second
_REMEMBERED = 2_000

_Glance = dict[str, Any]


class Glances:
    """Lines of the list, with a glance at the traces behind them; for any thread."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._lock = Lock()
        self._known: OrderedDict[tuple[int, int], _Glance] = OrderedDict()  # by id and number of spans

    def lines(self, summaries: Iterable[Summary]) -> list[dict[str, Any]]:
        """Each as JSON; `findings` and `shares` are absent where nobody looked."""
        left = _SPANS_AT_A_TIME
        lines = []
        for summary in summaries:
            key = summary.trace_id, summary.span_count
            with self._lock:
                glance = self._known.get(key)
            if glance is None and summary.span_count <= min(left, _MOST_SPANS):
                left -= summary.span_count
                glance = self._look(summary)
                self._remember(key, glance)
            lines.append({**summary.to_json(), **(glance or {})})
        return lines

    def _look(self, summary: Summary) -> _Glance:
        try:
            told = TraceView(self._store.find(summary.id)).analysis()
        except TraceNotFoundError:  # evicted meanwhile
            return {}
        return {"findings": len(told["findings"]), "shares": told["shares"]}

    def _remember(self, key: tuple[int, int], glance: _Glance) -> None:
        with self._lock:
            self._known[key] = glance
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
