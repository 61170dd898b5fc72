"""The rounds: every contender in turn, over and over, so that a noisy minute is everybody's."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.crew import Clock, Contender, Sample
    from tests.bench.rows import Row

MOST = 5_000_000
"""Operations in a round."""


@dataclass
class Measured:
    """One row, measured."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def bare(self, clock: Clock = "loop") -> float:
        return median([one.by(clock) for one in self.samples["bare"]])

    def added(self, name: str, clock: Clock = "loop") -> tuple[float, float] | None:
        """(median, half the distance between the quartiles) of what it adds to bare's round beside it."""
        if name not in self.samples:
            return None
        pairs = zip(self.samples[name], self.samples["bare"], strict=True)
        differences = [one.by(clock) - bare.by(clock) for one, bare in pairs]
        if len(differences) < 2:  # quartiles want two
            return differences[0], 0.0
        low, middle, high = quantiles(differences, n=4, method="inclusive")
        return middle, (high - low) / 2

    def ratio(self, name: str, other: str, clock: Clock = "loop") -> float | None:
        """What it adds, as a multiple of what `other` adds; None where that is nothing that can be told."""
        mine, theirs = self.added(name, clock), self.added(other, clock)
        if mine is None or theirs is None or theirs[0] < max(2 * theirs[1], 0.02):
            return None
        return mine[0] / theirs[0]


def measure(
    row: Row, contenders: Sequence[Contender], rounds: int, seconds: float, note: Callable[[str], None]
) -> Measured:
    """So many rounds of that row, each about so long, after those that find out how many operations that is."""
    measured = Measured(row)
    note(f"{row.title}: warming up")
    present = [one for one in contenders if _begun(one, measured, seconds)]
    for number in range(rounds):
        note(f"{row.title}: round {number + 1} of {rounds}")
        turn = number % len(present)
        for contender in present[turn:] + present[:turn]:  # nobody always comes after the same one
            sample = contender.round(row.key, measured.counts[contender.name])
            assert not isinstance(sample, str)
            measured.samples.setdefault(contender.name, []).append(sample)
    return measured


def _begun(contender: Contender, measured: Measured, seconds: float) -> bool:
    """Warm-up rounds, four times as long each time, until the number of operations for one that counts is known."""
    row, count = measured.row, measured.row.lot
    if contender.absent:
        measured.absent[contender.name] = contender.absent
        return False
    while True:
        sample = contender.round(row.key, count)
        if isinstance(sample, str):
            measured.absent[contender.name] = sample
            return False
        if sample.wall * count / 1e6 >= seconds / 5 or count >= MOST:
            break
        count *= 4
    lots = max(1, round(seconds * 1e6 / sample.wall / row.lot))
    measured.counts[contender.name] = min(lots * row.lot, MOST)
    return True
