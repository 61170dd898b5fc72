"""Which process did what. A lane is a service in a process: one row of the flame graph each, in order of time."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from asynctrace.agent.spans import Span
from asynctrace.agent.tree import Node


class Lane(NamedTuple):
    """A service in a process; `process` is empty when nobody said which."""

    service: str
    process: str


def walk(roots: list[Node]) -> Iterator[tuple[Node, Node | None]]:
    """Every span with its parent, parents before children."""
    stack: list[tuple[Node, Node | None]] = [(root, None) for root in reversed(roots)]
    while stack:
        node, parent = stack.pop()
        yield node, parent
        if node.children:
            stack += [(child, node) for child in reversed(node.children)]


def lanes(nodes: Iterable[tuple[Node, Node | None]]) -> dict[int, Lane]:
    """The lane of each span, by span id, of `nodes` as `walk` gives them.

    ddtrace says the process id on the first span of a process only, so it is handed down; not to another
    service, unless that says nothing of its own: one process may speak for several.
    """
    found: dict[int, Lane] = {}
    for node, parent in nodes:
        span, own = node.span, _process(node.span)
        above = found[parent.span.span_id] if parent is not None else None
        if not own and above is not None:
            if above.service == span.service:
                found[span.span_id] = above
                continue
            if not _is_entry(span):
                own = above.process
        found[span.span_id] = Lane(span.service, own)
    return _completed(found)


def _completed(found: dict[int, Lane]) -> dict[int, Lane]:
    """Of an orphan nobody said the process: where its service has only one, it is that."""
    named: dict[str, set[str]] = {}
    for service, process in set(found.values()):
        if process:
            named.setdefault(service, set()).add(process)
    only = {service: Lane(service, *names) for service, names in named.items() if len(names) == 1}
    return {
        span_id: lane if lane.process else only.get(lane.service, lane) for span_id, lane in found.items()
    }


def _process(span: Span) -> str:
    number = span.metrics.get("process_id")
    if number is not None:
        return str(int(number))
    return span.meta.get("process_id", "") or span.meta.get("process.pid", "")


def _is_entry(span: Span) -> bool:
    return span.meta.get("span.kind") in ("server", "consumer")
