"""The critical path: the chain of work that decided when the trace ended. Were any of it quicker, so were the whole.

Found from the end backwards, as in https://www.usenix.org/conference/atc22/presentation/zhang-zhizhou: of a
span's children the one that ended last was waited for; before it began, the one that had ended last by then;
what is left is the span's own time. Work that outlives its parent counts as well: a message's consumer is part
of the way.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from asynctrace.agent.analysis.lanes import walk
from asynctrace.agent.analysis.waits import Part
from asynctrace.agent.spans import Span
from asynctrace.agent.tree import Node

_WORDS = {
    "pool": "waiting for a pool",
    "queue": "in a queue",
    "buffer": "prefetched",
    "answer": "waiting for an answer",
    "dns": "DNS",
    "connect": "connecting",
    "body": "reading bodies",
    "gap": "nothing traced",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of the path: from `start` to `end`, nanoseconds since the epoch, this span was what the trace waited for.

    `kind` is that of a `Part`, `gap` after the span's own end, or what sort of work it is: `code`, `database`,
    `call`, `publish`.
    """

    span: Span
    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the path went where, in nanoseconds."""

    kind: str
    label: str
    service: str
    time: int


def critical_path(root: Node, parts: dict[int, list[Part]]) -> list[Step]:
    """The path through a trace, in the order of time.

    Args:
        root: the trace's first span, with everything below.
        parts: of each span, by its id.
    """
    ends = _subtree_ends(root)
    steps: list[Step] = []
    waiting: list[_Piece] = [_Piece(root, root.span.start, ends[id(root)], own=False)]
    while waiting:
        piece = waiting.pop()
        if piece.own:
            steps.extend(_own_time(piece, parts))
        else:
            waiting.extend(reversed(_taken_apart(piece, ends)))
    return steps[::-1]


@dataclass(slots=True)
class _Piece:
    """A time on the path that belongs to a span: to it and what is below it, or (`own`) to it alone.

    `follower` is the child that began when the piece ended: what it waited for before lies in this piece.
    """

    node: Node
    start: int
    end: int
    own: bool
    follower: Node | None = None


def _taken_apart(piece: _Piece, ends: dict[int, int]) -> list[_Piece]:
    """The children that were waited for and the span's own time between them, from the end backwards."""
    node, start, cursor = piece.node, piece.start, piece.end
    follower: Node | None = None
    pieces: list[_Piece] = []
    for end, child in _by_end(node, ends):
        if start < end <= cursor and child.span.start < cursor:
            begin = max(child.span.start, start)
            pieces += [
                _Piece(node, end, cursor, own=True, follower=follower),
                _Piece(child, begin, end, own=False),
            ]
            cursor, follower = begin, child
    return [*pieces, _Piece(node, start, cursor, own=True, follower=follower)]


def shares(path: list[Step]) -> list[Share]:
    """Where the time of a path went, the first of each kind first."""
    times: Counter[tuple[str, str]] = Counter()
    for step in path:
        service = step.span.service if step.kind in ("code", "call", "publish", "database") else ""
        times[step.kind, service] += step.end - step.start
    return [Share(kind, _label(kind, service), service, time) for (kind, service), time in times.items()]


def _label(kind: str, service: str) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    return {"code": service, "database": "database", "call": "HTTP calls", "publish": "publishing"}[kind]


def _subtree_ends(root: Node) -> dict[int, int]:
    """When the last span in and below each ended, by the node's id()."""
    ends: dict[int, int] = {}
    for node, _ in reversed(list(walk([root]))):
        ends[id(node)] = max([node.span.end, *(ends[id(child)] for child in node.children)])
    return ends


def _by_end(node: Node, ends: dict[int, int]) -> list[tuple[int, Node]]:
    """Children, the one that ended last first: with all below it, and by itself when that goes on too long."""
    found = [(ends[id(child)], child) for child in node.children]
    found += [(child.span.end, child) for child in node.children if child.span.end != ends[id(child)]]
    return sorted(found, key=lambda pair: (pair[0], -pair[1].span.start), reverse=True)


def _own_time(piece: _Piece, parts: dict[int, list[Part]]) -> Iterator[Step]:
    """The time of a span itself, from the end backwards, told apart by its own parts and those before its follower."""
    span, cursor = piece.node.span, piece.end
    marks = [(span, part) for part in parts.get(span.span_id, ()) if part.offset >= 0]
    if piece.follower is not None:
        after = piece.follower.span
        marks += [(after, part) for part in parts.get(after.span_id, ()) if part.offset < 0]
    marks.sort(key=lambda mark: mark[0].start + mark[1].offset, reverse=True)
    for owner, part in marks:
        at = owner.start + part.offset
        first, last = max(at, piece.start), min(at + part.duration, cursor)
        if last > first:
            yield from _plain_time(span, last, cursor)
            yield Step(owner, first, last, part.kind)
            cursor = first
    yield from _plain_time(span, piece.start, cursor)


def _plain_time(span: Span, start: int, end: int) -> Iterator[Step]:
    if end > max(start, span.end):
        yield Step(span, max(start, span.end), end, "gap")
    if min(end, span.end) > start:
        yield Step(span, start, min(end, span.end), _sort_of_work(span))


def _sort_of_work(span: Span) -> str:
    if span.type in ("sql", "cassandra", "redis", "mongodb", "db", "memcached", "elasticsearch"):
        return "database"
    kind = span.meta.get("span.kind")
    return {"client": "call", "producer": "publish"}.get(kind or "", "code")
