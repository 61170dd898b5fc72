"""The parent's side: the contenders' processes, and the dead end they send to."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.bench.kits import HOMES

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

ROOT = Path(__file__).parents[2]

Clock = Literal["loop", "process", "wall"]

PATIENCE = 60.0
"""Seconds for one answer: a round takes less than one."""


class Lost(Exception):
    """A process that answers no more."""


@dataclass(frozen=True)
class Sample:
    """One round, in microseconds an operation."""

    loop: float
    process: float
    wall: float

    def by(self, clock: Clock) -> float:
        """On one of the clocks."""
        return {"loop": self.loop, "process": self.process, "wall": self.wall}[clock]


class Contender:
    """A process that does rounds."""

    def __init__(self, name: str, agent: str, folder: str = "") -> None:
        self.name, self.version, self.absent = name, "", ""
        command = [sys.executable, "-m", "tests.bench.worker", name, folder]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(agent),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def greet(self) -> None:
        """Waits until it is set up."""
        answer = self._answer()
        self.version, self.absent = answer.get("version", ""), answer.get("absent", "")

    def round(self, row: str, count: int) -> Sample | str:
        """What one round of `count` operations took; or a word why it has no such row."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"row": row, "count": count}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Lost(f"{self.name} ended before {row}") from None
        answer = self._answer()
        if "absent" in answer:
            return str(answer["absent"])
        return Sample(*(answer[clock] / 1000 / count for clock in ("loop", "process", "wall")))

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)  # a line a question: never two
        line = self.process.stdout.readline() if ready else ""
        if not line:
            raise Lost(f"{self.name} {'ended' if ready else 'does not answer'}; its last words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        stop(self.process)


class Crew:
    """`with Crew(...)`: every contender, set up; gone at the end."""

    def __init__(self, against: str = "") -> None:
        self.against = against
        self.contenders: list[Contender] = []

    def __enter__(self) -> Self:
        self.agent = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.deadend"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert self.agent.stdout is not None
            address = self.agent.stdout.readline().strip()
            for name in HOMES:
                if name != "other" or self.against:
                    self.contenders.append(Contender(name, address, self.against if name == "other" else ""))
            for contender in self.contenders:
                contender.greet()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for contender in self.contenders:
            contender.stop()
        stop(self.agent)


def stop(process: subprocess.Popen[str]) -> None:
    """By the end of its input; by force if that is not enough."""
    try:
        process.communicate(timeout=10)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        process.kill()
        process.communicate()


def _environment(agent: str) -> dict[str, str]:
    """Nobody's settings of tracing, and what talks to more than the agent switched off."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DD_", "OTEL_"))}
    return {
        **inherited,
        "DD_TRACE_AGENT_URL": agent,
        "DD_SERVICE": "bench",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }
