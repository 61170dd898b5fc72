"""What arrived and what was dropped: a viewer that hides its gaps misleads."""

from threading import Lock

_COUNTED = (
    "payloads",  # bodies of traces that arrived, good or bad
    "bad_payloads",  # of these, nothing could be used
    "dropped_payloads",  # of these, dropped unread: too many waited, or they came from a stranger
    "spans",  # kept
    "bad_spans",
    "duplicate_spans",  # sent again by a tracer that had no answer in time
    "dropped_spans",  # one trace alone filled the store
    "evicted_traces",  # the oldest, to make room
    "evicted_spans",
    "forwarded_payloads",  # taken by the agent that `--forward` names
    "failed_forwards",
)
TROUBLE = (
    "bad_payloads",
    "dropped_payloads",
    "bad_spans",
    "dropped_spans",
    "evicted_traces",
    "failed_forwards",
)


class Counters:
    """What happened so far, by name; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._values: dict[str, int] = dict.fromkeys(_COUNTED, 0)

    def add(self, **amounts: int) -> None:
        """Adds to counters; the name of each is checked."""
        with self._lock:
            for name, amount in amounts.items():
                self._values[name] += amount

    def snapshot(self) -> dict[str, int]:
        """The values now."""
        with self._lock:
            return dict(self._values)
