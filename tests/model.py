"""The rules: what traces a small program makes. A pure function, written without asynctrace and ddtrace.

A program is made of the statements below. Each says, in `run`, what it does to what is active; read them one by one.
What is active is a `Place`'s business, who runs when is the `World`'s. In short:

- A span's parent is what is active where the span is opened.
- A task, or a callback, inherits what is active where it is started. That stays its parent, for its first span and for
  every later one, whether or not it has ended meanwhile.
- A span that has ended is active no more for who opened it: the one before it is again.
- A generator's span is active only while the generator's own code runs.
- What was received belongs to its producer, until the next `get`.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

Wait = Callable[[], bool]
"""What somebody waits for: true when they can go on."""

Steps = Generator[Wait, None, None]
"""A run that stops where others may run, telling what it waits for."""


class Failed(Exception):
    """Something went wrong."""


class TimedOut(Exception):
    """A deadline has passed."""


class Cancelled(BaseException):
    """Somebody has cancelled the task."""


class Unclear(Exception):
    """Python's versions differ in what happens here: no program to test a tracer with."""


OUTCOMES: dict[type[BaseException], str] = {
    Failed: "error",
    TimedOut: "timeout",
    Cancelled: "cancelled",
    GeneratorExit: "closed",
}
"""A span's outcome is told by the exception that leaves it; what is caught inside is nobody's business."""


# -- what is recorded


@dataclass(eq=False)
class Traced:
    """A span: below its parent, in its parent's trace; without one, the first of a trace."""

    name: str
    parent: Traced | None
    links: list[Traced] = field(default_factory=list)
    outcome: str = ""
    before: Traced | None = None  # what was active where `start_span()` was called

    @property
    def ended(self) -> bool:
        return bool(self.outcome)

    @property
    def path(self) -> str:
        return self.name if self.parent is None else f"{self.parent.path}/{self.name}"


def drawn(spans: list[Traced]) -> str:
    """The traces as text: children indented below their parents, in no order that depends on time."""

    def tree(one: Traced, indent: str) -> str:
        links = "".join(sorted(f" -> {link.path}" for link in one.links))
        below = sorted(tree(child, f"{indent}  ") for child in spans if child.parent is one)
        return "\n".join([f"{indent}{one.name} ({one.outcome}){links}", *below])

    return "\n".join(sorted(tree(one, "") for one in spans if one.parent is None))


# -- what is active


@dataclass
class Batch:
    """What a task has received since its last span."""

    producers: list[Traced | None] = field(default_factory=list)
    asked_again: bool = False
    used: bool = False

    def ask(self) -> None:
        """A `get` after a span starts afresh; one without a span since the last makes a batch."""
        if self.used:
            self.forget()
        self.asked_again = bool(self.producers)

    def forget(self) -> None:
        self.producers, self.asked_again, self.used = [], False, False

    @property
    def is_one(self) -> bool:
        return len(self.producers) == 1 and not self.asked_again


@dataclass(eq=False)
class Given:
    """What `attached` (or, with None, `detached`) makes active."""

    target: Traced | None
    ended: bool = False


@dataclass(eq=False)
class Received:
    """Active after `get`: the producer of the item, or nobody when the items make a batch."""

    batch: Batch
    producer: Traced | None = None
    block: Given | None = None  # of `detached()`, in which it was received: ends with it
    closed: bool = False

    @property
    def ended(self) -> bool:
        return self.closed or (self.block is not None and self.block.ended)

    def fill(self, producer: Traced | None) -> None:
        self.producer = producer
        self.batch.producers.append(producer)

    def set_aside(self) -> None:
        """The item has a span of its own."""
        self.producer = None
        self.batch.forget()


Entry = Traced | Given | Received


