"""Random programs against the model of the rules, `tests/model.py`, on both event loops."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from tests.core.programs import as_python, compiled, seen
from tests.model import (
    Attached,
    BatchOf,
    Body,
    Callback,
    Cancel,
    Each,
    Fail,
    Finish,
    Forever,
    Gather,
    Get,
    Group,
    Join,
    Keep,
    Loop,
    Open,
    Processing,
    Program,
    Put,
    Span,
    Start,
    Statement,
    Timeout,
    Try,
    Turn,
    Unclear,
    Yield,
    drawn,
    expected,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUEUES = ("q1", "q1", "q1", "q2")
SIZE = 22
DEPTH = 5


@dataclass(frozen=True)
class Room:
    """What can be said at some point of a program."""

    depth: int = DEPTH
    tasks: list[str] = field(default_factory=list)
    """Those this task has started: nobody else awaits them."""
    waits: bool = True
    """Not a callback, nor the body of a loop over a generator that is left to the garbage collector."""
    items: bool = False
    """In a generator that is not called from inside another function."""
    generator: bool = False
    plain: bool = False
    """In a generator without a decorator, or a loop over one. Frames can't tell who was started where, there."""
    timeout: bool = False
    """Python before 3.13 counts the cancellations of a task group's owner wrong."""

    gets: bool = True
    """Not in an `attached()` or `detached()` block."""

    @property
    def deeper(self) -> Room:
        return replace(self, depth=self.depth - 1)

    @property
    def task(self) -> Room:
        return Room(self.depth - 1)

    def kinds(self) -> list[str]:  # noqa: C901 - a list, in order
        """Simple things first: failing programs shrink towards them."""
        kinds = ["span"] * 6 + ["keep"]
        blocks = self.depth > 0
        if blocks:
            kinds += ["attached"] * (not self.plain)
        if not self.plain:
            kinds += ["open", "finish"]
        if self.items:
            kinds += ["yield"] * 4
        if not self.waits:
            return kinds
        kinds += ["turn", "turn", "forever", "fail", *["put"] * 3]
        if blocks:
            kinds += ["try", "timeout"] if sys.version_info >= (3, 11) else ["try"]
        if not self.plain:
            kinds += ["join", "cancel", "cancel"]
            kinds += ["join"] * 2 * bool(self.tasks)
            if blocks:
                kinds += ["start", "start", "start", "gather", "callback"]
                kinds += ["group"] * (sys.version_info >= (3, 11) and not self.timeout)
        if blocks:
            kinds += ["loop", "loop"]
        if not self.generator and self.gets:
            kinds += ["get"] * 3
            if blocks:
                kinds += ["processing", "batch", "each"]
        return kinds


