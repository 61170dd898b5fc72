"""In which generator a span is opened, and whether that generator is suspended: then it is not what runs.

A frame tells where it stands. At a `yield` the consumer runs, at an `await` inside an async generator nobody else does.
Where it stands at a `yield` is read from the bytecode, once a function, for CPython 3.10 to 3.14.
"""

from __future__ import annotations

import dis
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType, FrameType

GENERATOR, ASYNC_GENERATOR = 0x20, 0x200
"""Flags of a code object (inspect.CO_GENERATOR, CO_ASYNC_GENERATOR)."""

LENDERS = ("contextlib", "_pytest.", "pytest_asyncio.")
"""Who advances a generator to run other people's code inside it: what is open at the `yield` is meant for them."""

_RESUMED_AFTER_YIELD = frozenset({1, 2})  # RESUME's argument after `yield` and `yield from`; 3 is `await`
_KNOWN = 4096  # functions remembered; programs that make code as they run must not fill the memory

_stops: dict[int, tuple[CodeType, frozenset[int]]] = {}


class Over:
    """Stands in for the frame of a generator whose span has ended: it stays suspended for ever."""

    f_lasti = -1


OVER = Over()
STOPS_OF_OVER = frozenset({-1})


def generator_around(frame: FrameType | None) -> FrameType | None:
    """`frame`, if it is a generator's that has a consumer; None for everything else."""
    if frame is None or not frame.f_code.co_flags & (GENERATOR | ASYNC_GENERATOR):
        return None
    caller = frame.f_back
    if caller is None or str(caller.f_globals.get("__name__", "")).startswith(LENDERS):
        return None
    return frame


def opener(frame: FrameType | None, library: str) -> FrameType | None:
    """The frame that called into a library, or the generator that the library runs on somebody's behalf."""
    while (
        frame is not None
        and not frame.f_code.co_flags & (GENERATOR | ASYNC_GENERATOR)
        and str(frame.f_globals.get("__name__", "")).startswith(library)
    ):
        frame = frame.f_back
    return frame


def stops(code: CodeType) -> frozenset[int]:
    """The values of `f_lasti` at which a frame of this code is suspended at a `yield`."""
    known = _stops.get(id(code))
    if known is not None and known[0] is code:
        return known[1]
    if len(_stops) >= _KNOWN:
        _stops.clear()
    found = frozenset(_stops_of_310(code) if sys.version_info < (3, 11) else _stops_of(code))
    _stops[id(code)] = (code, found)
    return found


def _stops_of(code: CodeType) -> list[int]:
    instructions = list(dis.get_instructions(code))
    at_resume = sys.version_info >= (3, 13)  # before that, the frame stands at the YIELD_VALUE itself
    return [
        (after if at_resume else before).offset
        for before, after in pairwise(instructions)
        if before.opname == "YIELD_VALUE"
        and after.opname == "RESUME"
        and (after.arg or 0) & 3 in _RESUMED_AFTER_YIELD
    ]


def _stops_of_310(code: CodeType) -> list[int]:
    """No RESUME tells what a YIELD_FROM is for: in an async generator it is an `await`."""
    instructions = list(dis.get_instructions(code))
    found = [one.offset for one in instructions if one.opname == "YIELD_VALUE"]
    if code.co_flags & GENERATOR:  # it stands before the YIELD_FROM, which it does again
        pairs = pairwise(instructions)
        found += [before.offset for before, after in pairs if after.opname == "YIELD_FROM"]
    return found


def is_left_by_exception(frame: FrameType) -> bool:
    """Whether an exception is on its way out of this frame, which has just let go of something.

    What a `break` or `return` lets go of is taken off the frame's stack by an instruction for it.
    """
    code = frame.f_code.co_code
    return dis.opname[code[frame.f_lasti]] not in {"POP_TOP", "POP_ITER"}
