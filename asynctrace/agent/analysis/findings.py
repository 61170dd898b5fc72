"""What in a trace is worth a look, the dearest first: each check is one function that knows one ailment."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from asynctrace.agent.analysis.critical import Step
from asynctrace.agent.analysis.waits import Part
from asynctrace.agent.spans import Span, Trace
from asynctrace.agent.text import clean, duration, plural
from asynctrace.agent.tree import Node, error_text

_MANY = 5  # calls alike, one after the other, that one call could have done
_LEAST_SHARE = 0.05  # of the trace, below which a wait is not worth a word
_LEAST = 1_000_000  # nanoseconds, likewise
_ALIKE = ("sql", "http", "redis", "cassandra", "mongodb", "memcached", "elasticsearch")
_MOST = 0.8
_MAX_SPANS = 200  # that a finding names


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a look.

    `kind` is `errors`, `repeated`, `pool`, `queue`, `orphans` or `late`; `time` how much of the critical path
    it may be worth, in nanoseconds; `spans` the ids of those it is about, the first to begin with.
    """

    kind: str
    title: str
    text: str
    time: int = 0
    spans: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Case:
    """What a check may look at; `nodes` are all spans with their parents, as `lanes.walk` gives them."""

    trace: Trace
    nodes: list[tuple[Node, Node | None]]
    parts: dict[int, list[Part]]
    path: list[Step]


def findings(case: Case) -> list[Finding]:
    """All that was found: errors first, then by the time that could be won."""
    found = [one for check in _CHECKS for one in check(case)]
    return sorted(found, key=lambda one: (one.kind != "errors", -one.time))


def errors(case: Case) -> Iterator[Finding]:
    """Errors where they came from: a span whose child failed in the same way only passed it on."""
    alike: dict[str, list[Span]] = defaultdict(list)
    for node, _ in case.nodes:
        if node.span.error:
            text = error_text(node.span)
            passed_on = any(
                child.span.error and error_text(child.span) in (text, "") for child in node.children
            )
            if not passed_on:
                alike[text].append(node.span)
    for text, spans in alike.items():
        first = spans[0]
        yield Finding(
            "errors", _without_modules(clean(text)) or f"{_name(first)} failed",
            f"in {clean(first.service)}, {_name(first)}" + (f", {len(spans)} times" if len(spans) > 1 else ""),
            spans=_ids(spans),
        )  # fmt: skip


def repeated_calls(case: Case) -> Iterator[Finding]:
    """The same query or call under one parent, again and again, each after the one before: N+1."""
    for node, _ in case.nodes:
        alike: dict[tuple[str, str, str], list[Span]] = defaultdict(list)
        for child in node.children:
            if child.span.type in _ALIKE and child.span.meta.get("span.kind") != "server":
                alike[child.span.service, child.span.name, child.span.resource].append(child.span)
        for spans in alike.values():
            if len(spans) >= _MANY and _in_sequence(spans):
                total = sum(span.duration for span in spans)
                yield Finding(
                    "repeated",
                    f"{len(spans)} times the same {'query' if spans[0].type == 'sql' else 'call'}, one by one",
                    f"{_name(spans[0])} under {_name(node.span)}, {duration(total)} in all: "
                    "one for all of them, or all at once, would take about as long as one",
                    total - max(span.duration for span in spans),
                    _ids(spans),
                )


def starved_pools(case: Case) -> Iterator[Finding]:
    """Waits for a free connection."""
    waits: dict[str, list[tuple[Span, int]]] = defaultdict(list)
    for node, _ in case.nodes:
        for part in case.parts.get(node.span.span_id, ()):
            if part.kind == "pool":
                waits[node.span.service].append((node.span, part.duration))
    for service, waited in waits.items():
        longest, total = max(time for _, time in waited), sum(time for _, time in waited)
        if longest >= max(_LEAST, case.trace.duration * _LEAST_SHARE):
            yield Finding(
                "pool",
                f"{plural(len(waited), 'wait')} for a connection of {clean(service)}'s pool",
                f"the longest {duration(longest)}, {duration(total)} in all: more at once than the pool has",
                _on_path(case, "pool", service),
                _ids([span for span, _ in waited]),
            )


def queues(case: Case) -> Iterator[Finding]:
    """Messages that waited long before anybody took them."""
    for node, parent in case.nodes:
        for part in case.parts.get(node.span.span_id, ()):
            if part.kind in ("queue", "buffer") and part.duration >= max(
                _LEAST, case.trace.duration * _LEAST_SHARE
            ):
                where = "in the consumer's own buffer" if part.kind == "buffer" else "in the queue"
                yield Finding(
                    "queue", f"{duration(part.duration)} {where}",
                    f"between {_name(parent.span) if parent else 'its publish'} and {_name(node.span)}"
                    + (": its consumer had others to work on" if part.kind == "buffer" else ""),
                    _on_path(case, part.kind, node.span.service), [node.span.span_id],
                )  # fmt: skip


def orphans(case: Case) -> Iterator[Finding]:
    """Spans that name a parent nobody sent."""
    lost = [node.span for node, _ in case.nodes if node.orphan]
    if lost:
        one = len(lost) == 1
        yield Finding(
            "orphans", f"{plural(len(lost), 'span')} without {'its' if one else 'their'} parent",
            f"{_name(lost[0])}{'' if one else ' and others'}: the parent is still open, was not received, or its "
            "tracer does not send here",
            spans=_ids(lost),
        )  # fmt: skip


def late_work(case: Case) -> Iterator[Finding]:
    """Work of the same service that goes on when its parent has ended."""
    late = []
    for node, parent in case.nodes:
        if (
            parent is None
            or node.span.service != parent.span.service
            or node.span.meta.get("span.kind") == "consumer"
        ):
            continue
        if node.span.end - parent.span.end >= max(_LEAST, case.trace.duration * _LEAST_SHARE):
            late.append((node.span, parent.span))
    if late:
        span, parent_span = late[0]
        yield Finding(
            "late", f"{plural(len(late), 'span')} outlived {'its' if len(late) == 1 else 'their'} parent",
            f"{_name(span)} went on {duration(span.end - parent_span.end)} after {_name(parent_span)} had ended",
            spans=_ids([one for one, _ in late]),
        )  # fmt: skip


_CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    errors, repeated_calls, starved_pools, queues, orphans, late_work,
)  # fmt: skip


def _without_modules(text: str) -> str:
    """`asyncpg.exceptions.CheckViolationError: no` without what only says where the class is from."""
    kind, colon, message = text.partition(":")
    return kind.rpartition(".")[2] + colon + message if kind.replace(".", "").isidentifier() else text


def _in_sequence(spans: list[Span]) -> bool:
    """Whether most of them began when the one before had ended."""
    after = sum(1 for one, following in pairwise(spans) if following.start >= one.end)
    return after >= (len(spans) - 1) * _MOST


def _on_path(case: Case, kind: str, service: str) -> int:
    return sum(
        step.end - step.start for step in case.path if step.kind == kind and step.span.service == service
    )


def _ids(spans: list[Span]) -> list[int]:
    return [span.span_id for span in spans[:_MAX_SPANS]]


def _name(span: Span) -> str:
    text = clean(span.resource or span.name)
    return text if len(text) <= 80 else text[:79] + "…"  # noqa: PLR2004  (a line's worth)
