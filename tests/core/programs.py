"""The model's programs for real: as Python, run with the model's schedule, and what they were recorded to do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import singledispatchmethod
from typing import Any

from asynctrace import current_span
from asynctrace.testing import Recorder
from tests import model
from tests.model import Body, Program, Statement, Traced

QUIET_ROUNDS = 6
"""So many turns of the loop without a sign of life, and everybody waits: the longest way from an end to a wake-up."""

Main = Callable[["Turns"], Awaitable[None]]


class Turns:
    """Lets a program's tasks run one at a time, in the order that its schedule says, as `model.World` does.

    Every task waits for its turn wherever others could run. No real time passes: when nobody can go on, the deadline
    that was set last passes; without any, the oldest task is cancelled.
    """

    def __init__(self, schedule: tuple[int, ...] = (0,)) -> None:
        self.schedule = schedule
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.handles: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        self.deadlines: list[Any] = []
        self._known: list[asyncio.Task[Any]] = []
        self._waiting: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        self._signs = 0

    # -- for programs

    async def turn(self) -> None:
        """Wait until the schedule says that it is our turn."""
        me = asyncio.current_task()
        assert me is not None
        if me not in self._known:
            self._known.append(me)
        self._signs += 1
        self._waiting[me] = asyncio.get_running_loop().create_future()
        try:
            await self._waiting[me]
        finally:
            del self._waiting[me]
            if self.handles:  # what was finished elsewhere is active for its opener until that asks
                current_span()

    async def join(self, name: str, *, shield: bool = False) -> None:
        if (task := self.tasks.get(name)) is None:
            return
        try:
            await (asyncio.shield(task) if shield else task)
        finally:
            await self.turn()

    async def cancel(self, name: str) -> None:
        await self.turn()
        if name in self.tasks:
            self.tasks[name].cancel()
        await self.turn()

    def finish(self, name: str) -> None:
        if name in self.handles:
            self.handles[name].finish()

    @contextlib.asynccontextmanager
    async def timeout(self) -> AsyncIterator[None]:
        timeout: Any = getattr(asyncio, "timeout", None)  # new in 3.11; no program for 3.10 has one
        async with timeout(None) as deadline:
            self.deadlines.append(deadline)
            try:
                yield
            finally:
                if deadline in self.deadlines:
                    self.deadlines.remove(deadline)

    # -- the world

    async def play(self, main: Main) -> None:
        async def first() -> None:
            await self.turn()
            await main(self)

        self._known.append(asyncio.create_task(first()))
        await self._settle()
        now = 0
        while running := [task for task in self._known if not task.done()]:
            if ready := [self._waiting[task] for task in running if task in self._waiting]:
                ready[self.schedule[now % len(self.schedule)] % len(ready)].set_result(None)
                now += 1
            elif self.deadlines:
                self.deadlines.pop().reschedule(0)
            else:
                running[0].cancel()
            await self._settle()
        await asyncio.gather(
            *self._known, return_exceptions=True
        )  # nobody else may have asked for their exceptions
        for handle in self.handles.values():
            handle.finish()

    async def _settle(self) -> None:
        """Until everybody waits."""
        quiet, before = 0, self._signs_of_life()
        while quiet < QUIET_ROUNDS:
            await asyncio.sleep(0)
            now = self._signs_of_life()
            quiet, before = quiet + 1 if now == before else 0, now

    def _signs_of_life(self) -> tuple[int, int]:
        return self._signs, [task.done() for task in self._known].count(True)


def seen(main: Main, schedule: tuple[int, ...], loop: asyncio.AbstractEventLoop | None = None) -> str:
    """Run a program; its traces as text, as `model.drawn` has them."""
    with Recorder() as recorder:
        if loop is None:
            asyncio.run(Turns(schedule).play(main))
        else:
            loop.run_until_complete(Turns(schedule).play(main))
    return model.drawn(as_traced(recorder))


def as_traced(recorder: Recorder) -> list[Traced]:
    """The recorded spans as the model's; whatever can't be said in its terms is said in a span's outcome."""
    spans = recorder.spans + recorder.open
    known = {one.span_id: Traced(one.name, None) for one in spans}
    trace_ids = {one.span_id: one.trace_id for one in spans}
    roots = [one.trace_id for one in spans if one.parent_id is None]
    for one in spans:
        traced = known[one.span_id]
        traced.outcome = one.outcome if one.end_ns is not None else "open"
        if bool(one.error) != (one.outcome in {"error", "timeout"}):
            traced.outcome += f", but error={one.error}"
        if one.parent_id is not None:
            traced.parent = known.get(one.parent_id)
            if trace_ids.get(one.parent_id) != one.trace_id:
                traced.outcome += ", parent in no or another trace"
        elif roots.count(one.trace_id) > 1:
            traced.outcome += ", in a trace that has two first spans"
        for link in one.links:
            if trace_ids.get(link.span_id) == link.trace_id:
                traced.links.append(known[link.span_id])
            else:
                traced.outcome += ", a link to nowhere"
    return list(known.values())


