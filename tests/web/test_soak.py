"""Many requests, through client and server: no span lost, none crossed, memory flat."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

import pytest

from tests.core.process import ROOT, environment
from tests.leaks.test_memory import MARGIN, SHARE


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [20_000, 100_000])
def test_many_requests(count: int) -> None:
    """Each answer has the trace id of whoever asked, each request its four spans, and what is used is given back."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.web.soak", str(count)],
        env=environment(DD_TRACE_AGENT_URL="http://127.0.0.1:9"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert (told["crossed"], done.stderr) == (0, "")
    assert told["spans"] == {
        "request None": count,
        "aiohttp.request client": count,
        "aiohttp.request server": count,
        "work None": count,
    }
    third = len(told["sizes"]) // 3
    middle, last = median(told["sizes"][third : 2 * third]), median(told["sizes"][2 * third :])
    assert last - middle < max(MARGIN, SHARE * middle)
