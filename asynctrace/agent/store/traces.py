"""Traces by arrival: chunks of any process in any order become one trace, within a bound in bytes.

Spans are written as they come and read when somebody looks; what lists need is kept beside them, so that a
list reads no spans. See `entries` for how traces are told apart.
"""

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Condition

from asynctrace.agent.protocol import Chunk
from asynctrace.agent.spans import LOW_64, Span, Summary, Trace
from asynctrace.agent.store.counters import Counters
from asynctrace.agent.store.database import connect, signed
from asynctrace.agent.store.entries import Entries, Entry
from asynctrace.agent.store.packing import pack, pack_ids, unpack

MIB = 1 << 20
DEFAULT_MAX_BYTES = 64 * MIB
_PIECE = 1_000  # spans packed together: what one look decodes at least, and the grain of the bound
_ROW_BYTES = 300  # about what the database needs beside a chunk's body


class TraceNotFoundError(LookupError):
    """No trace has this id, or more than one has; `candidates` holds the ids in the second case."""

    def __init__(self, message: str, candidates: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.candidates = list(candidates)


class TraceStore:
    """Traces in a SQLite database, oldest evicted first; every method may be called from any thread.

        store = TraceStore(max_bytes=64 << 20)
        trace = store.wait_for(lambda trace: trace.errors > 0, timeout=5)

    Args:
        max_bytes: the bound on what is stored, in bytes.
        path: a file that keeps it; in memory when left out.

    Raises:
        AgentError: the file cannot be used.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, path: str | Path | None = None) -> None:
        self.max_bytes = max_bytes
        self.counters = Counters()
        self._changed = Condition()
        self._connection = connect(path)
        weakref.finalize(self, self._connection.close)  # a store may be read when its agent has stopped
        self._entries = Entries(self._connection)
        self._bytes, self._version = self._connection.execute(
            "SELECT coalesce(sum(size), 0), coalesce(max(version), 0) FROM trace"
        ).fetchone()
        self._listeners: list[Callable[[], object]] = []

    # Writing

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Takes chunks in, and wakes those who wait."""
        with self._changed:
            self._connection.execute("BEGIN")
            before = self._bytes, self._version
            try:
                for chunk in chunks:
                    self._add(chunk)
                self._entries.write()
                self._connection.execute("COMMIT")
            except BaseException:  # the disk is full, say
                self._connection.execute("ROLLBACK")
                self._entries.forget_cache()
                self._bytes, self._version = before
                raise
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _add(self, chunk: Chunk) -> None:
        entry = self._entries.entry_for(chunk)
        ids = self._entries.ids_of(entry)
        new = {span.span_id: span for span in reversed(chunk.spans) if span.span_id not in ids}
        spans = list(reversed(new.values()))
        self.counters.add(duplicate_spans=len(chunk.spans) - len(spans))
        for first in range(0, len(spans), _PIECE):
            self._store(entry, spans[first : first + _PIECE], ids)

    def _store(self, entry: Entry, spans: list[Span], ids: set[int]) -> None:
        packed = pack(spans)
        size = len(packed) + 8 * len(spans) + _ROW_BYTES
        if self._bytes + size > self.max_bytes:
            self._make_room(size, keep=entry)
        if self._bytes + size > self.max_bytes:
            self.counters.add(dropped_spans=len(spans))
            if not entry.spans:  # of a trace that is not here, nothing is told
                return
            entry.dropped += len(spans)
            spans, packed, size = [], b"", 0
        else:
            new_ids = [span.span_id for span in spans]
            self._connection.execute(
                "INSERT INTO chunk VALUES (?, ?, ?)", (entry.key, pack_ids(new_ids), packed)
            )
            self._connection.executemany(
                "INSERT INTO link VALUES (?, ?, ?, ?)",
                [
                    (entry.key, signed(span.span_id), signed(link.trace_id & LOW_64), signed(link.span_id))
                    for span in spans
                    for link in span.links
                ],
            )
            ids.update(new_ids)
        entry.absorb(spans)
        entry.size += size
        self._bytes += size
        self._version += 1
        entry.version = self._version
        self._entries.changed(entry, len(spans))
        self.counters.add(spans=len(spans))

    def _make_room(self, size: int, keep: Entry) -> None:
        self._entries.write()  # so that the oldest can be asked of the database
        while self._bytes + size > self.max_bytes:
            oldest = next(self._entries.select("WHERE key <> ? ORDER BY version LIMIT 1", keep.key), None)
            if oldest is None:
                return
            self._entries.drop(oldest)
            self._bytes -= oldest.size
            self.counters.add(evicted_traces=1, evicted_spans=oldest.spans)

    def close(self) -> None:
        """Closes the database; nothing can be read afterwards."""
        with self._changed:
            self._connection.close()

    # Reading

    def __len__(self) -> int:
        with self._changed:
            (count,) = self._connection.execute("SELECT count(*) FROM trace").fetchone()
            return int(count)

    @property
    def stored_bytes(self) -> int:
        """How much is stored now."""
        with self._changed:
            return int(self._bytes)

    @property
    def version(self) -> int:
        """Grows with every change; see `changed_since`."""
        with self._changed:
            return int(self._version)

    def summaries(self, limit: int = -1) -> list[Summary]:
        """One line for each trace, the one that arrived last first; at most `limit`, all when it is negative."""
        with self._changed:
            return [entry.summary() for entry in self._entries.select("ORDER BY key DESC LIMIT ?", limit)]

    def each_summary(self) -> Iterator[Summary]:
        """As `summaries`, for those who may stop early; what arrives meanwhile is not in it."""
        before = 1 << 62
        while True:
            with self._changed:
                batch = list(self._entries.select("WHERE key < ? ORDER BY key DESC LIMIT 500", before))
            if not batch:
                return
            yield from (entry.summary() for entry in batch)
            before = batch[-1].key

    def summary(self, text: str) -> Summary:
        """The line of one trace; for `text` see `find`."""
        with self._changed:
            return self._find(text).summary()

    def summaries_since(self, version: int, limit: int = -1) -> tuple[list[Summary], int]:
        """The lines of the traces that changed after `version`, in that order, and the version now.

        At most `limit`, those that changed last; all when it is negative.
        """
        with self._changed:
            found = self._entries.select("WHERE version > ? ORDER BY version DESC LIMIT ?", version, limit)
            return [entry.summary() for entry in found][::-1], self._version

    def traces(self, limit: int = -1) -> list[Trace]:
        """The traces, the one that changed last first; at most `limit`, all when it is negative."""
        with self._changed:
            return [self._read(one) for one in self._entries.select("ORDER BY version DESC LIMIT ?", limit)]

    def last(self) -> Trace | None:
        """The trace that changed last, or None."""
        return next(iter(self.traces(1)), None)

    def find(self, text: str) -> Trace:
        """The trace with this id: 32 hex digits, their beginning or end, or the lower half in decimal.

        `"last"` is the trace that changed last. The id ddtrace makes begins with the second it was made in, so of
        two traces the ends differ sooner.

        Raises:
            TraceNotFoundError: there is none, or the text stands for several.
        """
        with self._changed:
            return self._read(self._find(text))

    def links_to(self, trace_id: int) -> Iterator[tuple[int, int, int]]:
        """Links from anywhere to spans of a trace: (trace id and span id they start from, span id they lead to)."""
        with self._changed:
            found = self._connection.execute(
                "SELECT trace.id, link.span, link.to_span FROM link JOIN trace ON trace.key = link.trace "
                "WHERE link.to_low = ? LIMIT 1000",
                (signed(trace_id & LOW_64),),
            ).fetchall()
        return ((int(one, 16), span & LOW_64, to_span & LOW_64) for one, span, to_span in found)

    def _find(self, text: str) -> Entry:
        wanted = text.strip().lower().removeprefix("0x")
        found: list[Entry] = []
        if wanted == "last":
            found = list(self._entries.select("ORDER BY version DESC LIMIT 1"))
            if not found:
                raise TraceNotFoundError("no trace has arrived yet")
        elif wanted and not set(wanted) - set("0123456789abcdef"):
            pattern = f"{wanted}%", f"%{wanted}"
            found = list(self._entries.select("WHERE id LIKE ? OR id LIKE ? LIMIT 11", *pattern))
            if not found and wanted.isdecimal() and int(wanted) <= LOW_64:
                found = list(self._entries.select("WHERE low = ? LIMIT 11", signed(int(wanted))))
        if not found:
            raise TraceNotFoundError(f"no trace {text}")
        if len(found) > 1:
            ids = [f"{entry.trace_id:032x}" for entry in found]
            raise TraceNotFoundError(f"{len(found)} traces have an id like {text}", ids)
        return found[0]

    def _bodies(self, entry: Entry) -> list[bytes]:
        found = self._connection.execute(
            "SELECT body FROM chunk WHERE trace = ? ORDER BY rowid", (entry.key,)
        )
        return [body for (body,) in found]

    def _read(self, entry: Entry) -> Trace:
        spans = [span for body in self._bodies(entry) for span in unpack(body, entry.trace_id)]
        spans.sort(key=lambda span: (span.start, -span.duration))
        return Trace(entry.trace_id, spans, entry.dropped)

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
            found = self._entries.select("WHERE version > ? ORDER BY version", version)
            return [self._read(entry) for entry in list(found)], self._version

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
                changed, version = self.changed_since(version)
            for trace in changed:
                if wanted(trace):
                    return trace
        raise TimeoutError(f"no such trace within {timeout:g} s; {self.describe()}")

    def describe(self) -> str:
        """The traces in a few words, for messages."""
        newest = self.summaries(5)
        if not newest:
            return "no trace has arrived"
        told = [f"{one.id}: {one.span_count} spans of {', '.join(one.services)}" for one in newest]
        return f"{len(self)} arrived, the last: " + "; ".join(told)
