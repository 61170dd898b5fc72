"""The whole way, once: a fresh clone, nothing but Python and pip, a network, and our real requirements."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.bootstrap.miniature import BASE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def clone() -> Iterator[Path]:
    """A copy of all that git would clone. Not in pytest's folder, which is kept: this one grows to 300 MB."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    with TemporaryDirectory(prefix="asynctrace-clone-") as folder:
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).exists():
                copy = Path(folder).resolve() / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy)
        yield Path(folder).resolve()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fresh_clone_runs_its_tests(clone: Path) -> None:
    """`python3 -m tests` makes its environment; the second time it is past this within 3 s."""
    command = [BASE, "-m", "tests", "--version"]
    first = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stdout.split()[:1]) == (0, ["pytest"]), first.stderr
    assert "installing it with" in first.stderr
    begin = time.monotonic()
    second = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begin
    assert (second.returncode, second.stderr) == (0, "")
    assert seconds < 3
    print(f"the second run took {seconds:.2f} s")
    quick = ["-q", "tests/bootstrap/test_requirements.py"]
    assert subprocess.run([*command[:3], *quick], cwd=clone, check=False).returncode == 0