class Place:
    """Where code runs: what was opened here, above what was inherited, or above who asked the generator for an item."""

    def __init__(self, task: Task, inherited: Traced | None = None, consumer: Place | None = None) -> None:
        self.task, self.world = task, task.world
        self.inherited, self.consumer = inherited, consumer
        self.entries: list[Entry] = []

    def top(self) -> Entry | None:
        """What was opened last and has not ended."""
        while self.entries and self.entries[-1].ended:
            self.entries.pop()
        if not self.entries and self.consumer is not None:
            return self.consumer.top()
        return self.entries[-1] if self.entries else None

    def bottom(self) -> Traced | None:
        return self.inherited if self.consumer is None else self.consumer.bottom()

    def active(self) -> Traced | None:
        """The parent of a span opened here. Of a batch nobody is: its span starts a trace, linked to each producer."""
        match self.top():
            case Traced() as span:
                return span
            case Given(target):
                return target
            case Received(batch, producer):
                return producer if batch.is_one else None
        return self.bottom()

    def lent(self) -> Traced | None:
        """What a task started here inherits: the same, but of several items the last one's producer."""
        top = self.top()
        return top.producer if isinstance(top, Received) else self.active()

    def start(self, name: str, parent: Traced | None, links: Iterable[Traced | None] = ()) -> Traced:
        """A span, not active yet. Linked to each once."""
        span = Traced(name, parent, [one for one in dict.fromkeys(links) if one is not None])
        self.world.spans.append(span)
        return span

    def child(self, name: str) -> Traced:
        """A span below what is active; of a batch, one that starts a trace, with a link to each producer."""
        top = self.top()
        if not isinstance(top, Received):
            return self.start(name, self.active())
        top.batch.used = True
        return self.start(name, self.active(), () if top.batch.is_one else top.batch.producers)

    @contextlib.contextmanager
    def opened(self, span: Traced) -> Iterator[None]:
        """A `with` block: the span is active in it, and ends with it."""
        self.entries.append(span)
        with ending(span):
            yield

    @contextlib.contextmanager
    def given(self, target: Traced | None) -> Iterator[None]:
        entry = Given(target)
        self.entries.append(entry)
        try:
            yield
        finally:
            entry.ended = True

    def receiving(self) -> Received:
        """`get` is called: whoever started this task is its parent no more, for good; a span of its own stays."""
        top = self.top()
        if self.has_own(top):
            return Received(Batch())  # active nowhere
        self.task.batch.ask()
        if isinstance(top, Received):
            self.entries.remove(top)
        return self.receive(Received(self.task.batch))

    @contextlib.contextmanager
    def receiving_alone(self) -> Iterator[Received]:
        """An item that is no part of a batch; what was active before is so again in the end."""
        cell = Received(Batch())
        if not self.has_own(self.top()):
            self.receive(cell)
        try:
            yield cell
        finally:
            cell.closed = True

    def has_own(self, top: Entry | None) -> bool:
        return isinstance(top, Traced) or (isinstance(top, Given) and top.target is not None)

    def receive(self, cell: Received) -> Received:
        self.inherited = None
        cell.block = next((one for one in reversed(self.entries) if isinstance(one, Given)), None)
        self.entries.append(cell)
        return cell


@contextlib.contextmanager
def ending(span: Traced) -> Iterator[None]:
    """The span ends with this block, and has the outcome of what leaves it."""
    try:
        yield
    except BaseException as exc:
        span.outcome = span.outcome or OUTCOMES[type(exc)]
        raise
    span.outcome = span.outcome or "ok"


# -- statements


class Statement(Protocol):
    def run(self, here: Place) -> Steps: ...


Body = tuple[Statement, ...]


def run(body: Body, here: Place) -> Steps:
    for statement in body:
        yield from statement.run(here)


def turn() -> bool:
    """Others may run before: the schedule says who."""
    raise NotImplementedError


def item() -> bool:
    """A generator waits for its consumer."""
    raise NotImplementedError


def never() -> bool:
    """Only a cancellation ends this."""
    return False


@dataclass(frozen=True)
class Span:
    """A block that is a span: `with span()`, an awaited `@atraced` coroutine, or ddtrace's own `tracer.trace()`."""

    name: str
    body: Body = ()
    how: str = "span"

    def run(self, here: Place) -> Steps:
        with here.opened(here.child(self.name)):
            yield from run(self.body, here)


@dataclass(frozen=True)
class Open:
    """`start_span()`, once: active until it is finished."""

    name: str

    def run(self, here: Place) -> Steps:
        if self.name not in here.world.handles:
            before = here.lent()
            span = here.world.handles[self.name] = here.child(self.name)
            span.before = before
            here.entries.append(span)
        yield from ()


@dataclass(frozen=True)
class Finish:
    """`finish()`, in whatever task. Opener and finisher go on with what was before, who inherited it keeps it."""

    name: str

    def run(self, here: Place) -> Steps:
        if (span := here.world.handles.get(self.name)) is not None and not span.ended:
            if here.top() is None and here.inherited is span:
                here.inherited = span.before
            span.outcome = "ok"
        yield from ()


