"""The drawing of a trace."""

import io
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from asynctrace.agent.spans import Link, Span, Trace
from asynctrace.agent.terminal import draw_trace
from asynctrace.agent.text import ASCII, UNICODE, Glyphs, cells, clean, cut, duration, glyphs_for, wants_color
from asynctrace.agent.tree import build
from tests.agent.payloads import TRACE_ID, span

if TYPE_CHECKING:
    from collections.abc import Callable

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def draw(
    *spans: Span, width: int = 80, color: bool = False, glyphs: Glyphs = UNICODE, max_rows: int = 100
) -> list[str]:
    text = draw_trace(
        Trace(TRACE_ID, list(spans)), width=width, color=color, glyphs=glyphs, max_rows=max_rows
    )
    return text.split("\n")


def row(lines: list[str], name: str) -> str:
    """The one line of a span."""
    (found,) = [line for line in lines[1:-1] if name in line]
    return found


def bar(line: str) -> tuple[int, int]:
    """First and last column of the bar in a line."""
    at = [index for index, char in enumerate(line) if char in UNICODE.eighths + "▐▕▒"]
    return at[0], at[-1]


def test_a_drawing_in_full() -> None:
    """Header, legend, axis, a row a span in tree order, errors below, and the line for programs."""
    lines = draw(
        span(1, resource="GET /cart", name="web.request", ms=40),
        span(3, 1, name="second", resource="second", at=20, ms=10, service="pricing"),
        span(
            2,
            1,
            name="first",
            resource="first",
            at=0,
            ms=20,
            error=1,
            meta={"error.type": "E", "error.message": "no"},
        ),
        width=70,
    )
    assert re.fullmatch(r"GET /cart  40.0 ms  3 spans  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d.000  1 error", lines[0])
    assert lines[1:] == [
        "■ pricing 1   ■ shop 2",
        "                                │0 ms          │20 ms",
        "shop     web.request GET /cart  ██████████████████████████████ 40.0 ms",
        "shop     ├ ✗ first              ███████████████                20.0 ms",
        "         │   ✗ E: no",
        "pricing  └ second                              ███████▌        10.0 ms",
        "trace 6b040c33000000000ca1614bb9ceffe2: 3 spans, 2 services (pricing, shop)",
    ]


def test_last_line_in_the_singular() -> None:
    """One span of one service is `1 span, 1 service`."""
    assert draw(span(1))[-1] == "trace 6b040c33000000000ca1614bb9ceffe2: 1 span, 1 service (shop)"


def test_siblings_in_sequence_stand_side_by_side_and_parallel_ones_overlap() -> None:
    """Bars are where their spans were on one axis."""
    lines = draw(
        span(1, name="root", ms=100),
        span(2, 1, name="before", ms=50),
        span(3, 1, name="after", at=50, ms=50),
        span(4, 1, name="beside", at=25, ms=50),
    )
    root, before, after, beside = (bar(row(lines, name)) for name in ("root", "before", "after", "beside"))
    assert before[0] == root[0]
    assert after[1] == root[1]
    assert before[1] <= after[0] <= before[1] + 1
    assert before[0] < beside[0] < before[1] < beside[1] < after[1]
    assert lines.index(row(lines, "beside")) < lines.index(row(lines, "after")), (
        "siblings stand in start order"
    )


def test_ticks_stand_where_their_moments_are() -> None:
    """A span that starts at 40 ms starts below the tick of 40 ms."""
    lines = draw(span(1, name="root", ms=100), span(2, 1, name="half", at=40, ms=10), width=100)
    axis = next(line for line in lines if "│0 ms" in line)
    assert axis.index("│40 ms") == bar(row(lines, "half"))[0]
    assert axis.index("│0 ms") == bar(row(lines, "root"))[0]


@pytest.mark.parametrize("width", [40, 80, 110, 200])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_no_line_is_wider_than_asked(width: int, glyphs: Glyphs) -> None:
    """Every line but the last fits; wide characters count twice."""
    spans = [
        span(
            number,
            number - 1,
            service="服务" * (number % 9),
            name="名" * number,
            resource="x" * 90,
            at=number * 3,
        )
        for number in range(1, 60)
    ]
    for line in draw(*spans, width=width, glyphs=glyphs)[:-1]:
        assert cells(line) <= width


