"""A span as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asynctrace._core.outcome import ERROR, OK, OUTCOME_TAG
from asynctrace._core.span import Span
from asynctrace._core.tracer import is_remote

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan


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
    None while the span is open; `remote` says that its parent came in headers, from elsewhere.
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
    remote: bool = False

    @property
    def duration_ns(self) -> int:
        """How long it took, in ns; 0 while it is open."""
        return 0 if self.end_ns is None else self.end_ns - self.start_ns


def by_name(span: RecordedSpan) -> str:
    """What stands for a span in a tree, if nothing else is asked for."""
    return span.name


def is_open(span: Span | DDSpan) -> bool:
    """Whether a span of ours or of ddtrace's has not ended."""
    return not span.ended_ns if isinstance(span, Span) else span.duration_ns is None


def as_ddtrace(span: Span | DDSpan) -> DDSpan:
    """What ddtrace knows a span as."""
    return span.as_parent() if isinstance(span, Span) else span


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
        remote=is_remote(span),
    )