@dataclass(frozen=True)
class Turn:
    """An `await` at which others may run."""

    def run(self, here: Place) -> Steps:
        yield turn


@dataclass(frozen=True)
class Forever:
    """An `await` that only a cancellation ends."""

    def run(self, here: Place) -> Steps:
        yield never


@dataclass(frozen=True)
class Fail:
    """An exception is raised."""

    def run(self, here: Place) -> Steps:
        yield from ()
        raise Failed


@dataclass(frozen=True)
class Try:
    """`except Exception`, which no cancellation is."""

    body: Body
    handler: Body = ()

    def run(self, here: Place) -> Steps:
        try:
            yield from run(self.body, here)
        except (Failed, TimedOut):
            yield turn
            yield from run(self.handler, here)


@dataclass(frozen=True)
class Timeout:
    """`async with asyncio.timeout()`: when it passes, what is inside is cancelled, and a TimeoutError leaves it."""

    body: Body

    def run(self, here: Place) -> Steps:
        task = here.task
        deadline = Deadline(task, task.cancelling)
        here.world.deadlines.append(deadline)
        try:
            yield from run(self.body, here)
        except Cancelled:
            if deadline.passed and task.cancelling - 1 <= deadline.cancelling:
                raise TimedOut from None
            raise
        finally:
            task.cancelling -= deadline.passed
            here.world.deadlines.remove(deadline)


@dataclass(frozen=True)
class Start:
    """`create_task()` or `spawn()`. `span`: of `spawn(relation="link")`, a trace of its own, with a link."""

    task: str
    body: Body
    how: str = "create_task"
    span: str = ""

    def run(self, here: Place) -> Steps:
        own = here.start(self.span, None, [here.active()]) if self.span else None
        here.world.names[self.task] = Task(here.world, self.body, here.lent(), own)
        yield turn


def joined(tasks: list[Task], over: Wait, *, shielded: bool = False) -> Generator[Wait, None, bool]:
    """Wait for tasks. Who waits and is cancelled, cancels them, and waits on; whether that was so."""
    cancelled = False
    while not over():
        try:
            yield over
        except Cancelled:
            if shielded:
                raise
            cancelled = True
            for task in tasks:
                task.cancel()
    return cancelled


@dataclass(frozen=True)
class Join:
    """Await a task: its exception is ours, our cancellation its own, unless it is shielded."""

    task: str
    shielded: bool = False

    def run(self, here: Place) -> Steps:
        if (task := here.world.names.get(self.task)) is None:
            return
        try:
            yield from joined([task], lambda: task.done, shielded=self.shielded)
            if task.error is not None:
                raise type(task.error)
        finally:
            yield turn


@dataclass(frozen=True)
class Cancel:
    """A task is cancelled where it waits: the spans it is in are cancelled, which is no error."""

    task: str

    def run(self, here: Place) -> Steps:
        yield turn
        if (task := here.world.names.get(self.task)) is not None:
            task.cancel()
        yield turn


@dataclass(frozen=True)
class Gather:
    """`gather()`: side by side, below the same parent; the first exception is ours, the others go on."""

    bodies: tuple[Body, ...]

    def run(self, here: Place) -> Steps:
        tasks = [Task(here.world, body, here.lent()) for body in self.bodies]
        try:
            over = any_failed_or_all_done(tasks)
            cancelled = yield from joined(tasks, over)
            ended = sorted((task for task in tasks if task.done), key=lambda task: task.end)
            if errors := [task.error for task in ended if task.error is not None]:
                raise type(errors[0])
            if cancelled:
                raise Cancelled
        finally:
            yield turn


def any_failed_or_all_done(tasks: list[Task]) -> Wait:
    return lambda: any(task.error is not None for task in tasks) or all(task.done for task in tasks)


@dataclass(frozen=True)
class Group:
    """`TaskGroup`: who fails cancels its siblings. The exception group is an error; to be cancelled is none."""

    bodies: tuple[Body, ...]

    def run(self, here: Place) -> Steps:
        tasks = [Task(here.world, body, here.lent()) for body in self.bodies]
        for task in tasks:
            task.siblings = tasks
        try:
            cancelled = yield from joined(tasks, lambda: all(task.done for task in tasks))
            failed = any(isinstance(task.error, Exception) for task in tasks)
            if failed and cancelled:
                raise Unclear  # since 3.13 it is cancelled once more
            if failed:
                raise Failed
            if cancelled:
                raise Cancelled
        finally:
            yield turn


