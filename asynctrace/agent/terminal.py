"""A trace as text: one row a span, in tree order, each bar where its span was on a common time axis.

Spans that ran at the same time visibly overlap, one after the other stand side by side. Plain data in, text
out.
The last line of every drawing is for programs, too:

    trace 0123456789abcdef0123456789abcdef: 17 spans, 3 services (pricing, shop, worker)
"""

import math
import shutil
from datetime import datetime
from itertools import pairwise

from asynctrace.agent.spans import Span, Trace
from asynctrace.agent.text import (
    NS_PER_MS,
    NS_PER_S,
    NS_PER_US,
    UNICODE,
    Glyphs,
    Paint,
    cells,
    clean,
    cut,
    duration,
    fit,
    plural,
)
from asynctrace.agent.tree import Row, error_text, rows

MAX_ROWS = 100
MIN_WIDTH = 40
_WIDE = 100  # columns from which names of services get more room
_DURATION_WIDTH = 8
_TICK_GAP = 9  # columns at least from tick to tick: a label and a blank
_MAX_LINKS = 2


def terminal_width() -> int:
    """The columns of the terminal; 80 when there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def draw_trace(
    trace: Trace,
    *,
    width: int | None = None,
    color: bool = False,
    glyphs: Glyphs = UNICODE,
    max_rows: int = MAX_ROWS,
) -> str:
    """The trace as lines of text, without a newline at the end.

        print(draw_trace(agent.store.last(), width=110, color=True))

    Args:
        trace: what to draw.
        width: columns to use; the terminal's when left out, and never less than 40.
        color: whether to use ANSI colours.
        glyphs: `UNICODE`, or `ASCII` for streams that cannot write it.
        max_rows: rows for spans; more are folded, with a line that says so. 0 for no bound.
    """
    return _Drawing(trace, max(width or terminal_width(), MIN_WIDTH), Paint(color), glyphs, max_rows).text()


def summary_line(trace: Trace) -> str:
    """The last line of a drawing."""
    services = [clean(name) for name in trace.services]
    spans, names = plural(len(trace.spans), "span"), ", ".join(services)
    return f"trace {trace.id}: {spans}, {plural(len(services), 'service')} ({names})"


class _Drawing:
    """One drawing: the columns it has, and the lines it makes."""

    def __init__(self, trace: Trace, width: int, paint: Paint, glyphs: Glyphs, max_rows: int) -> None:
        self.trace = trace
        self.width = width
        self.paint = paint
        self.glyphs = glyphs
        self.rows, self.without_row = rows(trace.spans, glyphs, max_rows)
        self.services = _short_names(trace.services, 14 if width >= _WIDE else 8, glyphs.ellipsis)
        paint.know(trace.services)
        self.service_width = max(map(cells, self.services.values()), default=0)
        rest = width - self.service_width - _DURATION_WIDTH - 4
        needed = max((cells(row.indent + self.label(row)) for row in self.rows), default=0)
        self.label_width = min(needed, rest * 45 // 100)
        self.bar_width = rest - self.label_width
        self.extent = max(trace.duration, 1)

    def text(self) -> str:
        """All lines."""
        lines = [self.header(), *self.legend(), self.axis()]
        for row in self.rows:
            lines.append(self.row(row))
            lines.extend(self.details(row))
        return "\n".join([*lines, *self.notes(), summary_line(self.trace)])

    # Around the rows

    def header(self) -> str:
        """What it was, how long it took, of how many spans, when."""
        trace = self.trace
        root = trace.root
        facts = [duration(trace.duration, self.glyphs.micro), plural(len(trace.spans), "span")]
        if trace.start:
            when = datetime.fromtimestamp(trace.start // NS_PER_S).astimezone()
            facts.append(f"{when:%Y-%m-%d %H:%M:%S}.{trace.start // NS_PER_MS % 1000:03}")
        errors = plural(trace.errors, "error") if trace.errors else ""
        while len(facts) > 1 and len("  ".join(facts)) > self.width * 3 // 4:
            facts.pop()
        tail = "  " + "  ".join(facts)
        room = self.width - len(tail) - (len(errors) + 2 if errors else 0)
        title = cut(clean(_title(root)) if root else "no spans", room, self.glyphs.ellipsis)
        return self.paint.bold(title) + tail + (f"  {self.paint.error(errors)}" if errors else "")

    def legend(self) -> list[str]:
        """The services with their colours and spans; for one service the last line says it all."""
        if len(self.trace.services) < 2:  # noqa: PLR2004  (two are told apart, one is not)
            return []
        counts = dict.fromkeys(self.trace.services, 0)
        for span in self.trace.spans:
            counts[span.service] += 1
        lines, used = [""], 0
        for name, count in counts.items():
            text = cut(f"{self.glyphs.swatch} {clean(name)} {count}", self.width, self.glyphs.ellipsis)
            if used and used + 3 + cells(text) > self.width:
                lines, used = [*lines, ""], 0
            lines[-1] += ("   " if used else "") + self.paint.service(name, text)
            used += cells(text) + (3 if used else 0)
        return lines

    def axis(self) -> str:
        """Times since the start of the trace; each stands right of its tick."""
        line = [" "] * self.bar_width
        ticks = _ticks(self.extent, self.bar_width, self.glyphs.micro)
        for (column, text), (following, _) in pairwise([*ticks, (self.bar_width + 1, "")]):
            shown = cut(self.glyphs.tick + text, following - column, "")
            if len(shown) == len(text) + 1 and column + len(shown) <= self.bar_width:
                line[column : column + len(shown)] = shown
            elif column < self.bar_width:
                line[column] = self.glyphs.tick
        before = " " * (self.service_width + self.label_width + 4)
        return before + self.paint.dim("".join(line).rstrip())

    def notes(self) -> list[str]:
        """What a reader must know to trust the drawing."""
        notes = []
        ids = {span.span_id for span in self.trace.spans}
        orphans = sum(1 for span in self.trace.spans if span.parent_id and span.parent_id not in ids)
        if orphans:
            notes.append(
                f"{self.glyphs.orphan} {plural(orphans, 'span')} without a parent here: not received, or open"
            )
        if self.without_row:
            notes.append(f"{plural(self.without_row, 'span')} folded or left out, --rows 0 draws all")
        if self.trace.dropped:
            notes.append(f"{plural(self.trace.dropped, 'span')} dropped: the trace filled the agent's memory")
        if self.trace.sampled_out:
            notes.append("sampled out (priority -1): Datadog would not keep this trace")
        return [self.paint.dim(cut(note, self.width, self.glyphs.ellipsis)) for note in notes]

    # Rows

    def row(self, row: Row) -> str:
        """Service, name in the tree, bar, duration."""
        span = row.span
        service = fit(self.services[span.service], self.service_width)
        indent = cut(row.indent, self.label_width // 2, self.glyphs.ellipsis)
        label = fit(self.label(row), self.label_width - cells(indent), self.glyphs.ellipsis)
        start, end = min(one.start for one in row.spans), max(one.end for one in row.spans)
        length = f"{duration(end - start, self.glyphs.micro):>{_DURATION_WIDTH}}"
        bar = self.folded_bar(row) if row.folded else self.bar(span)
        return (
            f"{self.paint.service(span.service, service)}  {self.paint.dim(indent)}"
            f"{self.paint.error(label) if span.error else label}"
            f"  {self.paint.error(bar) if span.error else self.paint.service(span.service, bar)}{length}"
        ).rstrip()

    def label(self, row: Row) -> str:
        """Marks, name and resource of a row."""
        span = row.span
        marks = (self.glyphs.error if span.error else "") + (self.glyphs.orphan if row.orphan else "")
        outcome = span.meta.get("async.outcome", "ok")
        name = clean(span.name)
        if outcome not in ("ok", "error"):
            name += f" [{clean(outcome)}]"
        if row.folded:
            name = f"{self.glyphs.times} {len(row.spans)} more {name}"
        elif span.resource and span.resource != span.name:
            name += f" {clean(span.resource)}"
        if row.left_out:
            name = f"+{row.left_out} below: {name}"
        return f"{marks} {name}" if marks else name

    def details(self, row: Row) -> list[str]:
        """The lines under a row: its error, unless a child told the same, and its links."""
        span, lines = row.span, []
        message = error_text(span)
        if message and not row.error_told_below:
            lines.append((self.paint.error, f"{self.glyphs.error} {clean(message)}"))
        for link in span.links[:_MAX_LINKS]:
            here = link.trace_id == self.trace.trace_id
            lines.append(
                (self.paint.dim, f"{self.glyphs.link} link to "
                 + (f"span {link.span_id}" if here else f"trace {link.trace_id:032x}"))
            )  # fmt: skip
        if len(span.links) > _MAX_LINKS:
            more = plural(len(span.links) - _MAX_LINKS, "more link")
            lines.append((self.paint.dim, f"{self.glyphs.link} and {more}"))
        below = cut(row.below, self.label_width // 2 + 2, self.glyphs.ellipsis)
        before = " " * (self.service_width + 2)
        room = self.width - len(before) - cells(below)
        return [
            before + self.paint.dim(below) + look(cut(text, room, self.glyphs.ellipsis))
            for look, text in lines
        ]

    def position(self, moment: int) -> int:
        """Where a moment is on the axis, in eighths of a column."""
        eighths = round((moment - self.trace.start) * self.bar_width * 8 / self.extent)
        return min(max(eighths, 0), self.bar_width * 8)

    def bar(self, span: Span) -> str:
        """A bar from the start of a span to its end, to an eighth of a column if there is a character for it."""
        glyphs = self.glyphs
        first, last = self.position(span.start), self.position(span.end)
        first = min(first, self.bar_width * 8 - 1)
        column, offset = divmod(first, 8)
        end_column, end_offset = divmod(max(last, first + 1), 8)
        if column == end_column or (column + 1 == end_column and not end_offset):
            cell = glyphs.right_eighth if offset >= 7 else glyphs.right_half if offset >= 4 else ""  # noqa: PLR2004  (of eight)
            cell = cell or glyphs.eighths[max(last - first, 1) - 1]
            return fit(" " * column + cell, self.bar_width)
        head = glyphs.right_eighth if offset >= 7 else glyphs.right_half if offset >= 3 else glyphs.full  # noqa: PLR2004  (of eight)
        tail = glyphs.eighths[end_offset - 1] if end_offset else ""
        return fit(" " * column + head + glyphs.full * (end_column - column - 1) + tail, self.bar_width)

    def folded_bar(self, row: Row) -> str:
        """Where any of the folded spans was."""
        line = [" "] * self.bar_width
        for span in row.spans:
            first = min(self.position(span.start) // 8, self.bar_width - 1)
            last = max(-(-self.position(span.end) // 8), first + 1)
            line[first:last] = self.glyphs.folded * (last - first)
        return "".join(line)


def _title(span: Span) -> str:
    return span.resource or span.name


def _short_names(services: list[str], width: int, ellipsis: str) -> dict[str, str]:
    """Names of services in at most `width` columns, still different from each other."""
    short: dict[str, str] = {}
    for service in services:
        name = cut(clean(service), width, ellipsis)
        number = 2
        while name in short.values():
            name = cut(clean(service), width - len(str(number)), ellipsis) + str(number)
            number += 1
        short[service] = name
    return short


def _ticks(extent: int, width: int, micro: str) -> list[tuple[int, str]]:
    """Columns of an axis with what stands there: steps of 1, 2 or 5 of a unit, as many as have room."""
    units = ((NS_PER_S, "s"), (NS_PER_MS, "ms"), (NS_PER_US, micro), (1, "ns"))
    unit, name = next(((size, name) for size, name in units if extent >= size), units[-1])
    least = max(extent * _TICK_GAP / width, 1.0)
    power = 10 ** math.floor(math.log10(least))
    step = next(int(power * factor) or 1 for factor in (1, 2, 5, 10) if power * factor >= least)
    return [(moment * width // extent, f"{moment / unit:g} {name}") for moment in range(0, extent, step)]
