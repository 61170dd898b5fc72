"""Programs of the tests that need a process of their own: settings are read once, when ddtrace is imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any of its tracing settings, and with these."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DD_", "OTEL_"))}
    quiet = {
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "PYTHONPATH": str(ROOT),
    }
    return {**inherited, **quiet, **settings}


def run(program: str | Path, **settings: str) -> str:
    """What the program, text or file, printed. It must end well and log nothing: its standard error is empty."""
    words = [str(program)] if isinstance(program, Path) else ["-c", textwrap.dedent(program)]
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.strip()