# -- as Python

HEAD = """\
import asyncio
import contextlib
import contextvars

from ddtrace.trace import tracer

from asynctrace import SpanContext, atraced, attached, current_span, detached, span, spawn, start_span
from asynctrace.queues import TracedQueue
from tests.core.programs import seen


async def main(turns):
    turn, tasks, handles, kept = turns.turn, turns.tasks, turns.handles, turns.kept
"""

TAIL = """

if __name__ == "__main__":
    print(seen(main, {schedule}))
"""


def as_python(program: Program) -> str:
    """The program as a Python file, which prints its traces."""
    writer = Writer()
    lines = list(writer.lines(program.body))
    queues = [f"{name} = TracedQueue()" for name in sorted(writer.queues)]
    body = "\n".join(f"    {line}" for line in [*queues, *lines])
    return f"{HEAD}{body}\n{TAIL.format(schedule=program.schedule)}"


def compiled(program: Program) -> Main:
    """The program's `main`."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(as_python(program), "<program>", "exec"), names)
    main: Main = names["main"]
    return main


def indented(lines: Iterator[str] | list[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def has_items(body: Body) -> bool:
    """Whether a generator's body has a `yield` of its own."""
    return any(isinstance(one, model.Yield) or has_items(getattr(one, "body", ())) for one in body)