class Drawing:
    """Makes up one program. Every byte is a choice; where there are no more of them, the simplest is made."""

    def __init__(self, choices: bytes) -> None:
        self.choices, self.left, self.count = iter(choices), SIZE, 0
        self.handles: list[str] = []
        self.kept: list[str] = []
        self.tasks: list[str] = []

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def number(self, least: int, most: int) -> int:
        return least + next(self.choices, 0) % (most - least + 1)

    def one_of(self, *choices: Any) -> Any:
        return choices[self.number(0, len(choices) - 1)]

    def body(self, room: Room, most: int = 3) -> Body:
        statements: list[Statement] = []
        kinds = room.kinds()
        for _ in range(self.number(1, most)):
            if self.left > 0:
                self.left -= 1
                statements.append(self.statement(self.one_of(*kinds), room))
        return tuple(statements)

    def statement(self, kind: str, room: Room) -> Statement:
        one: Statement = getattr(self, kind)(room)
        return one

    def span(self, room: Room) -> Statement:
        how = self.one_of("span", "ddtrace", *["atraced"] * room.waits)
        frame = room.items and how != "atraced"
        inside = replace(room.deeper, items=frame, plain=room.plain or frame)
        return Span(self.name("s"), self.body(inside) if room.depth > 0 else (), how)

    def open(self, _: Room) -> Statement:
        self.handles.append(self.name("h"))
        return Open(self.handles[-1])

    def finish(self, room: Room) -> Statement:
        return Finish(self.one_of(*self.handles)) if self.handles else self.open(room)

    def turn(self, _: Room) -> Statement:
        return Turn()

    def forever(self, _: Room) -> Statement:
        return self.one_of(Turn(), Forever())  # type: ignore[no-any-return]

    def fail(self, _: Room) -> Statement:
        return self.one_of(Turn(), Fail())  # type: ignore[no-any-return]

    def try_(self, room: Room) -> Statement:
        return Try(self.body(room.deeper), self.body(replace(room.deeper, depth=0)))

    def timeout(self, room: Room) -> Statement:
        return Timeout(self.body(replace(room.deeper, timeout=True)))

    def start(self, room: Room) -> Statement:
        how = self.one_of("create_task", "spawn", "link")
        body = self.body(room.task)
        name = self.name("t")
        self.tasks.append(name)
        room.tasks.append(name)
        return Start(name, body, "spawn", self.name("s")) if how == "link" else Start(name, body, how)

    def join(self, room: Room) -> Statement:
        return Join(self.one_of(*room.tasks), self.one_of(False, True)) if room.tasks else self.span(room)

    def cancel(self, room: Room) -> Statement:
        return Cancel(self.one_of(*self.tasks)) if self.tasks else self.span(room)

    def gather(self, room: Room) -> Statement:
        return Gather(tuple(self.body(room.task) for _ in range(2)))

    def group(self, room: Room) -> Statement:
        return Group(tuple(self.body(room.task) for _ in range(2)))

    def callback(self, room: Room) -> Statement:
        return Callback(
            self.body(Room(room.depth - 1, waits=False)), self.one_of("call_soon", "copy_context")
        )

    def keep(self, _: Room) -> Statement:
        self.kept.append(self.name("k"))
        return Keep(self.kept[-1])

    def attached(self, room: Room) -> Statement:
        return Attached(self.one_of("", *self.kept), self.body(replace(room.deeper, gets=False)))

    # -- generators

    def yield_(self, _: Room) -> Statement:
        return Yield()

    def loop(self, room: Room) -> Statement:
        plain = self.one_of(False, True)
        how = self.one_of("aclosing", "gc", "sync")
        inside = replace(room.deeper, items=True, generator=True, plain=room.plain or plain)
        if how == "sync":
            inside = replace(inside, waits=False)
        body = replace(room.deeper, items=False, plain=room.plain or plain)
        if how == "gc":
            body = replace(body, depth=0, waits=False, plain=True)
        name = "" if plain else self.name("s")
        stop = self.number(0, 2)
        return Loop(name, self.body(inside, 4), self.body(body), stop, how)

    # -- queues

    def worker(self, room: Room) -> Body:
        """Takes what there is."""
        kinds = ("get", "get", "span", "start", "each", "processing", "batch")
        return tuple(self.statement(self.one_of(*kinds), room) for _ in range(self.number(1, 5)))

    def put(self, _: Room) -> Statement:
        return Put(self.one_of(*QUEUES))

    def get(self, _: Room) -> Statement:
        return Get(self.one_of(*QUEUES), self.one_of("get", "create_task"))

    def processing(self, room: Room) -> Statement:
        return Processing(self.one_of(*QUEUES), self.name("s"), self.body(room.deeper))

    def batch(self, room: Room) -> Statement:
        return BatchOf(self.one_of(*QUEUES), self.one_of(1, 2, 3), self.name("s"), self.body(room.deeper))

    def each(self, room: Room) -> Statement:
        inside = replace(room.deeper, generator=True)  # no get() within a turn
        return Each(self.one_of(*QUEUES), self.one_of(1, 2), self.body(inside))


setattr(Drawing, "try", Drawing.try_)
setattr(Drawing, "yield", Drawing.yield_)


def program(choices: bytes) -> Program:
    """A program of a few statements."""
    drawing = Drawing(choices)
    schedule = tuple(drawing.number(0, 3) for _ in range(drawing.number(1, 4)))
    body = drawing.body(Room(), 8)
    if drawing.one_of(False, True):
        room = Room().task
        items = tuple(Span(drawing.name("p"), (Put("q1"),)) for _ in range(3))
        worker = Start("w", drawing.worker(room) + drawing.body(room))
        body = (worker, *items, *body) if drawing.one_of(False, True) else (*items, worker, *body)
    return Program(body, schedule)


CHOICES = 200
"""More than programs need, but for a few."""

PROGRAMS = st.binary(min_size=CHOICES, max_size=CHOICES).map(program)
"""Made of a row of bytes: to draw each choice by itself takes as long as all the rest, and finds no more."""


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(params=LOOPS)
def loop(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that nothing is left running in."""
    # what fails in a spawned task is logged, and is meant to be
    caplog.set_level(logging.CRITICAL, "asynctrace")
    loop = LOOPS[request.param]()
    yield loop
    left = asyncio.all_tasks(loop)
    loop.close()
    assert not left, f"tasks left running: {left}"


def check(program: Program, loop: asyncio.AbstractEventLoop) -> None:
    """The program's traces are the model's."""
    try:
        wanted = drawn(expected(program))
    except Unclear:
        assume(False)
    got = seen(compiled(program), program.schedule, loop)
    if got != wanted:
        pytest.fail(f"{as_python(program)}\n# expected:\n{wanted}\n\n# recorded:\n{got}", pytrace=False)


def these(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(60)
@these(300)
@given(program=PROGRAMS)
def test_random_programs(program: Program, loop: asyncio.AbstractEventLoop) -> None:
    """Whatever a program is made of, every span is where the model says, and ends as it says."""
    check(program, loop)


@pytest.mark.slow
@pytest.mark.timeout(240)
@these(4000)
@given(program=PROGRAMS)
def test_many_random_programs(program: Program, loop: asyncio.AbstractEventLoop) -> None:
    """The same for many more."""
    check(program, loop)
