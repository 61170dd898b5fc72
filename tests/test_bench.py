"""`python3 -m tests.bench`: that it runs and says what it should. What it measures is no promise: no times here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.crew import Sample
from tests.bench.matrix import Measured
from tests.bench.rows import all_rows

ROOT = Path(__file__).parents[1]


def bench(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """In this environment, whatever it lacks: nothing is installed from within a test."""
    return subprocess.run(
        [python, "-m", "tests.bench", *arguments],
        env={**os.environ, "ASYNCTRACE_BOOTSTRAPPED": sys.prefix},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_quick(tmp_path: Path) -> None:
    """Every row is in the table and, with each round of each contender that has it, in the JSON."""
    done = bench("--quick", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    read = json.loads((tmp_path / "out.json").read_text())
    assert list(read["rows"]) == list(all_rows())
    for row in all_rows().values():
        assert f"\n{row.title}" in done.stdout
        contenders = read["rows"][row.key]["contenders"]
        assert list(contenders) == ["bare", "ddtrace", "opentelemetry", "asynctrace"]
        for figures in contenders.values():
            assert "absent" in figures or all(
                len(figures[clock]["rounds"]) == 3 for clock in ("loop", "process", "wall")
            )
        assert "absent" not in contenders["bare"]
        assert "absent" not in contenders["asynctrace"]


def test_a_table_fits_a_terminal() -> None:
    """`--help` teaches, needs no environment, and is no wider than 120 columns."""
    done = bench("--help", python=getattr(sys, "_base_executable", sys.executable))
    assert done.returncode == 0, done.stderr
    assert all(key in done.stdout for key in ("--against", *all_rows()))
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_a_row_that_is_not_there() -> None:
    """It is named, with those that are."""
    done = bench("--rows", "coroutine,nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert "coroutine" in done.stderr


def test_what_is_added() -> None:
    """Medians of the differences to bare's round beside it: a slow minute that hits both is no cost."""
    measured = Measured(all_rows()["off"])
    for name, costs in {"bare": (1, 1, 9), "ddtrace": (3, 3, 11), "asynctrace": (2, 2, 10)}.items():
        measured.samples[name] = [Sample(cost, cost, cost) for cost in costs]
    assert measured.added("ddtrace") == (2, 0)
    assert measured.ratio("asynctrace", "ddtrace") == 0.5
    assert measured.ratio("asynctrace", "bare") is None
    assert measured.added("opentelemetry") is None
