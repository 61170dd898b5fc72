"""What a consumer has received: after `get()`, its work belongs to the item's producer.

`receiving()` puts an empty cell on top of the caller's chain *at the call* of `get()`; whoever runs the coroutine that
`get()` gave back, fills it. So it is right under `wait_for` and `create_task(queue.get())`, and nothing is active after
a `get()` that came to nothing. A cell a call: a task started for item 1 keeps item 1.

Items received one after the other with no span between are a batch: the next span starts a trace, linked to each.
"""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from time import time_ns
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ddtrace.trace import Context, Span as DDSpan, tracer

from asynctrace._core.provider import Entry, Foreign, active_entry, provider, top_entry
from asynctrace._core.segment import segment_from

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from contextvars import Token

    from typing_extensions import Self

    from asynctrace._core.segment import Segment

T = TypeVar("T")

MAX_LINKS = 100
"""A batch is linked to that many producers, the latest."""

MAX_RECORDS = 1000
"""That many items of a batch are remembered, the latest."""

current_consumer: ContextVar[Consumer | None] = ContextVar("asynctrace_consumer", default=None)

inside: ContextVar[object] = ContextVar("asynctrace_inside", default=None)
"""The queue or stream whose `get()` or `receive()` runs here: it calls its `nowait` sister in the end."""


def captured() -> Context | None:
    """Where the work of the producer who asks belongs; holds no span."""
    if tracer.context_provider is not provider:
        active = tracer.context_provider.active()
        return active.context if isinstance(active, DDSpan) else active
    entry = active_entry()
    return None if entry is None else entry.context_here()


class Consumer:
    """What one task has received since its last span: ids of the items, never the items."""

    __slots__ = ("below", "owner", "records", "seen", "used")

    owner: Token[Consumer | None] | None
    """The context it is that of; None below a span of that context's own: it is known by the span, and a Token would
    hold the context, which holds the consumer, until the garbage collector comes."""

    def __init__(self, below: int = 0) -> None:
        self.records: deque[tuple[int, Context | None, object]] = deque(maxlen=MAX_RECORDS)
        self.seen = False  # it called get() again after the first of them: the work on that one is over
        self.used = False  # it has opened a span since
        self.below = below  # the id of the span of its own below which it receives them; 0 for none

    @classmethod
    def asking(cls, below: int) -> Consumer:
        """That of the context that calls `get()`; a copy of that context, as in a task started in it, has its own."""
        consumer = current_consumer.get()
        if consumer is None or consumer.below != below or not (below or consumer.is_mine()):
            current_consumer.set(None)  # the Token is to hold on to nobody else's
            consumer = cls(below)
            owner = current_consumer.set(consumer)
            consumer.owner = None if below else owner
        elif consumer.used:
            consumer.forget()
        consumer.seen = bool(consumer.records)
        return consumer

    def is_mine(self) -> bool:
        """Whether it is that of the context that asks."""
        if self.owner is None:
            entry = active_entry()
            return entry is not None and id(entry) == self.below and is_mine(entry)
        try:
            current_consumer.reset(self.owner)
        except (ValueError, RuntimeError):
            return False
        self.owner = current_consumer.set(self)
        return True

    def drop(self, item: object, *, before: bool = False) -> None:
        """This item is dealt with; `before`: and those that came before it."""
        for record in tuple(self.records):
            if record[0] == id(item):
                self.records.remove(record)
                return
            if before:
                self.records.popleft()

    def forget(self) -> None:
        self.records = deque(maxlen=MAX_RECORDS)
        self.seen = self.used = False

    def found(self, items: Iterable[object]) -> list[Context | None]:
        """The contexts of these items, by identity; of those with the same id the latest: an id is used again."""
        known: dict[int, list[Context | None]] = {}
        for key, context, _ in self.records:
            known.setdefault(key, []).append(context)
        stacks = [known.get(id(item)) for item in items]
        return [stack.pop() if stack else None for stack in stacks]


