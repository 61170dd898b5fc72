"""Programs that go on for ever: their memory does not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.core.process import ROOT, environment
from tests.leaks.workloads import WORKLOADS

MARGIN, SHARE = 4 * 2**20, 0.02
"""So much more (bytes, or a share of it, whichever is more) the last third of a run may have than the middle third."""

LEAK = "kept_spans"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc: nobody tells the memory"),
]


def growth(workload: str) -> float:
    """From the middle third of a run to the last, as a share of what is allowed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.leaks.workloads", workload],
        env=environment(DD_TRACE_AGENT_URL="http://127.0.0.1:9"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    sizes = [int(size) for size in done.stdout.split()]
    third = len(sizes) // 3
    middle, last = median(sizes[third : 2 * third]), median(sizes[2 * third :])
    return (last - middle) / max(MARGIN, SHARE * middle)


@pytest.mark.parametrize("workload", sorted(WORKLOADS.keys() - {LEAK}))
def test_memory_does_not_grow(workload: str) -> None:
    """Neither by 4 MiB nor by 2 %."""
    assert growth(workload) < 1


def test_a_leak_would_be_seen() -> None:
    """A program that keeps its 30,000 spans fails."""
    assert growth(LEAK) > 1
