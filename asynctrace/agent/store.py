"""Traces in memory: chunks of any process in any order become one trace, within a bound in bytes.

A trace is known by its 128-bit id. Every span carries the lower half; the upper one is on the first span of a
chunk only, and absent when a hop in between knew 64 bits. So chunks are found by the lower half, and told
apart by the upper one when both say it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Condition, Lock

from asynctrace.agent.protocol import Chunk
from asynctrace.agent.spans import Span, Trace
from asynctrace.agent.wire import size_of

MIB = 1 << 20
DEFAULT_MAX_BYTES = 64 * MIB
_COUNTED = (
    "payloads",  # bodies of traces that arrived, good or bad
    "bad_payloads",  # of these, nothing could be used
    "dropped_payloads",  # of these, dropped unread: too many waited, or they came from a stranger
    "spans",  # kept
    "bad_spans",
    "duplicate_spans",  # sent again by a tracer that had no answer in time
    "dropped_spans",  # one trace alone filled the memory
    "evicted_traces",  # the oldest, to make room
    "evicted_spans",
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


class TraceNotFoundError(LookupError):
    """No trace has this id, or more than one has; `candidates` holds the ids in the second case."""

    def __init__(self, message: str, candidates: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.candidates = list(candidates)


@dataclass(slots=True, eq=False)
class _Entry:
    low: int
    high: int | None
    spans: dict[int, Span] = field(default_factory=dict)
    size: int = 0
    dropped: int = 0
    version: int = 0

    @property
    def trace_id(self) -> int:
        return (self.high or 0) << 64 | self.low

    def snapshot(self) -> Trace:
        spans = sorted(self.spans.values(), key=lambda span: (span.start, -span.duration))
        return Trace(self.trace_id, spans, self.dropped)


class TraceStore:
    """Traces by arrival, oldest evicted first; every method may be called from any thread.

        store = TraceStore(max_bytes=64 << 20)
        trace = store.wait_for(lambda trace: trace.errors > 0, timeout=5)

    Args:
        max_bytes: the bound on the estimated memory of all spans, in bytes.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.counters = Counters()
        self._changed = Condition()
        self._entries: OrderedDict[_Entry, None] = OrderedDict()  # the one that changed last is last
        self._by_low: dict[int, list[_Entry]] = {}
        self._bytes = 0
        self._version = 0
        self._listeners: list[Callable[[], object]] = []

    # Writing

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Takes chunks in, and wakes those who wait."""
        with self._changed:
            for chunk in chunks:
                self._add(chunk)
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _add(self, chunk: Chunk) -> None:
        entry = self._entry_for(chunk)
        new = {span.span_id: span for span in reversed(chunk.spans) if span.span_id not in entry.spans}
        repeated = len(chunk.spans) - len(new)
        size = chunk.size if not repeated else sum(size_of(span) for span in new.values())
        self._make_room(size, keep=entry)
        if self._bytes + size > self.max_bytes:
            new, size = self._as_many_as_fit(entry, new)
        for span in reversed(new.values()):
            span.trace_id = entry.trace_id
            entry.spans[span.span_id] = span
        entry.size += size
        self._bytes += size
        self.counters.add(spans=len(new), duplicate_spans=repeated)
        if new:
            self._version += 1
            entry.version = self._version
            self._entries.move_to_end(entry)
        elif not entry.spans:
            self._forget(entry)

    def _entry_for(self, chunk: Chunk) -> _Entry:
        alike = self._by_low.setdefault(chunk.low, [])
        for entry in reversed(alike):
            if chunk.high is None or entry.high == chunk.high:
                return entry
        for entry in alike:
            if entry.high is None:  # now it becomes known
                entry.high = chunk.high
                for span in entry.spans.values():
                    span.trace_id = entry.trace_id
                return entry
        entry = _Entry(chunk.low, chunk.high)
        alike.append(entry)
        self._entries[entry] = None
        return entry

    def _make_room(self, size: int, keep: _Entry) -> None:
        while self._bytes + size > self.max_bytes:
            oldest = next((entry for entry in self._entries if entry is not keep), None)
            if oldest is None:
                return
            self.counters.add(evicted_traces=1, evicted_spans=len(oldest.spans))
            self._forget(oldest)

    def _as_many_as_fit(self, entry: _Entry, new: dict[int, Span]) -> tuple[dict[int, Span], int]:
        fitting: dict[int, Span] = {}
        total = 0
        for span_id, span in new.items():
            size = size_of(span)
            if self._bytes + total + size <= self.max_bytes:
                fitting[span_id] = span
                total += size
        entry.dropped += len(new) - len(fitting)
        self.counters.add(dropped_spans=len(new) - len(fitting))
        return fitting, total

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry]
        self._bytes -= entry.size
        alike = self._by_low[entry.low]
        alike.remove(entry)
        if not alike:
            del self._by_low[entry.low]

    # Reading

    def __len__(self) -> int:
        with self._changed:
            return len(self._entries)

    @property
    def estimated_bytes(self) -> int:
        """About how much memory the spans take now."""
        with self._changed:
            return self._bytes

    def traces(self, limit: int | None = None) -> list[Trace]:
        """The traces, the one that changed last first; at most `limit`."""
        with self._changed:
            entries = list(reversed(self._entries))[:limit]
            return [entry.snapshot() for entry in entries]

    def last(self) -> Trace | None:
        """The trace that changed last, or None."""
        return next(iter(self.traces(1)), None)

    def find(self, text: str) -> Trace:
        """The trace with this id: 32 hex digits, their beginning or end, or the lower half in decimal.

        The id ddtrace makes begins with the second it was made in, so of two traces the ends differ sooner.

        Raises:
            TraceNotFoundError: there is none, or the text stands for several.
        """
        wanted = text.strip().lower().removeprefix("0x")
        with self._changed:
            ids = {f"{entry.trace_id:032x}": entry for entry in self._entries}
            found = [one for one in ids if wanted and (one.startswith(wanted) or one.endswith(wanted))]
            if not found and wanted.isdecimal() and wanted.isascii():
                found = [one for one, entry in ids.items() if str(entry.low) == wanted]
            if len(found) == 1:
                return ids[found[0]].snapshot()
        if found:
            raise TraceNotFoundError(f"{len(found)} traces have an id like {text}", found)
        raise TraceNotFoundError(f"no trace {text}")

    # Waiting

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Calls `listener` after every change, in the thread that made it; returns the way to stop that."""
        with self._changed:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._changed:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def changed_since(self, version: int) -> tuple[list[Trace], int]:
        """The traces that changed after `version`, in that order, and the version now; begin with 0."""
        with self._changed:
            return self._since(version), self._version

    def _since(self, version: int) -> list[Trace]:
        changed = []
        for entry in reversed(self._entries):
            if entry.version <= version:
                break
            changed.append(entry.snapshot())
        return changed[::-1]

    def wait_for(self, wanted: Callable[[Trace], bool], timeout: float = 10.0) -> Trace:
        """Blocks until a trace satisfies `wanted`, and returns it; one that is here already counts.

        Raises:
            TimeoutError: none did within `timeout` seconds; says which traces there are.
        """
        deadline = time.monotonic() + timeout
        version = 0
        while True:
            with self._changed:
                if self._version == version and not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    break
                changed, version = self._since(version), self._version
            for trace in changed:
                if wanted(trace):
                    return trace
        raise TimeoutError(f"no such trace within {timeout:g} s; {self.describe()}")

    def describe(self) -> str:
        """The traces in a few words, for messages."""
        newest = self.traces(5)
        if not newest:
            return "no trace has arrived"
        told = [f"{trace.id}: {len(trace.spans)} spans of {', '.join(trace.services)}" for trace in newest]
        return f"{len(self)} arrived, the last: " + "; ".join(told)
