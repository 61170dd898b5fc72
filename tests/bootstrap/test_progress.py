"""What takes its time is seen to go on: a live line on a terminal, plain lines in a log, nothing when quick."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from demos.bootstrap.environment import at_what
from demos.bootstrap.progress import Progress


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        count = super().write(text)
        if "working" in text:
            self.written.set()
        return count


def show(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    stream = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("working", quiet=0) as progress:
        progress.note("on it")
        assert stream.written.wait(5)
    return stream.getvalue()


def test_a_terminal_has_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written over, and gives way to how long it took."""
    shown = show(monkeypatch, terminal=True)
    assert shown.startswith("\r\033[Kworking (0 s)")
    assert "\n" not in shown.partition("working: ")[0]
    assert shown.endswith(" s\n")


def test_a_log_has_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control characters, the same words."""
    shown = show(monkeypatch, terminal=False)
    assert "\r" not in shown
    assert "\033" not in shown
    assert shown.splitlines()[0].startswith("working (0 s)")
    assert shown.splitlines()[-1].startswith("working: ")


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what takes longer than a second or two is worth a line."""
    with Progress("working"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("Collecting ddtrace<5,>=4.10 (from asynctrace==0.1.0)", "collecting ddtrace<5,>=4.10"),
        (
            "  Downloading https://x/y/uvloop-1.whl.metadata (4 kB)",
            "downloading uvloop-1.whl.metadata (4 kB)",
        ),
        ("Installing collected packages: a, b, c", "installing 3 packages"),
        ("  Installing build dependencies: started", "installing build dependencies"),
        ("Looking in links: /somewhere", ""),
        ("", ""),
    ],
)
def test_the_telling_words_of_pip_are_shown(line: str, note: str) -> None:
    """What is being collected, downloaded or installed; the rest only when it fails."""
    assert at_what(line) == note
