"""Says what is happening while something takes its time: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

QUIET_SECONDS = 1.5
"""What is done sooner is not worth a line."""

LINE_SECONDS = 5.0
"""How often a log, which nobody can overwrite, gets another line."""


def say(message: str) -> None:
    """One line to the user, never in the way of a program's own output."""
    print(message, file=sys.stderr, flush=True)


class Progress:
    """`with Progress("starting RabbitMQ") as p:` shows the title, the seconds and the last `p.note(...)`."""

    def __init__(self, title: str, *, quiet: float = QUIET_SECONDS) -> None:
        self.title = title
        self.latest = ""
        self.shown = False
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._begin = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._begin = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if not self.shown:
            return
        if self._live:
            sys.stderr.write("\r\033[K")
        if kind is None:
            say(f"{self.title}: {self.seconds:.1f} s")

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._begin

    def note(self, text: str) -> None:
        """What it is doing just now."""
        self.latest = text

    def _tick(self) -> None:
        if self._done.wait(self._quiet):
            return
        self.shown = True
        while True:
            line = f"{self.title} ({self.seconds:.0f} s) {self.latest}".rstrip()
            if self._live:
                sys.stderr.write("\r\033[K" + line[: shutil.get_terminal_size().columns - 1])
                sys.stderr.flush()
            else:
                say(line)
            if self._done.wait(0.2 if self._live else LINE_SECONDS):
                return