class Writer:
    """Writes statements as lines of Python."""

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self._count = 0

    def name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def lines(self, body: Body) -> Iterator[str]:
        for statement in body:
            yield from self.write(statement)
        if not body:
            yield "pass"

    def block(self, head: str, body: Body) -> Iterator[str]:
        yield head
        yield from indented(self.lines(body))

    def function(
        self, kind: str, body: Body, *, waits: bool = False, keyword: str = "async def"
    ) -> tuple[str, list[str]]:
        """The name of a nested function, and its lines."""
        name = self.name(kind)
        begin = ["    await turn()"] if waits else []
        return name, [f"{keyword} {name}():", *begin, *indented(self.lines(body))]

    def counted(self, head: str, body: Iterator[str], stop: int, *, last: str = "") -> Iterator[str]:
        """A loop that is left in its `stop`th turn."""
        count = self.name("n")
        if stop:
            yield f"{count} = 0"
        yield head
        yield from indented(body)
        if stop:
            yield from indented([f"{count} += 1", f"if {count} == {stop}:", "    break"])
        if last:
            yield f"    {last}"

    @singledispatchmethod
    def write(self, statement: Statement) -> Iterator[str]:
        raise NotImplementedError(statement)

    @write.register
    def _(self, one: model.Span) -> Iterator[str]:
        if one.how == "atraced":
            name, lines = self.function("call", one.body)
            yield from [f'@atraced("{one.name}")', *lines, f"await {name}()"]
        else:
            opener = "span" if one.how == "span" else "tracer.trace"
            yield from self.block(f'with {opener}("{one.name}"):', one.body)

    @write.register
    def _(self, one: model.Open) -> Iterator[str]:
        yield f'if "{one.name}" not in handles:'
        yield f'    handles["{one.name}"] = start_span("{one.name}")'

    @write.register
    def _(self, one: model.Finish) -> Iterator[str]:
        yield f'turns.finish("{one.name}")'

    @write.register
    def _(self, _: model.Turn) -> Iterator[str]:
        yield "await turn()"

    @write.register
    def _(self, _: model.Forever) -> Iterator[str]:
        yield "await asyncio.Event().wait()"

    @write.register
    def _(self, _: model.Fail) -> Iterator[str]:
        yield 'raise ValueError("no")'

    @write.register
    def _(self, one: model.Try) -> Iterator[str]:
        yield from self.block("try:", one.body)
        yield from ["except Exception:", "    await turn()", *indented(self.lines(one.handler))]

    @write.register
    def _(self, one: model.Timeout) -> Iterator[str]:
        yield from self.block("async with turns.timeout():", one.body)

    @write.register
    def _(self, one: model.Start) -> Iterator[str]:
        name, lines = self.function("work", one.body, waits=True)
        start = f"{one.how}({name}())" if one.how == "spawn" else f"asyncio.create_task({name}())"
        if one.span:
            start = f'spawn({name}(), name="{one.span}", relation="link")'
        yield from [*lines, f'tasks["{one.task}"] = {start}', "await turn()"]

    @write.register
    def _(self, one: model.Join) -> Iterator[str]:
        yield f'await turns.join("{one.task}"{", shield=True" if one.shielded else ""})'

    @write.register
    def _(self, one: model.Cancel) -> Iterator[str]:
        yield f'await turns.cancel("{one.task}")'

    @write.register
    def _(self, one: model.Gather) -> Iterator[str]:
        parts = [self.function("part", body, waits=True) for body in one.bodies]
        for _, lines in parts:
            yield from lines
        calls = ", ".join(f"{name}()" for name, _ in parts)
        yield from ["try:", f"    await asyncio.gather({calls})", "finally:", "    await turn()"]

    @write.register
    def _(self, one: model.Group) -> Iterator[str]:
        parts = [self.function("member", body, waits=True) for body in one.bodies]
        for _, lines in parts:
            yield from lines
        group = self.name("group")
        yield from ["try:", f"    async with asyncio.TaskGroup() as {group}:"]
        yield from (f"        {group}.create_task({name}())" for name, _ in parts)
        yield from ["finally:", "    await turn()"]

    @write.register
    def _(self, one: model.Callback) -> Iterator[str]:
        name = self.name("callback")
        yield from self.block(f"def {name}():", one.body)
        call = (
            "contextvars.copy_context().run"
            if one.how == "copy_context"
            else "asyncio.get_running_loop().call_soon"
        )
        yield from [f"{call}({name})", "await turn()"]

    @write.register
    def _(self, one: model.Keep) -> Iterator[str]:
        yield f'kept["{one.name}"] = SpanContext.current()'

    @write.register
    def _(self, one: model.Attached) -> Iterator[str]:
        what = f'attached(kept.get("{one.name}", SpanContext()))' if one.name else "detached()"
        yield from self.block(f"with {what}:", one.body)
        yield "current_span()"  # the block does not look itself whether what was active before has ended meanwhile

    @write.register
    def _(self, _: model.Yield) -> Iterator[str]:
        yield "yield"

    @write.register
    def _(self, one: model.Loop) -> Iterator[str]:
        sync = one.how == "sync"
        name, lines = self.function("items", one.generator, keyword="def" if sync else "async def")
        if one.name:
            yield f'@atraced("{one.name}")'
        yield from lines
        if not has_items(one.generator):
            yield from ["    return", "    yield"]
        if one.how == "gc":
            yield from self.counted(f"async for _ in {name}():", self.lines(one.body), one.stop)
        else:
            held, prefix, closing = self.name("held"), *(("", "closing") if sync else ("async ", "aclosing"))
            yield f"{prefix}with contextlib.{closing}({name}()) as {held}:"
            yield from indented(self.counted(f"{prefix}for _ in {held}:", self.lines(one.body), one.stop))

    # -- queues

    def queue(self, name: str) -> str:
        self.queues.add(name)
        return name

    @write.register
    def _(self, one: model.Put) -> Iterator[str]:
        yield from ["await turn()", f"{self.queue(one.queue)}.put_nowait(object())", "await turn()"]

    @write.register
    def _(self, one: model.Get) -> Iterator[str]:
        get = f"{self.queue(one.queue)}.get()"
        yield from [
            "await turn()",
            f"await {get if one.how == 'get' else f'asyncio.create_task({get})'}",
            "await turn()",
        ]

    @write.register
    def _(self, one: model.Processing) -> Iterator[str]:
        yield "await turn()"
        body = (model.Turn(), *one.body)
        yield from self.block(f'async with {self.queue(one.queue)}.processing("{one.name}"):', body)

    @write.register
    def _(self, one: model.BatchOf) -> Iterator[str]:
        yield "await turn()"
        body = (model.Turn(), *one.body)
        yield from self.block(f'async with {self.queue(one.queue)}.batch({one.number}, "{one.name}"):', body)

    @write.register
    def _(self, one: model.Each) -> Iterator[str]:
        yield "await turn()"
        body = self.lines((model.Turn(), *one.body))
        yield from self.counted(
            f"async for _ in {self.queue(one.queue)}:", body, one.number, last="await turn()"
        )
