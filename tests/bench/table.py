"""What was measured, for a terminal and as JSON."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.crew import Clock, Contender
    from tests.bench.matrix import Measured

HEADINGS = {"opentelemetry": "OpenTelemetry"}

CLOCKS: dict[Clock, str] = {
    "loop": "CPU time of the loop's thread",
    "process": "CPU time of the whole process, until everything is sent",
    "wall": "time on the wall",
}

FOOTNOTES = """\
+ is what is added to bare: the median over rounds of the difference to bare's round beside it; ± is half the
distance between its quartiles. x is asynctrace's as a multiple of that contender's; - where that adds nothing.
{rounds} rounds of {milliseconds:.0f} ms a contender and row, a process each, in turn, after warm-up; stock asyncio.
The garbage collector is on, and runs before each round. Nothing is sampled out. All send to an agent on loopback that
takes everything and keeps nothing; OpenTelemetry in batches, by OTLP over HTTP. ddtrace has its asyncio integration, as
under ddtrace-run: it wraps every task; asynctrace its own integrations, as under traced_app."""


def text(rows: Sequence[Measured], contenders: Sequence[Contender], clock: Clock) -> str:
    """One table of one clock."""
    names = [one.name for one in contenders if one.name != "bare"]
    heading = f"{'us an operation':22}{'bare':>8}" + "".join(f"{HEADINGS.get(one, one):>15}" for one in names)
    lines = [CLOCKS[clock], "", heading + f"{'x ddtrace':>12}{'x OTel':>8}"]
    for one in rows:
        cells = "".join(f"{_cell(one, name, clock):>15}" for name in names)
        ratios = (_ratio(one, "ddtrace", clock), _ratio(one, "opentelemetry", clock))
        lines.append(f"{one.row.title:22}{one.bare(clock):8.2f}{cells}{ratios[0]:>12}{ratios[1]:>8}")
    return "\n".join(lines)


def notes(rows: Sequence[Measured], contenders: Sequence[Contender], rounds: int, seconds: float) -> str:
    """What is below the tables."""
    lines = [f"{one.row.title}: {one.row.note}." for one in rows if one.row.note]
    lines += ["", FOOTNOTES.format(rounds=rounds, milliseconds=seconds * 1000)]
    versions = dict.fromkeys(one.version for one in contenders if one.version)
    lines.append("; ".join([*versions, f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"]))
    return "\n".join(lines)


def _cell(one: Measured, name: str, clock: Clock) -> str:
    added = one.added(name, clock)
    if added is None:
        why = one.absent[name]
        return f"- {why}" if len(why) < 12 else f"- {why[:11]}…"  # the column's width
    digits = 2 if abs(added[0]) < 100 else 0  # four of them fit
    return f"{added[0]:+.{digits}f} ±{added[1]:.{digits}f}"


def _ratio(one: Measured, other: str, clock: Clock) -> str:
    ratio = one.ratio("asynctrace", other, clock)
    return "-" if ratio is None else f"{ratio:.2f}"


def as_json(rows: Sequence[Measured], contenders: Sequence[Contender], rounds: int, seconds: float) -> Any:
    """Everything, each round of it, in microseconds an operation."""
    return {
        "unit": "us",
        "rounds": rounds,
        "round_seconds": seconds,
        "machine": {"cores": os.cpu_count(), "system": platform.platform()},
        "contenders": {one.name: one.version or one.absent for one in contenders},
        "rows": {one.row.key: _row(one, [name.name for name in contenders]) for one in rows},
    }


def _row(one: Measured, names: Sequence[str]) -> Any:
    return {
        "title": one.row.title,
        "note": one.row.note,
        "contenders": {
            name: {"absent": one.absent[name]} if name in one.absent else _figures(one, name)
            for name in names
        },
    }


def _figures(one: Measured, name: str) -> Any:
    figures: dict[str, Any] = {"operations_a_round": one.counts[name]}
    for clock in CLOCKS:
        added = one.added(name, clock)
        assert added is not None
        figures[clock] = {
            "added": added[0],
            "spread": added[1],
            "rounds": [sample.by(clock) for sample in one.samples[name]],
        }
    return figures