@dataclass(frozen=True)
class Callback:
    """`call_soon()` or `copy_context().run()`: inherits like a task."""

    body: Body
    how: str = "call_soon"

    def run(self, here: Place) -> Steps:
        yield from run(self.body, Place(here.task, here.lent()))
        yield turn


@dataclass(frozen=True)
class Keep:
    """`SpanContext.current()`, kept for later."""

    name: str

    def run(self, here: Place) -> Steps:
        here.world.kept[self.name] = here.active()
        yield from ()


@dataclass(frozen=True)
class Attached:
    """`attached(kept)`, or `detached()` without a name: a block in which that is active, or nothing."""

    name: str
    body: Body

    def run(self, here: Place) -> Steps:
        with here.given(here.world.kept.get(self.name)):
            yield from run(self.body, here)


# -- generators


@dataclass(frozen=True)
class Yield:
    """An item: the consumer runs, and its spans are its own."""

    def run(self, here: Place) -> Steps:
        yield item


@dataclass(frozen=True)
class Loop:
    """`async for` (or `for`) over a generator: `@atraced`, if it has a name, or with plain `with span()` blocks in it.

    Left after the `stop`th item, if that is not 0. Closed at once: by `aclosing`, or because nobody holds it ("gc").
    """

    name: str
    generator: Body
    body: Body
    stop: int = 0
    how: str = "aclosing"

    def run(self, here: Place) -> Steps:
        count = 0
        with contextlib.closing(self.items(here)) as items:
            while (yield from has_next(items)):
                count += 1
                yield from run(self.body, here)
                if count == self.stop:
                    break

    def items(self, here: Place) -> Steps:
        if not self.name:
            yield from run(self.generator, Place(here.task, consumer=here))
            return
        inside = Place(here.task)
        with inside.opened(here.child(self.name)):
            yield from run(self.generator, inside)


def has_next(items: Steps) -> Generator[Wait, None, bool]:
    """Run a generator up to its next item. What it waits for, its consumer waits for."""
    step = partial(next, items)
    while True:
        try:
            wait = step()
        except StopIteration:
            return False
        if wait is item:
            return True
        try:
            yield wait
            step = partial(next, items)
        except Cancelled as exc:
            step = partial(items.throw, exc)


# -- queues


@dataclass(frozen=True)
class Put:
    """An item carries what is active where it is put."""

    queue: str

    def run(self, here: Place) -> Steps:
        yield turn
        here.world.queues[self.queue].items.append(here.active())
        yield turn


@dataclass(frozen=True)
class Get:
    """After `get`, in a task with no span of its own, work belongs to the item's producer."""

    queue: str
    how: str = "get"  # or "create_task", awaited

    def run(self, here: Place) -> Steps:
        yield turn
        cell = here.receiving()
        cell.fill((yield from here.world.queues[self.queue].take()))
        yield turn


@dataclass(frozen=True)
class Processing:
    """`processing()`: a span of its own below the producer's, whoever asks; after it nothing is left of the item."""

    queue: str
    name: str
    body: Body = ()

    def run(self, here: Place) -> Steps:
        yield turn
        cell = here.receiving()
        producer = yield from here.world.queues[self.queue].take()
        cell.set_aside()
        with here.opened(here.start(self.name, producer)):
            yield turn
            yield from run(self.body, here)


@dataclass(frozen=True)
class BatchOf:
    """`batch(number)`: one item, and what else is there; a trace of its own with a link to each producer."""

    queue: str
    number: int
    name: str
    body: Body = ()

    def run(self, here: Place) -> Steps:
        yield turn
        cell = here.receiving()
        queue = here.world.queues[self.queue]
        producers = [(yield from queue.take())]
        while len(producers) < self.number and queue.items:
            producers.append(queue.items.pop(0))
        cell.set_aside()
        with here.opened(here.start(self.name, None, producers)):
            yield turn
            yield from run(self.body, here)


