"""The process of one contender: does a round whenever it is told to, on one event loop that stays.

A request is a line of JSON on standard input, {"row": key, "count": operations}; so is the answer on standard output.
The garbage collector is on during a round, as in a program. It runs once before each; and when a row begins, what is
alive then is frozen: modules are not looked at again, in no contender.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from time import perf_counter_ns, process_time_ns, thread_time_ns
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tests.bench.kits import Kit
    from tests.bench.rows import Operations, Row


def main(contender: str, folder: str = "") -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    from tests.bench.kits import load
    from tests.bench.rows import all_rows

    if folder:  # asynctrace comes from there; the bench, which is imported by now, does not
        sys.path.insert(0, folder)
    try:
        kit = load(contender)
    except ImportError as exc:
        _answer(answers, {"absent": f"not installed: {exc.name}"})
        return
    _answer(answers, {"version": kit.version})
    loop = asyncio.new_event_loop()
    worker = Worker(contender, kit, all_rows(), loop)
    for line in sys.stdin:
        _answer(answers, worker.round(**json.loads(line)))
    for row in worker.rows.values():
        loop.run_until_complete(row.close())
    loop.close()


def _answer(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class Worker:
    """A contender and the rows it has begun."""

    def __init__(
        self, contender: str, kit: Kit, rows: dict[str, Row], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.contender, self.kit, self.rows, self.loop = contender, kit, rows, loop
        self.begun: dict[str, Operations | str] = {}

    def round(self, row: str, count: int) -> dict[str, Any]:
        """One round: nanoseconds of the loop's thread, of the whole process until all is sent, and on the wall."""
        first = row not in self.begun
        if first:
            self.begun[row] = self.rows[row].of(self.contender, self.kit)
        operations = self.begun[row]
        if isinstance(operations, str):
            return {"absent": operations}
        gc.collect()
        if first:
            gc.freeze()
        process = process_time_ns()
        loop, wall = self.loop.run_until_complete(_timed(operations, count))
        self.kit.flush()
        return {"loop": loop, "wall": wall, "process": process_time_ns() - process}


async def _timed(operations: Operations, count: int) -> tuple[int, int]:
    wall, loop = perf_counter_ns(), thread_time_ns()
    figure = await operations(count)
    spent = thread_time_ns() - loop if figure is None else figure * count
    return spent, perf_counter_ns() - wall


if __name__ == "__main__":
    main(*sys.argv[1:])
