"""The test kit: what was traced, as plain data.

    from asynctrace.testing import Recorder

    with Recorder() as traces:
        await checkout()
    assert traces.names() == {"shop.checkout", "shop.price"}

Needs no agent, and never flushes ddtrace.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asynctrace._core.delivery import listeners
from asynctrace._core.outcome import ERROR, OK, OUTCOME_TAG

if TYPE_CHECKING:
    from types import TracebackType

    from ddtrace.trace import Span as DDSpan
    from typing_extensions import Self


@dataclass(frozen=True)
class RecordedLink:
    """A link of a recorded span."""

    trace_id: int
    span_id: int
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedSpan:
    """A span as it was handed to ddtrace's writer. Ids are ints (`trace_id` 128 bits), times ns since the epoch.

    `parent_id` is None for the first span of a trace; `tags` has both text (meta) and numbers (metrics); `end_ns` is
    None while the span is open.
    """

    name: str
    resource: str
    service: str | None
    type: str | None
    trace_id: int
    span_id: int
    parent_id: int | None
    links: tuple[RecordedLink, ...]
    error: int
    outcome: str
    tags: dict[str, Any]
    start_ns: int
    end_ns: int | None

    @property
    def duration_ns(self) -> int:
        """How long it took, in ns; 0 while it is open."""
        return 0 if self.end_ns is None else self.end_ns - self.start_ns


class Recorder:
    """Records every span of the process while it runs: ours, ddtrace's integrations', the user's own.

    `spans` holds what was handed to ddtrace's writer, after all filters, and nothing else; `open` what was started
    and has not ended. A `with` block, or `start()` and `stop()`.

    Example:
        >>> from asynctrace import span
        >>> from asynctrace.testing import Recorder
        >>> with Recorder() as traces:
        ...     with span("outer"), span("inner"):
        ...         pass
        >>> print(traces.tree())
        outer
          inner
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[int, DDSpan] = {}
        self._handed_over: list[DDSpan] = []

    def start(self) -> Self:
        """Begin to record. Recording twice at once is the same as once."""
        if self not in listeners:
            listeners.append(self)
        return self

    def stop(self) -> None:
        """Stop recording; what was recorded stays."""
        if self in listeners:
            listeners.remove(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    # -- as a listener of _core.delivery

    def opened(self, span: DDSpan) -> None:
        """A span became active."""
        with self._lock:
            self._opened[span.span_id] = span

    def handed_over(self, trace: list[DDSpan]) -> None:
        """Spans went to the writer."""
        with self._lock:
            self._handed_over.extend(trace)

    # -- what was recorded

    @property
    def spans(self) -> list[RecordedSpan]:
        """What was handed over, in the order of their starts."""
        with self._lock:
            handed_over = tuple(self._handed_over)
        return sorted(map(recorded, handed_over), key=lambda span: span.start_ns)

    @property
    def open(self) -> list[RecordedSpan]:
        """What was started and has not ended, in the order of their starts."""
        with self._lock:
            opened = [span for span in self._opened.values() if span.duration_ns is None]
        return sorted(map(recorded, opened), key=lambda span: span.start_ns)

    def names(self) -> set[str]:
        """The names of the spans handed over."""
        return {span.name for span in self.spans}

    def one(self, name: str) -> RecordedSpan:
        """The only span of that name. Raises `AssertionError`, with what there is, when there are none or more."""
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans named {name!r} in\n{self.tree() or '(nothing)'}")
        return found[0]

    def clear(self) -> None:
        """Forget what was recorded."""
        with self._lock:
            self._handed_over.clear()
            self._opened.clear()

    def tree(self) -> str:
        """The spans as text, children below their parents and in the order of their starts, two spaces a level."""
        spans = self.spans
        known = {(span.trace_id, span.span_id) for span in spans}
        children: dict[tuple[int, int | None], list[RecordedSpan]] = {}
        roots = []
        for span in spans:
            parent = (span.trace_id, span.parent_id)
            if parent in known:
                children.setdefault(parent, []).append(span)
            else:
                roots.append(span)
        lines: list[str] = []
        pending = [(span, 0) for span in reversed(roots)]
        while pending:
            span, depth = pending.pop()
            outcome = "" if span.outcome == OK else f" ({span.outcome})"
            lines.append(f"{'  ' * depth}{span.name}{outcome}")
            below = children.get((span.trace_id, span.span_id), [])
            pending.extend((child, depth + 1) for child in reversed(below))
        return "\n".join(lines)


def recorded(span: DDSpan) -> RecordedSpan:
    """A ddtrace span as plain data."""
    tags: dict[str, Any] = {**span.get_tags(), **span.get_metrics()}
    return RecordedSpan(
        name=span.name,
        resource=span.resource,
        service=span.service,
        type=span.span_type,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id or None,
        links=tuple(
            RecordedLink(link.trace_id, link.span_id, dict(link.attributes or {}))
            for link in span._get_links()
        ),
        error=span.error,
        outcome=str(tags.get(OUTCOME_TAG) or (ERROR if span.error else OK)),
        tags=tags,
        start_ns=span.start_ns,
        end_ns=None if span.duration_ns is None else span.start_ns + span.duration_ns,
    )
