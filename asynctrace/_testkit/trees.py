"""Trees of recorded spans as text, for the test kit: drawn, read from a few indented lines, compared.

Nothing here recurses: traces may be deep.
"""

from __future__ import annotations

import difflib
from operator import attrgetter
from typing import TYPE_CHECKING

from asynctrace._core.errors import UsageError
from asynctrace._core.outcome import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asynctrace._testkit.recorded import RecordedSpan


class Node:
    """One line of a tree and what is below it."""

    __slots__ = ("children", "line", "shape")

    def __init__(self, line: str) -> None:
        self.line = line
        self.children: list[Node] = []
        self.shape = 0  # a number that nodes share whose subtrees differ in order at most


def forest(spans: Iterable[RecordedSpan], label: Callable[[RecordedSpan], str]) -> list[Node]:
    """The trees of these spans, siblings in the order given; whose parent is not among them is at the top."""
    known: dict[tuple[int, int | None], Node] = {}
    placed: list[tuple[Node, tuple[int, int | None]]] = []
    for span in spans:
        outcome = "" if span.outcome == OK else f" ({span.outcome})"
        node = Node(" ".join(f"{label(span)}{outcome}".split()))
        known[span.trace_id, span.span_id] = node
        placed.append((node, (span.trace_id, span.parent_id)))
    roots: list[Node] = []
    for node, parent in placed:
        above = known.get(parent)
        (roots if above is None else above.children).append(node)
    return roots


def draw(roots: list[Node]) -> list[str]:
    """The lines of a tree, two spaces a level."""
    lines = []
    pending = [(node, 0) for node in reversed(roots)]
    while pending:
        node, depth = pending.pop()
        lines.append("  " * depth + node.line)
        pending.extend((child, depth + 1) for child in reversed(node.children))
    return lines


def read(text: str) -> list[Node]:
    """The tree that these lines show: any indentation that is the same for siblings; blank lines do not count.

    Raises `UsageError` where a line is indented as none of the lines it could be a sibling of.

    Example:
        >>> draw(read('''
        ...     outer
        ...         inner
        ... '''))
        ['outer', '  inner']
    """
    roots: list[Node] = []
    above: list[tuple[int, Node]] = []
    for line in text.expandtabs().splitlines():
        if not line.strip():
            continue
        indent, sibling = len(line) - len(line.lstrip()), None
        while above and above[-1][0] >= indent:
            sibling, _ = above.pop()
        if sibling not in {None, indent}:
            raise UsageError(
                f"{line.strip()!r} is indented as none of the lines above it",
                hint="start the first line on a line of its own, and indent siblings alike",
            )
        node = Node(" ".join(line.split()))
        (above[-1][1].children if above else roots).append(node)
        above.append((indent, node))
    return roots


def indented(text: str) -> str:
    """The text one level deeper."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def difference(expected: list[Node], got: list[Node], *, ordered: bool) -> str:
    """Both trees in one text, - expected and + got; empty when they are the same."""
    _number(expected, got)
    if not ordered:
        _arrange(got, expected)
    want, have = draw(expected), draw(got)
    if want == have:
        return ""
    whole = len(want) + len(have)
    # without file names and positions
    lines = list(difflib.unified_diff(want, have, n=whole, lineterm=""))[3:]
    text = "\n".join(f"{line[0]} {line[1:]}" for line in lines)
    if ordered and sorted(node.shape for node in expected) == sorted(node.shape for node in got):
        text += "\n(only the order differs: ordered=False takes siblings in any order)"
    return text


def _number(*forests: list[Node]) -> None:
    """Give every node its `shape`."""
    numbers: dict[tuple[str, tuple[int, ...]], int] = {}
    nodes = [node for roots in forests for node in roots]
    for node in nodes:  # grows meanwhile: parents come before their children
        nodes.extend(node.children)
    for node in reversed(nodes):
        key = node.line, tuple(sorted(child.shape for child in node.children))
        node.shape = numbers.setdefault(key, len(numbers))


def _arrange(got: list[Node], expected: list[Node]) -> None:
    """Put what was got in the order of what was expected, as far as there is something alike."""
    pending = [(got, expected)]
    while pending:
        ours, theirs = pending.pop()
        partners: dict[int, Node] = {}
        left = list(ours)
        for same in (attrgetter("shape"), attrgetter("line")):
            alike: dict[object, list[Node]] = {}
            for node in reversed(left):
                alike.setdefault(same(node), []).append(node)
            for index, wanted in enumerate(theirs):
                if index not in partners and (found := alike.get(same(wanted))):
                    partners[index] = found.pop()
            taken = {id(node) for node in partners.values()}
            left = [node for node in left if id(node) not in taken]
        ours[:] = [partners[index] for index in sorted(partners)] + left
        pending.extend((node.children, theirs[index].children) for index, node in partners.items())
