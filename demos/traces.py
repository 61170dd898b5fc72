"""The traces of the demos: waited for, and shown with their reading, their address and their drawing."""

from __future__ import annotations

import select
import sys
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING

from asynctrace.agent import draw_trace
from asynctrace.agent.client import address_of
from asynctrace.agent.terminal import terminal_width
from asynctrace.agent.text import glyphs_for, wants_color
from demos.processes import DemoError

if TYPE_CHECKING:
    from asynctrace.agent import AgentThread, Trace
    from demos.processes import Running

TRACE_SECONDS = 10.0
READER_SECONDS = 600.0
READING_WIDTH = 100


def say(line: str) -> None:
    """One line, at once."""
    print(line, flush=True)


def known(agent: AgentThread) -> set[int]:
    """The traces that are there already."""
    return {trace.trace_id for trace in agent.store.traces()}


def new_trace(agent: AgentThread, before: set[int], services: set[str], running: Running) -> Trace:
    """The trace that was not there before, once all of it has arrived.

    Raises `DemoError` when it does not within 10 s.
    """
    try:
        return agent.wait_for(
            lambda one: one.trace_id not in before and _is_whole(one, services), TRACE_SECONDS
        )
    except TimeoutError as late:
        running.check()
        raise DemoError(f"the request's trace is not complete: {late}") from None


def _is_whole(trace: Trace, services: set[str]) -> bool:
    """All have sent, and nobody's parent is missing: each process sends a part when all of it has ended."""
    parents = {span.parent_id for span in trace.spans}
    return set(trace.services) == services and parents <= {0, *(span.span_id for span in trace.spans)}


def show(trace: Trace, title: str, reading: str, page: str) -> None:
    """Print what to look for, where the viewer has it, and the trace."""
    width = terminal_width()
    print(title)
    print(textwrap.fill(reading, min(width, READING_WIDTH)))
    print(f"In the browser: {address_of(page, trace.id)}", end="\n\n")
    color, glyphs = wants_color(sys.stdout), glyphs_for(sys.stdout.encoding)
    print(draw_trace(trace, width=width, color=color, glyphs=glyphs), end="\n\n", flush=True)


def wait_for_reader() -> None:
    """The page is gone when we are: whoever sits at the terminal is given time to look at it."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        say("The traces stay in the browser until you press Enter.")
        try:
            with suppress(OSError):  # where only sockets can be waited for
                select.select([sys.stdin], [], [], READER_SECONDS)
        except KeyboardInterrupt:  # another way to say the same
            print()
