"""The command line of `python3 -m tests.bench`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from demos import services
from demos.bootstrap.progress import Progress, say
from tests.bench import table
from tests.bench.crew import Crew, Lost
from tests.bench.matrix import measure
from tests.bench.rows import SERVERS, all_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.crew import Contender
    from tests.bench.matrix import Measured
    from tests.bench.rows import Row

HELP = """\
What tracing costs: the same operation untraced ("bare"), under ddtrace, under OpenTelemetry and under asynctrace, each
in a process of its own, side by side in one run. What is shown is what each adds to bare.

The first table is what the event loop's thread pays, which is what every other request waits for. The second is the
whole process: a thread that sends spans takes the GIL from the loop. The third, in JSON only, is time on the wall.
"""

EXAMPLES = """\
rows:
{rows}

examples:
  python3 -m tests.bench                        the whole matrix, a minute or two
  python3 -m tests.bench --quick                does everything once, to see that it runs; the numbers mean nothing
  python3 -m tests.bench --rows coroutine,off --rounds 101     two rows, exactly
  python3 -m tests.bench --against ../before    with a second asynctrace, from that checkout, beside this one
  python3 -m tests.bench --json out.json        all rounds of all rows, for a program to read

On a busy machine trust the ratios, and look at ±: of two numbers closer than that, none is the smaller one.
"""


def run(argv: list[str]) -> int:
    """Measures and prints; 0 when all went well."""
    arguments = _parser().parse_args(argv)
    rows = all_rows()
    if unknown := [key for key in arguments.rows if key not in rows]:
        say(f"no row {', '.join(unknown)}; there are {', '.join(rows)}")
        return 2
    rounds, seconds = (3, 0.002) if arguments.quick else (arguments.rounds, arguments.milliseconds / 1000)
    try:
        chosen = [rows[key] for key in arguments.rows or rows]
        with Progress("bench") as progress, _servers(chosen), Crew(arguments.against) as crew:
            measured = [measure(row, crew.contenders, rounds, seconds, progress.note) for row in chosen]
            contenders = crew.contenders
    except Lost as lost:
        say(f"bench: {lost}")
        return 1
    _print(measured, contenders, rounds, seconds)
    if arguments.json:
        data = table.as_json(measured, contenders, rounds, seconds)
        Path(arguments.json).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


@contextlib.contextmanager
def _servers(rows: Sequence[Row]) -> Iterator[None]:
    """The servers that rows ask for, found or started, for every contender."""
    with contextlib.ExitStack() as stack:
        for server in {row.server for row in rows if row.server}:
            service = stack.enter_context(getattr(services, server)())
            os.environ[SERVERS[server]] = service.url
        yield


def _print(measured: list[Measured], contenders: list[Contender], rounds: int, seconds: float) -> None:
    print(table.text(measured, contenders, "loop"), end="\n\n")
    print(table.text(measured, contenders, "process"), end="\n\n")
    print(table.notes(measured, contenders, rounds, seconds))


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {key:12}{row.title}" for key, row in all_rows().items())
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.bench",
        description=HELP,
        epilog=EXAMPLES.format(rows=rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rows", type=_words, default=[], metavar="ROW,...", help="only these (default: all)"
    )
    parser.add_argument("--rounds", type=_positive, default=21, help="rounds a row (default: 21)")
    parser.add_argument(
        "--milliseconds", type=_positive, default=40, metavar="MS", help="length of a round (default: 40)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all rounds of all rows there")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 ms: only to see that it runs")
    parser.add_argument(
        "--against", metavar="CHECKOUT", default="", help="another asynctrace, beside this one"
    )
    parser.add_argument("--python", metavar="VERSION", help="another interpreter, as in python3 -m tests")
    return parser


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
