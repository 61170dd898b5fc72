"""Many requests, through client and server: no span lost, none crossed, memory flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median

import pytest

from tests.core.process import ROOT, environment
from tests.leaks.test_memory import MARGIN, SHARE

COUNT = int(os.environ.get("ASYNCTRACE_SOAK", "20000"))
"""How many requests; `ASYNCTRACE_SOAK=100000` for a night's worth."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_requests() -> None:
    """Each answer has the trace id of whoever asked, each request its four spans, and what is used is given back."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.web.soak", str(COUNT)],
        env=environment(DD_TRACE_AGENT_URL="http://127.0.0.1:9"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert (told["crossed"], done.stderr) == (0, "")
    assert told["spans"] == {
        "request None": COUNT,
        "aiohttp.request client": COUNT,
        "aiohttp.request server": COUNT,
        "work None": COUNT,
    }
    third = len(told["sizes"]) // 3
    middle, last = median(told["sizes"][third : 2 * third]), median(told["sizes"][2 * third :])
    assert last - middle < max(MARGIN, SHARE * middle)
