"""Making, mending and entering an environment: real runs in a miniature of the repository, no network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demos.bootstrap import environment
from demos.bootstrap.interpreters import Interpreter, Trouble, ask, running
from tests.bootstrap.miniature import BASE, ROOT, Miniature

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
HERE = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture
def miniature(tmp_path: Path) -> Miniature:
    return Miniature(tmp_path / "clone")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """One whose environment is made already."""
    miniature = Miniature(tmp_path_factory.mktemp("made") / "clone")
    code, _, errors = miniature.run()
    assert code == 0, errors
    return miniature


def test_the_first_run_makes_it_and_the_second_is_past_it(miniature: Miniature) -> None:
    """What happens is said once; the second run is silent and quick; arguments pass through both times."""
    code, output, errors = miniature.run("-k", "a b")
    assert (code, output.split()) == (0, [str(miniature.venv), str(sys.version_info[1]), "-k", "a", "b"]), (
        errors
    )
    assert f"making .venv with Python {running().version}" in errors
    begin = time.monotonic()
    assert miniature.run("-k", "a b") == (0, output, "")
    assert time.monotonic() - begin < 3


def test_inside_an_environment_that_has_everything_there_is_no_other(made: Miniature) -> None:
    """Its own Python, called directly, is as good: nothing is made, nothing is said."""
    before = set(made.folder.iterdir())
    code, output, errors = made.run("-q", python=str(made.venv / "bin" / "python"))
    assert (code, output.split()[0], errors) == (0, str(made.venv), "")
    assert set(made.folder.iterdir()) == before


def test_an_environment_made_by_hand_is_used(made: Miniature) -> None:
    """No stamp, but everything is in it: it gets the stamp, and pip is not asked."""
    (made.venv / "asynctrace.json").unlink()
    code, output, errors = made.run()
    assert (code, output.split()[0], errors) == (0, str(made.venv), "")
    assert (made.venv / "asynctrace.json").exists()


def test_python_chooses_another_environment_beside_it(made: Miniature) -> None:
    """`--python` is for us; the environment carries the version in its name."""
    code, output, errors = made.run("--python", HERE, "-q", python=BASE)
    assert code == 0, errors
    assert output.split() == [str(made.folder / f".venv-{HERE}"), str(sys.version_info[1]), "-q"]
    code, _, errors = made.run("--python", "3.99")
    assert (code, errors.splitlines()[0].partition(" on PATH")[0]) == (1, "asynctrace: no Python 3.99")


def test_a_new_requirement_is_installed_into_what_is_there(made: Miniature) -> None:
    """Offline here, so pip fails: told with its words, a hint and exit code 1; the environment stays good."""
    made.require("no-such-thing>=1")
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "REQUIRES": "no-such-thing",
    }
    code, output, errors = made.run(**offline)
    assert (code, output) == (1, "")
    assert "No matching distribution found for no-such-thing" in errors
    assert "PIP_INDEX_URL" in errors
    assert "Traceback" not in errors
    made.require("")
    assert made.run()[::2] == (0, "")


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda venv: (venv / "asynctrace.unfinished").touch(), id="install-cut-short"),
        pytest.param(lambda venv: (venv / "bin" / "python").unlink(), id="no-python"),
        pytest.param(lambda venv: [path.unlink() for path in venv.glob("bin/*")], id="empty"),
    ],
)
def test_what_an_interrupted_run_left_is_mended(made: Miniature, harm: Callable[[Path], object]) -> None:
    """Half made is made anew, and said."""
    harm(made.venv)
    code, output, errors = made.run()
    assert (code, output.split()[0]) == (0, str(made.venv)), errors
    assert "making it anew" in errors
    assert made.run()[::2] == (0, "")


def test_a_clone_that_was_moved_gets_a_new_one(made: Miniature, tmp_path: Path) -> None:
    """An environment knows its place: copied along, it would run the other clone's code."""
    moved = Miniature(tmp_path / "moved")
    shutil.copytree(made.venv, moved.venv, symlinks=True)
    code, output, errors = moved.run()
    assert (code, output.split()[0]) == (0, str(moved.venv)), errors
    assert f"was made for {made.folder}: making it anew" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_cut_short_is_made_good_by_the_next(miniature: Miniature, number: int) -> None:
    """Ctrl-C while pip is at work: a clean message, exit code 130. The next run, whatever happened, mends it."""
    held = miniature.folder / "held"
    os.mkfifo(held)
    process = miniature.start(HOLD=str(held))
    held.open().close()  # until the build, which pip runs, opens its end
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "asynctrace: stopped." in errors
        assert "Traceback" not in errors
    _end_orphans(miniature.folder)
    code, output, errors = miniature.run()
    assert (code, output.split()[0]) == (0, str(miniature.venv)), errors
    assert "was left half made" in errors


def _end_orphans(folder: Path) -> None:
    """pip outlives a SIGKILL of its parent, its build outlives pip; they are ours to end."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOLD={folder}/".encode() in Path(process, "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def test_two_at_once_make_one(miniature: Miniature) -> None:
    """The second waits for the first, then goes on in what that made."""
    both = [miniature.start(), miniature.start()]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert sum("making .venv" in errors for _, errors in ends) == 1
    assert {output.split()[0] for output, _ in ends} == {str(miniature.venv)}


def test_a_checkout_that_cannot_be_written_is_told_what_to_do(
    miniature: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message gives the three commands that make an environment elsewhere."""
    monkeypatch.setattr(environment, "ROOT", miniature.folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    text = (ROOT / "pyproject.toml").read_text()
    with pytest.raises(Trouble, match=r"(?s)Read-only file system.*pip install -e '.*clone\[test\]'"):
        environment.Environment(miniature.venv, "test", text).make(running())


@pytest.fixture
def no_ensurepip(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> environment.Environment:
    """Debian's Python without the package python3-venv: no ensurepip, and so no pip in a new environment."""

    def without(path: str) -> Interpreter | None:
        found = ask(path)
        return found and Interpreter(found.path, found.version, ensurepip=False, pip=found.pip)

    monkeypatch.setattr(environment, "ask", without)
    monkeypatch.setattr(environment, "ROOT", miniature.folder)
    text = (miniature.folder / "pyproject.toml").read_text()
    return environment.Environment(miniature.venv, "test", text)


def test_without_ensurepip_a_pip_outside_installs(no_ensurepip: environment.Environment) -> None:
    """The environment has no pip of its own and everything else."""
    no_ensurepip.make(running())
    inside = ask(str(no_ensurepip.python))
    assert inside
    assert not inside.pip
    assert no_ensurepip.ready()


def test_without_any_pip_the_package_to_install_is_named(
    no_ensurepip: environment.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ensurepip nor a pip that knows --python: nothing can be done from here."""
    real = environment._run

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        failed: subprocess.CompletedProcess[str] = subprocess.CompletedProcess(
            command, 1, "no such option: --python"
        )
        return failed if "pip" in command else real(command)

    monkeypatch.setattr(environment, "_run", run)
    with pytest.raises(Trouble, match="apt install python3-venv"):
        no_ensurepip.make(running())
