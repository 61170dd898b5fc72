"""The README does what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demos.rows import drawings

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
BASH = re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
PICTURES = re.findall(r"^```text\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BASH for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("program", PYTHON, ids=lambda text: text.splitlines()[0])
def test_every_program_runs(program: str) -> None:
    """Each block of Python is a program that runs as it stands."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_first_program_is_drawn_as_shown(tmp_path: Path) -> None:
    """`asynctrace run` draws the first program with the names, services and order that the README shows."""
    (tmp_path / "shop.py").write_text(PYTHON[0], encoding="utf-8")
    command = [sys.executable, "-m", "asynctrace", "run", "--width", "100", "--", sys.executable, "shop.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert drawings(ran.stdout) == drawings(PICTURES[0])
    assert len(drawings(ran.stdout)[0]) == 4
    assert ran.stdout.splitlines()[-1].endswith(": 4 spans, 1 service (shop)")


def test_every_command_it_names_is_there() -> None:
    """Modules, their arguments, subcommands and extras in the README's commands exist."""
    shown = [sys.executable, "-m", "demos", "--help"]
    known = subprocess.run(shown, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in COMMANDS:
        words = shlex.split(line, comments=True)
        if words[:2] == ["python3", "-m"]:
            assert (ROOT / words[2] / "__main__.py").exists(), line
            assert all(word in known for word in words[3:]), line
        if "install" in words:
            extras = re.findall(r"\[(.*?)\]", line)[0].split(",")
            assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras), line
    for subcommand in re.findall(r"`asynctrace (\w+)", TEXT):
        help_text = [sys.executable, "-m", "asynctrace", subcommand, "--help"]
        assert subprocess.run(help_text, capture_output=True, check=False).returncode == 0, subcommand


def test_every_name_it_uses_is_public() -> None:
    """Names in the text that look like ours are ours."""
    import asynctrace
    import asynctrace.aio_pika
    import asynctrace.aiohttp

    rooms = (asynctrace, asynctrace.aiohttp, asynctrace.aio_pika)
    for name in re.findall(r"`(?:asynctrace\.aiohttp\.)?(traced_\w+|install|atraced|span|SpanContext)", TEXT):
        assert any(hasattr(room, name) for room in rooms), name
