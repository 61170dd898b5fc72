"""What a span, a link and a trace are in the agent: plain data, standard library only.

Times are nanoseconds: `start` since the Unix epoch, `duration` of the span. Ids are integers here and text in
JSON, where readers that know only floats would round a 64-bit number: trace ids as 32 hex digits, span ids
in decimal, as Datadog writes them in logs.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

LOW_64 = (1 << 64) - 1
LOW_128 = (1 << 128) - 1

# Datadog's convention for the sampler's decision: 2 and 1 keep, 0 and -1 do not; -1 is a rule of the user.
SAMPLING_PRIORITY = "_sampling_priority_v1"
USER_REJECT = -1


@dataclass(slots=True, frozen=True)
class Link:
    """A reference from a span to one of another trace (or of its own), which is not its parent."""

    trace_id: int
    span_id: int
    attributes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The link as the read API writes it."""
        return {
            "trace_id": f"{self.trace_id:032x}",
            "span_id": str(self.span_id),
            "attributes": self.attributes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Link":
        """A link from what `to_json` wrote."""
        attributes = {str(key): str(value) for key, value in (data.get("attributes") or {}).items()}
        return cls(int(data["trace_id"], 16) & LOW_128, int(data["span_id"]) & LOW_64, attributes)


@dataclass(slots=True)
class Span:
    """One finished piece of work, with the fields of Datadog's trace protocol."""

    trace_id: int
    span_id: int
    parent_id: int = 0
    name: str = ""
    service: str = ""
    resource: str = ""
    type: str = ""
    start: int = 0
    duration: int = 0
    error: int = 0
    meta: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    @property
    def end(self) -> int:
        """When it ended, in nanoseconds since the epoch."""
        return self.start + self.duration

    def to_json(self) -> dict[str, Any]:
        """The span as the read API writes it."""
        return {
            "trace_id": f"{self.trace_id:032x}",
            "span_id": str(self.span_id),
            "parent_id": str(self.parent_id),
            "name": self.name,
            "service": self.service,
            "resource": self.resource,
            "type": self.type,
            "start": self.start,
            "duration": self.duration,
            "error": self.error,
            "meta": self.meta,
            "metrics": self.metrics,
            "links": [link.to_json() for link in self.links],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Span":
        """A span from what `to_json` wrote."""
        return cls(
            trace_id=int(data["trace_id"], 16),
            span_id=int(data["span_id"]),
            parent_id=int(data["parent_id"]),
            name=data["name"],
            service=data["service"],
            resource=data["resource"],
            type=data["type"],
            start=data["start"],
            duration=data["duration"],
            error=data["error"],
            meta=data["meta"],
            metrics=data["metrics"],
            links=tuple(Link.from_json(link) for link in data["links"]),
        )


@dataclass(slots=True)
class Summary:
    """A trace in one line of a list. `start` and `duration` are those of all its spans together."""

    trace_id: int
    name: str
    service: str
    resource: str
    services: list[str]
    span_count: int
    dropped_spans: int
    start: int
    duration: int
    errors: int
    sampled_out: bool

    @property
    def id(self) -> str:
        """The 128-bit trace id as 32 hex digits."""
        return f"{self.trace_id:032x}"

    def to_json(self) -> dict[str, Any]:
        """The line as the read API writes it."""
        return {**asdict(self), "trace_id": self.id}


@dataclass
class Trace:
    """The spans of one trace that have arrived so far; a snapshot that does not change any more.

    `dropped` counts the spans that arrived and were not kept, because the trace alone filled the memory.
    """

    trace_id: int
    spans: list[Span]
    dropped: int = 0

    @property
    def id(self) -> str:
        """The 128-bit trace id as 32 hex digits."""
        return f"{self.trace_id:032x}"

    @cached_property
    def services(self) -> list[str]:
        """The names of the services in it, sorted."""
        return sorted({span.service for span in self.spans})

    @cached_property
    def root(self) -> Span | None:
        """The span the trace began with: the first without a parent, or else whose parent is absent."""
        ids = {span.span_id for span in self.spans}
        candidates = (
            [span for span in self.spans if span.parent_id == 0]
            or [span for span in self.spans if span.parent_id not in ids]
            or self.spans
        )
        return min(candidates, key=lambda span: span.start, default=None)

    @cached_property
    def start(self) -> int:
        """When its first span started. One without a start (0) has no say: the axis would begin in 1970."""
        return min((span.start for span in self.spans if span.start), default=0)

    @cached_property
    def end(self) -> int:
        """When its last span ended."""
        return max((span.end for span in self.spans if span.start), default=self.start)

    @property
    def duration(self) -> int:
        """From the first start to the last end, over all processes, in nanoseconds."""
        return self.end - self.start

    @cached_property
    def errors(self) -> int:
        """How many of its spans are errors."""
        return sum(1 for span in self.spans if span.error)

    @cached_property
    def sampled_out(self) -> bool:
        """Whether a sampling rule of the user decided against it: Datadog would not keep this trace."""
        return any(span.metrics.get(SAMPLING_PRIORITY) == USER_REJECT for span in self.spans)

    def summary(self) -> Summary:
        """The trace in one line."""
        root = self.root
        return Summary(
            trace_id=self.trace_id, name=root.name if root else "", service=root.service if root else "",
            resource=root.resource if root else "", services=self.services, span_count=len(self.spans),
            dropped_spans=self.dropped, start=self.start, duration=self.duration, errors=self.errors,
            sampled_out=self.sampled_out,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The whole trace as the read API writes it: the summary and `spans`."""
        return {**self.summary().to_json(), "spans": [span.to_json() for span in self.spans]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Trace":
        """A trace from what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        spans = [Span.from_json(span) for span in data["spans"]]
        return cls(int(data["trace_id"], 16), spans, data["dropped_spans"])