class Received(Entry):
    """What one call of `get()` has brought; active until the next one."""

    __slots__ = ("closed_ns", "consumer", "context", "filled", "instead", "linked")

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.context: Context | None = None
        self.closed_ns, self.filled, self.linked = 0, False, False
        self.previous = self.owner = None
        self.instead: Entry | None = None  # what was on top before, until something comes

    def fill(
        self, item: object, context: Context | None, about: object = None, *, linked: bool = False
    ) -> None:
        """Its item has come. `linked`: work on it is a trace of its own, linked to the producer."""
        if self.consumer.used:
            self.consumer.forget()
        self.context, self.filled, self.linked, self.instead = context, True, linked, None
        self.consumer.records.append((id(item), context, about))

    def withdraw(self) -> None:
        """Nothing has come: what was active is so again, unless a batch waits for its span."""
        instead, self.instead = self.instead, None
        if (
            self.owner is not None
            and not self.consumer.records
            and top_entry.get() is self
            and self.is_mine()
        ):
            self.closed_ns = time_ns()
            top_entry.set(instead)

    def set_aside(self) -> None:
        """What came has a span of its own, and nothing else belongs there."""
        self.consumer.forget()
        self.context = None

    @property
    def ended_ns(self) -> int:
        if self.closed_ns or self.previous is None:
            return self.closed_ns
        return self.previous.ended_ns  # with the block of detached() it is in

    def as_parent(self) -> Context | None:
        if self.linked:
            return None
        consumer = self.consumer
        single = len(consumer.records) == 1 and not consumer.seen
        if (single and self.filled) or not is_mine(self):
            return self.context
        return consumer.records[0][1] if single else None

    def segment(self) -> Segment | None:
        context = self.as_parent()
        return None if context is None else segment_from(context)

    def opened(self) -> list[Context]:
        if not is_mine(self):
            return producers([self.context]) if self.linked else []
        consumer = self.consumer
        consumer.used = True
        if len(consumer.records) > 1 or consumer.seen or self.linked:
            return producers(context for _, context, _ in consumer.records)
        return []

    def close(self) -> None:
        """It is active no more where it was made so; tasks started meanwhile keep it."""
        self.closed_ns = self.closed_ns or time_ns()
        if top_entry.get() is self and self.is_mine():
            top_entry.set(self.below(left=True))


def producers(contexts: Iterable[Context | None]) -> list[Context]:
    """What a batch is linked to: each producer once, the latest `MAX_LINKS`."""
    known = {(one.trace_id, one.span_id): one for one in contexts if one is not None and one.span_id}
    return list(known.values())[-MAX_LINKS:]


def claimed(items: Iterable[object]) -> list[Context | None]:
    """The contexts of items that the caller, or the task which started it, has taken; they get a span of their own."""
    consumer = current_consumer.get()
    if consumer is None:
        return []
    found = consumer.found(items)
    entry = active_entry()
    if type(entry) is Received and is_mine(entry):
        entry.set_aside()
    elif consumer.is_mine():
        consumer.forget()
    return found


def said_of(item: object) -> object:
    """What `fill` was told about an item that this task, or the one which started it, has taken; or None."""
    consumer = current_consumer.get()
    records = () if consumer is None else reversed(consumer.records)
    return next((about for key, _, about in records if key == id(item)), None)


def settled(item: object, *, before: bool = False) -> None:
    """An item is dealt with, and with `before` those that came before it: what comes now is no work on it."""
    consumer = current_consumer.get()
    if consumer is not None:
        consumer.drop(item, before=before)


def is_mine(entry: Entry) -> bool:
    """Whether the context that asks is the owner; unlike the method, it changes nothing."""
    top = top_entry.get()
    if not entry.is_mine():
        return False
    entry.owner = top_entry.set(entry)
    if top is not entry:
        top_entry.set(top)
    return True


def receiving(*, alone: bool = False) -> Received | None:
    """Called by `get()`, in the caller's context, before it waits: the cell for what will come.

    `alone`: the item is no part of a batch, and what was active is so again once the cell is closed.
    None when there is nothing to do: tracing is off, or the context provider is not ours.
    """
    if not tracer.enabled or tracer.context_provider is not provider:
        return None
    entry = active_entry()
    nobodys = isinstance(entry, Foreign) and (entry.target is None or entry.one_shot)
    mine = entry is not None and is_mine(entry)
    if entry is not None and mine and not nobodys and type(entry) is not Received:
        return None if alone else Received(Consumer.asking(id(entry)))  # a span of its own: it stays
    # what others lent to this task is let go of, for good
    base = entry if mine and not (isinstance(entry, Foreign) and entry.one_shot) else None
    top = top_entry.get()
    if not alone and type(entry) is Received and mine:
        base = entry.previous
        entry.close()
    cell = Received(Consumer() if alone else Consumer.asking(0))
    insert(cell, base, entry)
    cell.instead = top
    return cell


def insert(cell: Received, base: Entry | None, instead: Entry | None) -> None:
    """Make `cell` active over `base`; what sleeps above `instead`, in this task's generators, stays above."""
    top = sleeper = top_entry.get()
    while sleeper is not None and sleeper.previous is not instead:
        sleeper = sleeper.previous
    sleeps = top is not instead and sleeper is not None and is_mine(sleeper)
    top_entry.set(base)
    cell.push()
    if sleeps and sleeper is not None:
        sleeper.previous = cell
        top_entry.set(top)


class Items(Generic[T]):
    """The iterator of `async for`: an item is active for the body. A class: it is let go of however the loop ends."""

    def __init__(
        self, take: Callable[[Received | None], Coroutine[Any, Any, T]], closed: type[Exception] | tuple[()]
    ) -> None:
        self._take, self._closed = take, closed
        self._cell: Received | None = None

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        self._leave()
        self._cell = receiving(alone=True)
        return self._next()

    async def _next(self) -> T:
        try:
            return await self._take(self._cell)
        except self._closed:
            self._leave()
            raise StopAsyncIteration from None

    def _leave(self) -> None:
        if self._cell is not None:
            self._cell.close()
            self._cell = None

    def __del__(self) -> None:
        self._leave()
