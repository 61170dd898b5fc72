"""Spans to the rows of a drawing: children below their parent, siblings in the order they started.

A trace may have more spans than anyone reads. When its rows are too many, siblings of one kind are folded
into one row, more of them at each step; then what is deep is left out; then what is last. Nothing here recurses: a
trace may be ten thousand spans deep.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from asynctrace.agent.spans import Span
from asynctrace.agent.text import Glyphs

_KEEP = (20, 10, 5, 3, 2, 1)  # siblings of a kind that keep rows of their own, step by step
_DEPTHS = (16, 12, 8, 6, 5, 4, 3, 2, 1)
_MAX_INDENT = 16  # levels that are drawn as such; what is deeper stands below each other


@dataclass(slots=True, eq=False)
class Node:
    """A span and those it is the parent of. An orphan names a parent that is not in the trace."""

    span: Span
    orphan: bool = False
    children: list["Node"] = field(default_factory=list)
    size: int = 1  # spans in it and below


@dataclass(slots=True)
class Row:
    """One line of a drawing: a span, or several folded into one line.

    `indent` is what stands before its name, `below` before the lines that explain it; `left_out` counts the
    spans under it that have no row.
    """

    spans: list[Span]
    indent: str
    below: str
    depth: int
    orphan: bool = False
    left_out: int = 0
    error_told_below: bool = False

    @property
    def folded(self) -> bool:
        """Whether it stands for more than one span."""
        return len(self.spans) > 1

    @property
    def span(self) -> Span:
        """The span, or the first of the folded ones."""
        return self.spans[0]


def error_text(span: Span) -> str:
    """Type and message of a span's error, as ddtrace records them; `""` when it is none, or says nothing."""
    if not span.error:
        return ""
    message = span.meta.get("error.message") or span.meta.get("error.msg") or ""
    return ": ".join(part for part in (span.meta.get("error.type", ""), message) if part)


def build(spans: list[Span]) -> list[Node]:
    """The roots of a trace, orphans among them, with everything below. Every span is in it exactly once."""
    nodes = {
        span.span_id: Node(span) for span in sorted(spans, key=lambda span: (span.start, -span.duration))
    }
    roots = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_id)
        if parent is None or parent is node:
            node.orphan = node.span.parent_id != 0
            roots.append(node)
        else:
            parent.children.append(node)
    order = [node for root in roots for node in _walk(root)]
    if len(order) < len(nodes):  # parents in a circle: cut it where it starts first
        reached = {node.span.span_id for node in order}
        for node in nodes.values():
            if node.span.span_id not in reached:
                nodes[node.span.parent_id].children.remove(node)
                node.orphan = True
                roots.append(node)
                below = list(_walk(node))
                order += below
                reached.update(one.span.span_id for one in below)
    for node in reversed(order):
        node.size = 1 + sum(child.size for child in node.children)
    roots.sort(key=lambda node: node.span.start)
    return roots


def _walk(root: Node) -> Iterator[Node]:
    """A node and all below it, parents before children."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += node.children


def rows(spans: list[Span], glyphs: Glyphs, max_rows: int = 0) -> tuple[list[Row], int]:
    """The rows of a trace, and how many spans have no row of their own.

    Args:
        spans: the trace's.
        glyphs: for the lines of the tree.
        max_rows: the bound; 0 for none.
    """
    roots = build(spans)
    limit = max_rows or len(spans)
    found = _flatten(roots, glyphs, limit, len(spans), len(spans))
    for keep in _KEEP:
        if len(found) > limit:
            found = _flatten(roots, glyphs, limit, keep, len(spans))
    for depth in _DEPTHS:
        if len(found) > limit:
            found = _flatten(roots, glyphs, limit, _KEEP[-1], depth)
    found = found[:limit]
    return found, len(spans) - sum(not row.folded for row in found)


def _flatten(roots: list[Node], glyphs: Glyphs, limit: int, keep: int, max_depth: int) -> list[Row]:
    """Rows in tree order; stops as soon as there are more than `limit`."""
    made: list[Row] = []
    stack = [(group, "", "", 0) for group in reversed(_grouped(roots, keep))]
    while stack and len(made) <= limit:
        group, indent, below, depth = stack.pop()
        node = group[0]
        row = Row([one.span for one in group], indent, below, depth, orphan=node.orphan)
        made.append(row)
        if len(group) > 1 or depth >= max_depth:
            row.left_out = sum(one.size - 1 for one in group)
            row.below += "  "
            continue
        text = error_text(node.span)
        row.error_told_below = bool(text) and any(error_text(child.span) == text for child in node.children)
        groups = _grouped(node.children, keep)
        row.below += glyphs.stem if groups else "  "
        for index in range(len(groups) - 1, -1, -1):
            branch, stem = (
                (glyphs.last_branch, "  ") if index == len(groups) - 1 else (glyphs.branch, glyphs.stem)
            )
            if depth >= _MAX_INDENT:
                branch = stem = ""
            stack.append((groups[index], below + branch, below + stem, depth + 1))
    return made


def _grouped(nodes: list[Node], keep: int) -> list[list[Node]]:
    """Siblings, each by itself but for those beyond the first `keep` of a kind: they are together."""
    if len(nodes) <= keep + 1:
        return [[node] for node in nodes]
    kinds = Counter(_kind(node) for node in nodes)
    seen: Counter[tuple[str, str, bool]] = Counter()
    folds: dict[tuple[str, str, bool], list[Node]] = {}
    groups = []
    for node in nodes:
        kind = _kind(node)
        seen[kind] += 1
        if kinds[kind] <= keep + 1 or seen[kind] <= keep:  # to fold a single one would save nothing
            groups.append([node])
        elif kind in folds:
            folds[kind].append(node)
        else:
            folds[kind] = [node]
            groups.append(folds[kind])
    return groups


def _kind(node: Node) -> tuple[str, str, bool]:
    return node.span.service, node.span.name, bool(node.span.error)