@dataclass(frozen=True)
class Each:
    """`async for item in queue`: the item's producer for the body; after the loop what was active before."""

    queue: str
    number: int
    body: Body = ()

    def run(self, here: Place) -> Steps:
        for _ in range(self.number):
            yield turn
            with here.receiving_alone() as cell:
                cell.fill((yield from here.world.queues[self.queue].take()))
                yield turn
                yield from run(self.body, here)


class Queue:
    """First come, first served. An item is its producer."""

    def __init__(self) -> None:
        self.items: list[Traced | None] = []
        self.waiting: list[object] = []

    def take(self) -> Generator[Wait, None, Traced | None]:
        me = object()
        self.waiting.append(me)
        try:
            yield lambda: bool(self.items) and self.waiting[0] is me
            return self.items.pop(0)
        finally:
            self.waiting.remove(me)


# -- who runs when


@dataclass(eq=False)
class Deadline:
    task: Task
    cancelling: int  # how often the task had been cancelled before
    passed: bool = False


class Task:
    """A run of its own: below what was active where it was started, or in a span that it was given."""

    def __init__(self, world: World, body: Body, inherited: Traced | None, own: Traced | None = None) -> None:
        self.world = world
        self.place = Place(self, inherited)
        self.batch = Batch()
        self.steps = self.life(body, own)
        self.waits = next(self.steps)
        self.error: Exception | Cancelled | None = None
        self.done, self.end, self.cancelling = False, 0, 0
        self.siblings: list[Task] = []
        world.tasks.append(self)

    def life(self, body: Body, own: Traced | None) -> Steps:
        with contextlib.nullcontext() if own is None else self.place.opened(own):
            yield turn
            yield from run(body, self.place)

    def cancel(self) -> None:
        """It will be told where it waits."""
        if not self.done:
            self.cancelling += 1
            if self not in self.world.cancelled:
                self.world.cancelled.append(self)

    def go_on(self, exc: Cancelled | None = None) -> None:
        if self.done:
            return
        try:
            self.waits = next(self.steps) if exc is None else self.steps.throw(exc)
        except StopIteration:
            self.ends(None)
        except (Failed, TimedOut, Cancelled) as error:
            self.ends(error)

    def ends(self, error: Exception | Cancelled | None) -> None:
        self.done, self.error, self.end = True, error, self.world.now
        if isinstance(error, Exception):
            for sibling in self.siblings:
                sibling.cancel()


class World:
    """One thing happens at a time: of those whose turn it could be, the schedule picks one, in the order of birth."""

    def __init__(self, program: Program) -> None:
        self.schedule = program.schedule
        self.now = 0
        self.spans: list[Traced] = []
        self.tasks: list[Task] = []
        self.cancelled: list[Task] = []
        self.deadlines: list[Deadline] = []
        self.names: dict[str, Task] = {}
        self.handles: dict[str, Traced] = {}
        self.kept: dict[str, Traced | None] = {}
        self.queues: defaultdict[str, Queue] = defaultdict(Queue)
        Task(self, program.body, None)

    def play(self) -> list[Traced]:
        while running := self.running():
            if ready := [task for task in running if task.waits is turn]:
                ready[self.schedule[self.now % len(self.schedule)] % len(ready)].go_on()
                self.now += 1
            else:
                self.time_passes()
            self.settle()
        for handle in self.handles.values():
            handle.outcome = handle.outcome or "ok"
        return self.spans

    def running(self) -> list[Task]:
        return [task for task in self.tasks if not task.done]

    def settle(self) -> None:
        """Until nobody can go on without a turn: tasks are told that they are cancelled, or that their wait is over."""
        while True:
            if self.cancelled:
                self.cancelled.pop(0).go_on(Cancelled())
                continue
            free = (task for task in self.running() if task.waits is not turn and task.waits())
            if (task := next(free, None)) is None:
                return
            task.go_on()

    def time_passes(self) -> None:
        """Nobody can go on: the deadline that was set last passes; without any, the oldest task is cancelled."""
        for deadline in reversed(self.deadlines):
            if not deadline.passed:
                deadline.passed = True
                deadline.task.cancel()
                return
        self.running()[0].cancel()


@dataclass(frozen=True)
class Program:
    """What `main()` does, and whose turn it is when."""

    body: Body
    schedule: tuple[int, ...] = (0,)


def expected(program: Program) -> list[Traced]:
    """The spans of a program, in the order in which they are opened."""
    return World(program).play()
