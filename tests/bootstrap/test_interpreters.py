"""Which Python is used: the one asked for, found where Pythons are, if it answers."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from demos.bootstrap.enter import folder_for, take_python
from demos.bootstrap.interpreters import Trouble, ask, find, running
from tests.bootstrap.miniature import BASE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

HERE = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture
def only_pyenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing but shims that name a Python and have none; and one Python in pyenv's folder."""
    shims, python = tmp_path / "shims", tmp_path / "pyenv" / "versions" / "some" / "bin" / "python3"
    shims.mkdir()
    for name in (f"python{HERE}", "python3", "python"):
        (shims / name).write_text("#!/bin/sh\nexit 127\n")
        (shims / name).chmod(0o755)
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {BASE} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(shims))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return python


@pytest.mark.parametrize("wanted", [HERE, f"python{HERE}"])
def test_a_shim_that_does_not_answer_is_passed_over(wanted: str, only_pyenv: Path) -> None:
    """pyenv leaves commands of versions that are not active: they exit 127. Its folder is looked into."""
    assert ask(f"{only_pyenv.parents[4]}/shims/python3") is None
    assert find(wanted).path == str(only_pyenv)


def test_a_python_that_is_not_there_is_said_with_those_that_are(only_pyenv: Path) -> None:
    """What was found helps to choose another; a path always works."""
    with pytest.raises(Trouble, match=rf"no Python 3\.99 .*\n?.*Found: {running().version}"):
        find("3.99")
    assert find(str(only_pyenv)).version == running().version


def test_a_python_that_is_too_old_is_refused(only_pyenv: Path) -> None:
    """It is there, it was asked for, and it cannot run us."""
    only_pyenv.write_text("""#!/bin/sh\necho '{"version": [3, 9, 18], "ensurepip": true, "pip": true}'\n""")
    with pytest.raises(Trouble, match=r"needs Python 3\.10 or newer; .* is 3\.9\.18"):
        find("3.9")


def test_a_version_matches_by_its_parts() -> None:
    """3.1 is not 3.12, and 3 is every 3."""
    assert running().is_version(HERE)
    assert running().is_version("3")
    assert not running().is_version(HERE[:-1])


def test_python_is_taken_out_of_the_arguments() -> None:
    """In both spellings, wherever it stands, but for what follows `--`; the others pass through."""
    assert take_python(["-k", "x", "--python", "3.12", "-q"]) == (["-k", "x", "-q"], "3.12")
    assert take_python(["--python=3.12"]) == ([], "3.12")
    assert take_python(["-x", "--", "--python", "3.12"]) == (["-x", "--", "--python", "3.12"], None)
    with pytest.raises(Trouble, match="wants a version"):
        take_python(["--python"])


def test_every_version_has_its_own_environment() -> None:
    """`.venv`, and `.venv-3.12` beside it, however the version was written."""
    assert folder_for(None) == ROOT / ".venv"
    assert folder_for("3.12") == folder_for("python3.12") == folder_for("3.12.1") == ROOT / ".venv-3.12"
    assert folder_for(sys.executable) == ROOT / f".venv-{HERE}"


@pytest.mark.parametrize("file", ["demos/__init__.py", "demos/__main__.py", "demos/bootstrap/__init__.py"])
def test_an_old_python_can_read_what_tells_it_that_it_is_old(file: str) -> None:
    """The way to the message is in the grammar of Python 3.6."""
    ast.parse((ROOT / file).read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("module", ["tests", "demos"])
def test_an_old_python_is_told_what_is_needed(module: str) -> None:
    """One message, exit code 1, no traceback. (An old interpreter is played by a changed floor.)"""
    code = f"import sys, demos.bootstrap as b; b.FLOOR = (4, 2)\nb.ensure('test', {module!r}, [])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"asynctrace needs Python 4.2 or newer; this is {HERE} (")
    assert f"-m {module}" in done.stderr
    assert "Traceback" not in done.stderr
