"""What the store knows of each trace beside its spans: a line of the list, kept while chunks come in.

A trace is known by its 128-bit id. Every span carries the lower half; the upper one is on the first span of a
chunk only, and absent when a hop in between knew 64 bits. So entries are found by the lower half, and told
apart by the upper one when both say it.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from asynctrace.agent.protocol import Chunk
from asynctrace.agent.spans import SAMPLING_PRIORITY, USER_REJECT, Span, Summary
from asynctrace.agent.store.database import signed, unsigned
from asynctrace.agent.store.packing import unpack_ids

_CACHED_ENTRIES = 4_000
_CACHED_IDS = 500_000  # span ids; a set takes about 100 bytes for each
_SEPARATOR = "\n"  # between the names of services; the decoder leaves no line feeds in them


@dataclass(slots=True, eq=False)
class Entry:
    """One trace: its row in the table `trace`, and the ids of its spans once they are needed."""

    key: int
    low: int
    high: int | None
    version: int = 0
    size: int = 0
    dropped: int = 0
    spans: int = 0
    errors: int = 0
    sampled_out: bool = False
    start: int = 0
    ended: int = 0
    root_start: int = 0
    root_parent: int = -1  # no root yet
    name: str = ""
    service: str = ""
    resource: str = ""
    services: set[str] = field(default_factory=set)
    ids: set[int] | None = None

    @property
    def trace_id(self) -> int:
        """All 128 bits, as far as they are known."""
        return (self.high or 0) << 64 | self.low

    def absorb(self, spans: Iterable[Span]) -> None:
        """Counts spans in."""
        for span in spans:
            self.spans += 1
            self.services.add(span.service.replace(_SEPARATOR, " "))
            if span.error:
                self.errors += 1
            if span.metrics.get(SAMPLING_PRIORITY) == USER_REJECT:
                self.sampled_out = True
            if span.start:
                self.start = min(self.start or span.start, span.start)
                self.ended = max(self.ended, span.end)
            if (
                self.root_parent < 0
                or (not span.parent_id and self.root_parent)
                or (bool(span.parent_id) == bool(self.root_parent) and span.start < self.root_start)
            ):
                self.root_parent, self.root_start = bool(span.parent_id), span.start
                self.name, self.service, self.resource = span.name, span.service, span.resource

    def summary(self) -> Summary:
        """The trace in one line of the list."""
        return Summary(
            trace_id=self.trace_id, name=self.name, service=self.service, resource=self.resource,
            services=sorted(self.services), span_count=self.spans, dropped_spans=self.dropped, start=self.start,
            duration=max(self.ended - self.start, 0), errors=self.errors, sampled_out=self.sampled_out,
        )  # fmt: skip

    def row(self) -> tuple[object, ...]:
        """Its row, with the whole id as text in front."""
        return (
            f"{self.trace_id:032x}", self.key, signed(self.low), None if self.high is None else signed(self.high),
            self.version, self.size, self.dropped, self.spans, self.errors, self.sampled_out, self.start, self.ended,
            self.root_start, self.root_parent, self.name, self.service, self.resource,
            _SEPARATOR.join(sorted(self.services)),
        )  # fmt: skip


_FIELDS = [one.name for one in fields(Entry) if one.name != "ids"]  # the columns, in their order
_COLUMNS = ", ".join(_FIELDS)


def from_row(row: tuple[Any, ...]) -> Entry:
    """The entry of a row of `_COLUMNS`."""
    entry = Entry(*row[: _FIELDS.index("services")])
    entry.low = unsigned(entry.low)
    entry.high = None if entry.high is None else unsigned(entry.high)
    entry.sampled_out = bool(entry.sampled_out)
    entry.services = set(row[-1].split(_SEPARATOR))
    return entry


class Entries:
    """All entries: those in use in memory, the others in the database. For one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cache: OrderedDict[int, list[Entry]] = OrderedDict()  # by lower half; the one used last is last
        self._cached_ids = 0
        self._changed: dict[int, Entry] = {}
        (self._last_key,) = connection.execute("SELECT coalesce(max(key), 0) FROM trace").fetchone()

    def forget_cache(self) -> None:
        """After a failed transaction: what is in memory is not what is in the database."""
        self._cache.clear()
        self._changed.clear()
        self._cached_ids = 0

    def entry_for(self, chunk: Chunk) -> Entry:
        """The entry of a chunk's trace; a new one when there is none."""
        alike = self._with_low(chunk.low)
        for entry in reversed(alike):
            if chunk.high is None or entry.high == chunk.high:
                return entry
        for entry in alike:
            if entry.high is None:  # now it becomes known
                entry.high = chunk.high
                return entry
        self._last_key += 1
        entry = Entry(self._last_key, chunk.low, chunk.high, ids=set())
        alike.append(entry)
        return entry

    def ids_of(self, entry: Entry) -> set[int]:
        """The ids of its spans, to be added to."""
        if entry.ids is None:
            found = self._connection.execute("SELECT ids FROM chunk WHERE trace = ?", (entry.key,))
            entry.ids = {span_id for (packed,) in found for span_id in unpack_ids(packed)}
            self._cached_ids += len(entry.ids)
        return entry.ids

    def changed(self, entry: Entry, new_ids: int) -> None:
        """Its row must be written, and the cache has grown."""
        self._changed[entry.key] = entry
        self._cached_ids += new_ids

    def write(self) -> None:
        """Writes the rows that changed, and trims the cache."""
        marks = ", ".join("?" * (len(_FIELDS) + 1))
        self._connection.executemany(
            f"INSERT OR REPLACE INTO trace (id, {_COLUMNS}) VALUES ({marks})",  # noqa: S608  (constants)
            [entry.row() for entry in self._changed.values()],
        )
        self._changed.clear()
        while len(self._cache) > _CACHED_ENTRIES or (self._cached_ids > _CACHED_IDS and len(self._cache) > 1):
            _, alike = self._cache.popitem(last=False)
            self._cached_ids -= sum(len(entry.ids or ()) for entry in alike)

    def drop(self, entry: Entry) -> None:
        """Deletes a trace with everything that is known of it."""
        alike = self._cache.get(entry.low, [])
        for cached in [one for one in alike if one.key == entry.key]:
            alike.remove(cached)
            self._cached_ids -= len(cached.ids or ())
        self._changed.pop(entry.key, None)
        for table, column in (("trace", "key"), ("chunk", "trace"), ("link", "trace")):
            self._connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (entry.key,))  # noqa: S608  (constants)

    def select(self, tail: str, *values: object) -> Iterator[Entry]:
        """Entries by the rest of a query, from the database: what `write()` wrote."""
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM trace {tail}", values)  # noqa: S608  (constants)
        return map(from_row, found)

    def _with_low(self, low: int) -> list[Entry]:
        alike = self._cache.get(low)
        if alike is None:
            alike = self._cache[low] = list(self.select("WHERE low = ? ORDER BY key", signed(low)))
        self._cache.move_to_end(low)
        return alike