def test_span_text_cannot_command_the_terminal() -> None:
    """Escapes, control characters and bidi overrides in names, services, resources and errors become text."""
    evil = "\x1b[2J\x07\r\u202egpj\x9b31m\n\ud800"
    lines = draw(
        span(
            1,
            name=evil,
            service=evil,
            resource=evil * 2,
            error=1,
            meta={"error.type": evil, "async.outcome": evil},
        ),
        color=True,
    )
    text = ESCAPES.sub("", "\n".join(lines))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b[2J" in text
    assert len(lines) == 5


def test_orphans_are_roots_with_a_mark() -> None:
    """A span whose parent is not in the trace is drawn as a root, marked, and counted below."""
    lines = draw(span(1, name="root"), span(7, 99, name="late"))
    assert "◇ late" in row(lines, "late")
    assert lines[-2].startswith("◇ 1 span without a parent here")
    many = draw(*(span(number, number + 99) for number in range(1, 51)), max_rows=5)
    assert many[-3].startswith("◇ 50 spans without a parent here"), "also those that are folded"


def test_children_outside_their_parent_are_drawn() -> None:
    """Clocks of two machines differ: a child that seems to start before its parent is where its clock says."""
    lines = draw(span(1, name="root", at=10, ms=10), span(2, 1, name="skewed", at=0, ms=5))
    assert bar(row(lines, "skewed"))[0] < bar(row(lines, "root"))[0]


def test_a_span_without_a_start_does_not_stretch_the_axis() -> None:
    """A start of 0 is no moment: the others keep their scale."""
    odd = span(2, 1, name="odd")
    odd.start = 0
    assert draw(span(1, ms=10), odd)[0].split("  ")[1] == "10.0 ms"


def test_the_same_error_is_told_once() -> None:
    """An exception that passed through three spans is explained where it came from, and marked everywhere."""
    told = {"error.type": "ValueError", "error.message": "no"}
    lines = draw(
        *(span(number, number - 1, error=1, meta=dict(told), resource=f"r{number}") for number in (1, 2, 3))
    )
    assert sum("ValueError: no" in line for line in lines) == 1
    assert sum("✗ work" in line for line in lines) == 3


def test_outcome_links_and_sampling_are_told() -> None:
    """A cancelled span, a link, and a trace Datadog would not keep say so."""
    text = "\n".join(
        draw(
            span(
                1,
                meta={"async.outcome": "cancelled"},
                links=(Link(0xABC, 5), Link(TRACE_ID, 6), Link(1, 1)),
                metrics={"_sampling_priority_v1": -1},
            )
        )
    )
    assert "work [cancelled]" in text
    assert f"→ link to trace {0xABC:032x}" in text
    assert "→ link to span 6" in text
    assert "→ and 1 more link\n" in text
    assert "sampled out (priority -1)" in text


def test_services_are_told_apart_without_colour() -> None:
    """Names that are the same when cut get numbers."""
    lines = draw(*(span(number, service=f"checkout-service-{number}") for number in (1, 2, 3)))
    shown = [line.split()[0] for line in lines if " work " in line]
    assert len(set(shown)) == 3


def test_colour_changes_nothing_but_colour() -> None:
    """A drawing with its escapes taken away is the one without colour."""
    spans = [
        span(1, ms=9),
        span(2, 1, service="b", error=1, meta={"error.type": "E"}),
        span(3, 9, service="c"),
    ]
    assert [ESCAPES.sub("", line) for line in draw(*spans, color=True)] == draw(*spans)


def test_ascii_is_ascii() -> None:
    """Where the blocks cannot be written, the drawing is plain ASCII."""
    spans = [
        span(1, ms=9),
        span(2, 1, error=1, resource="x" * 99, meta={"error.type": "E"}),
        span(3, 9, ms=0.001),
    ]
    assert "\n".join(draw(*spans, glyphs=ASCII, max_rows=2)).isascii()


def test_siblings_of_a_kind_are_folded() -> None:
    """Many alike become one row that counts them; a different one among them, and an error, keep theirs."""
    spans = [span(1, name="root", ms=1000)]
    spans += [span(number, 1, name="query", at=number, resource=f"q{number}") for number in range(2, 502)]
    spans += [span(900, 1, name="query", at=77, error=1), span(901, 1, name="render", at=300)]
    lines = draw(*spans)
    assert f"{UNICODE.times} 480 more query" in row(lines, "480 more")
    assert "✗" in row(lines, "✗ query")
    assert row(lines, "render")
    assert lines[-2] == "480 spans folded or left out, --rows 0 draws all"
    assert len(lines) < 40
    assert len(draw(*spans, max_rows=0)) > 503


@pytest.mark.parametrize("shape", ["wide", "deep", "orphans", "bushy"])
def test_ten_thousand_spans_are_a_page(shape: str) -> None:
    """However a huge trace is shaped, it is drawn in bounded rows and time, and says what is left out."""
    parents: dict[str, Callable[[int], int]] = {
        "wide": lambda _: 1,
        "deep": lambda n: n - 1,
        "orphans": lambda n: n + 20_000,
        "bushy": lambda n: n // 3,
    }
    spans = [span(1, ms=20_000)]
    spans += [span(n, parents[shape](n), name=f"work{n % 200}", at=n) for n in range(2, 10_001)]
    began = time.perf_counter()
    lines = draw(*spans)
    assert len(lines) <= 110
    assert "folded or left out" in lines[-2]
    assert time.perf_counter() - began < 5


def test_a_circle_of_parents_is_cut() -> None:
    """Spans that are each other's parents are drawn once each."""
    spans = [
        span(1, 2, name="one"),
        span(2, 1, name="two", at=1),
        span(3, 3, name="self"),
        span(4, 1, name="four"),
    ]
    lines = draw(*spans)
    for name in ("one", "two", "self", "four"):
        assert row(lines, f"{name} ")


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), unique_by=lambda pair: pair[0], min_size=1)
)
@settings(max_examples=100, deadline=None)
def test_every_span_is_in_the_tree_once(pairs: list[tuple[int, int]]) -> None:
    """Whatever parents are claimed, the tree holds each span exactly once, and its sizes add up."""
    roots = build([span(one, parent, at=one % 7) for one, parent in pairs])
    found, waiting = [], list(roots)
    while waiting:
        node = waiting.pop()
        found.append(node.span.span_id)
        waiting.extend(node.children)
    assert sorted(found) == sorted(one for one, _ in pairs)
    assert sum(root.size for root in roots) == len(pairs)


