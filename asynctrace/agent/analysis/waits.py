"""The parts of a span in which it waited: from the figures that it carries, in milliseconds, to places in time.

A figure says how long, not when; the order of things in a connection, a pool or a broker says the rest. A part
with a negative offset lies before its span: the wait for a connection is over when the query begins.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asynctrace.agent.spans import Span
from asynctrace.agent.tree import Node

_NS_PER_MS = 1e6
_LEAST = 1_000  # nanoseconds that are worth drawing
_ACQUIRE = ".pool.acquire"  # the end of a span's name that is such a wait as a whole

# What an HTTP client does one after the other, from the start of its span.
_CLIENT = (
    ("http.client.pool_wait_ms", "pool", "free connection"),
    ("http.client.dns_ms", "dns", "DNS"),
    ("http.client.connect_ms", "connect", "connect"),
    ("http.client.ttfb_ms", "answer", "first byte"),
    ("http.client.body_ms", "body", "body"),
)
# What a consumer's message went through before its span, from the last to the first.
_CONSUMER = (
    ("messaging.buffer_ms", "buffer", "prefetched"),
    ("messaging.queue_ms", "queue", "in queue"),
    ("queue.wait_ms", "queue", "in queue"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a span: `kind` decides its colour. Offset from the span's start and duration in nanoseconds."""

    kind: str
    label: str
    offset: int
    duration: int


def waits(nodes: Iterable[tuple[Node, Node | None]]) -> dict[int, list[Part]]:
    """The parts of each span that has any, by its id, in the order of time.

    Args:
        nodes: every span with its parent, as `lanes.walk` gives them.
    """
    nodes = list(nodes)
    acquired = _acquired(nodes)
    found = {}
    for node, parent in nodes:
        span = node.span
        if not (span.metrics or span.meta.get("span.kind") == "consumer" or span.name.endswith(_ACQUIRE)):
            continue  # most of a large trace: nothing tells of a wait
        of_span = list(_parts(span, parent, acquired))
        if of_span:
            found[span.span_id] = of_span
    return found


_Acquired = dict[int, list[tuple[int, int]]]  # by parent: when its children waited for a connection


def _acquired(nodes: list[tuple[Node, Node | None]]) -> _Acquired:
    found: _Acquired = {}
    for node, parent in nodes:
        if parent is not None and node.span.name.endswith(_ACQUIRE):
            found.setdefault(parent.span.span_id, []).append((node.span.start, node.span.end))
    return found


def _parts(span: Span, parent: Node | None, acquired: _Acquired) -> Iterator[Part]:
    if span.name.endswith(_ACQUIRE):
        yield Part("pool", "pool wait", 0, span.duration)
        return
    yield from _before(span, parent, acquired)
    if span.metrics:
        yield from _inside(span)


def _before(span: Span, parent: Node | None, acquired: _Acquired) -> Iterator[Part]:
    at = 0
    stations = []
    for key, kind, label in _CONSUMER if span.metrics else ():
        if (wait := _figure(span, key)) >= _LEAST:
            at -= wait
            stations.append(Part(kind, label, at, wait))
    yield from reversed(stations)
    if not stations:
        yield from _dwell(span, parent)
    wait = _figure(span, "db.pool.wait_ms")
    if wait >= _LEAST:
        beside = acquired.get(parent.span.span_id, ()) if parent is not None else ()
        if not any(start < span.start and end > span.start - wait for start, end in beside):
            yield Part("pool", "pool wait", -wait, wait)


def _inside(span: Span) -> Iterator[Part]:
    at = 0
    for key, kind, label in _CLIENT:
        wait = min(_figure(span, key), span.duration - at)
        if wait >= _LEAST:
            yield Part(kind, label, at, wait)
            at += wait


def _dwell(span: Span, parent: Node | None) -> Iterator[Part]:
    """Between a publish and what consumed it: a tracer that carries no figure still has the two spans."""
    if parent is None or span.meta.get("span.kind") != "consumer":
        return
    if parent.span.meta.get("span.kind") == "producer":
        wait = span.start - parent.span.end
        if wait >= _LEAST:
            yield Part("queue", "in queue", -wait, wait)


def _figure(span: Span, key: str) -> int:
    return int(span.metrics.get(key, 0) * _NS_PER_MS)
