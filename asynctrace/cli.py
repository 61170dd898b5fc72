"""The command line: `asynctrace view`, `asynctrace run -- CMD` and `asynctrace show ID|last`.

Exit codes: 0 done, 1 not found, 2 wrong usage; `run` has its command's own. An error is one line with a hint.
Nothing here loads ddtrace, and `show` needs the standard library only.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from asynctrace.agent.client import AgentError, fetch_trace, find_url
from asynctrace.agent.terminal import MAX_ROWS, MIN_WIDTH, draw_trace
from asynctrace.agent.text import glyphs_for, wants_color

NOT_THERE, USAGE = 1, 2
_INSTALL = 'pip install "asynctrace[view]"'
_SERVER_PARTS = ("aiohttp", "msgspec")

_EXAMPLES = """\
examples:
  asynctrace run -- ddtrace-run python app.py      run a program and draw its traces
  asynctrace view                                  watch traces of any program arrive on port 8126
  asynctrace show last                             draw the newest trace that `view` has
"""
_VIEW_EXAMPLES = """\
examples:
  asynctrace view                                  on port 8126, where ddtrace looks for an agent
  asynctrace view --tail --no-browser              in the terminal: a line for each trace
  asynctrace view --db traces.db --max-size 500    traces that are there tomorrow
  asynctrace view --forward http://agent:8126      beside a real agent, which gets everything
  asynctrace view --port 0 --port-file /tmp/port   on a free port, for scripts: they read it from the file

Every ddtrace program that finds it there sends its traces, no account needed. Nothing leaves this machine.
"""
_RUN_EXAMPLES = """\
examples:
  asynctrace run -- python app.py
  asynctrace run --max 1 -- ddtrace-run pytest tests/test_checkout.py
  asynctrace run --color always -- python app.py | less -R

The command sends its traces to an agent of its own; what it prints, its exit code and its signals are as
without asynctrace.
"""
_SHOW_EXAMPLES = """\
examples:
  asynctrace show last
  asynctrace show 6702f1a200000000aabbccddeeff0011 --width 110
  asynctrace show ddeeff0011                       the beginning or the end of an id will do
  asynctrace show last --json | jq .spans[].name
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    Args:
        arguments: without the program's name; `sys.argv`'s when left out.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.call(options)
        sys.stdout.flush()
        return code
    except AgentError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"asynctrace: {error}{hint}", file=sys.stderr)
        return USAGE if error.usage else NOT_THERE
    except BrokenPipeError:  # `asynctrace show last | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = partial(argparse.ArgumentParser, formatter_class=argparse.RawDescriptionHelpFormatter)
    top = parser(
        prog="asynctrace", description="Traces of asyncio programs, on this machine.", epilog=_EXAMPLES
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(title="commands", metavar="{view,run,show}", required=True)
    add = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_view(add)
    _add_run(add)
    _add_show(add)
    return top


def _add_view(add: Callable[..., argparse.ArgumentParser]) -> None:
    view = add("view", help="receive traces and show them in a browser, live", epilog=_VIEW_EXAMPLES)
    view.add_argument(
        "--port", type=_port, help="default: 8126, or a free one when it is taken; 0: a free one"
    )
    view.add_argument(
        "--host", default="127.0.0.1", help="default: %(default)s. Others can read your SQL on any other"
    )
    view.add_argument("--socket", metavar="PATH", help="listen at a unix socket as well")
    view.add_argument(
        "--otlp-port",
        type=_port,
        metavar="PORT",
        help="for OpenTelemetry over HTTP, default: 4318 without --port; its spans are taken on --port, too",
    )
    view.add_argument("--forward", metavar="URL", help="a real agent that gets everything as well")
    view.add_argument("--db", metavar="FILE", help="keep traces in this file; default: in memory")
    view.add_argument(
        "--max-size",
        type=_positive,
        default=64,
        metavar="MB",
        help="of the traces kept, default: %(default)s",
    )
    view.add_argument("--tail", action="store_true", help="print a line for each trace")
    view.add_argument("--no-browser", action="store_true", help="open no browser")
    view.add_argument("--port-file", metavar="PATH", help="write the port to this file when it listens")
    view.set_defaults(call=_view)


def _add_run(add: Callable[..., argparse.ArgumentParser]) -> None:
    run = add(
        "run",
        usage="asynctrace run [options] -- CMD ...",
        help="run a command and draw its traces when it ends",
        epilog=_RUN_EXAMPLES,
    )
    run.add_argument(
        "--max", type=_positive, default=20, metavar="N", help="newest traces to draw, default: %(default)s"
    )
    _add_drawing(run)
    run.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD ...", help="the command and its arguments"
    )
    run.set_defaults(call=_run, parser=run)


def _add_show(add: Callable[..., argparse.ArgumentParser]) -> None:
    show = add("show", help="draw one trace of a running agent", epilog=_SHOW_EXAMPLES)
    show.add_argument("id", metavar="ID|last", help="a trace id, its beginning or end, or `last`")
    show.add_argument("--url", help="the agent's, default: DD_TRACE_AGENT_URL, or http://localhost:8126")
    show.add_argument("--json", action="store_true", help="the trace as JSON instead")
    _add_drawing(show)
    show.set_defaults(call=_show)


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=_width, metavar="N", help="columns, default: the terminal's")
    parser.add_argument(
        "--rows",
        type=_count,
        default=MAX_ROWS,
        metavar="N",
        help="rows a trace, default: %(default)s; 0: all",
    )
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: on a terminal"
    )


class _Version(argparse.Action):
    """`--version`; looks it up only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from asynctrace.agent.version import asynctrace_version

        print(f"asynctrace {asynctrace_version()}")
        parser.exit()


def _whole_number(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):  # noqa: PLR2004  (digits)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def _port(text: str) -> int:
    return _whole_number(text, 0, 65_535)


def _positive(text: str) -> int:
    return _whole_number(text, 1, 1_000_000)


def _count(text: str) -> int:
    return _whole_number(text, 0, 1_000_000)


def _width(text: str) -> int:
    return _whole_number(text, MIN_WIDTH, 1_000)


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in _SERVER_PARTS if find_spec(name) is None]
    if missing:
        raise AgentError(f"the agent needs {' and '.join(missing)}", _INSTALL)


def _view(options: argparse.Namespace) -> int:
    _check_installed()
    from asynctrace.agent.live import ViewOptions, view

    asked = {name: value for name, value in vars(options).items() if name in ViewOptions.__dataclass_fields__}
    return view(ViewOptions(**asked, browser=not options.no_browser))


def _run(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        options.parser.error("what to run? asynctrace run -- python app.py")
    _check_installed()
    from asynctrace.agent.run import run

    return run(
        command, max_traces=options.max, width=options.width, color=options.color, max_rows=options.rows
    )


def _show(options: argparse.Namespace) -> int:
    trace = fetch_trace(find_url(options.url, os.environ), options.id)
    if options.json:
        print(json.dumps(trace.to_json(), indent=2))
    else:
        glyphs, color = glyphs_for(sys.stdout.encoding), wants_color(sys.stdout, options.color)
        print(draw_trace(trace, width=options.width, color=color, glyphs=glyphs, max_rows=options.rows))
    return 0