def test_no_spans_at_all() -> None:
    """An empty trace is drawn, too."""
    assert draw()[-1] == "trace 6b040c33000000000ca1614bb9ceffe2: 0 spans, 0 services ()"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"), (999, "999 ns"), (1_000, "1.00 µs"), (80_000, "80.0 µs"), (999_499, "999 µs"),
        (999_500, "1.00 ms"), (9_999_999, "10.0 ms"),
        (1_250_000_000, "1.25 s"), (41_900_000, "41.9 ms"), (200_000_000_000, "3m 20s"),
        (7_500_000_000_000, "2h 05m"), (-1_000_000, "-1.00 ms"),
    ],
)  # fmt: skip
def test_durations(nanoseconds: int, text: str) -> None:
    """Three digits and a unit, from nanoseconds to hours."""
    assert duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("environ", "tty", "choice", "expected"),
    [
        ({}, True, "auto", True), ({}, False, "auto", False), ({"NO_COLOR": "1"}, True, "auto", False),
        ({"FORCE_COLOR": "1"}, False, "auto", True), ({"NO_COLOR": "1"}, False, "always", True),
        ({"FORCE_COLOR": "1"}, True, "never", False), ({"TERM": "dumb"}, True, "auto", False),
        ({"NO_COLOR": ""}, True, "auto", True),
    ],
)  # fmt: skip
def test_who_decides_about_colour(environ: dict[str, str], tty: bool, choice: str, expected: bool) -> None:
    """The option first, then NO_COLOR and FORCE_COLOR, then whether it is a terminal."""
    stream = io.StringIO()
    stream.isatty = lambda: tty  # type: ignore[method-assign]
    assert wants_color(stream, choice, environ) is expected


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII), (None, ASCII), ("nonsense", ASCII)],
)
def test_glyphs_follow_the_encoding(encoding: str | None, expected: Glyphs) -> None:
    """Blocks only where they can be written."""
    assert glyphs_for(encoding) is expected


@given(st.text(), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_cut_text_fits(text: str, width: int) -> None:
    """Clean text is one printable line, and cut text never too wide."""
    safe = clean(text)
    assert "\n" not in safe
    assert "\x1b" not in safe
    assert cells(cut(safe, width)) <= width
