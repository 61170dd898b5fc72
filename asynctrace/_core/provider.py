"""The context provider: what is active, for whom.

One ContextVar holds a chain of entries; the top one is active. Contextvars are copied into tasks, callbacks and
threads, so others see our entries, too. One rule places every span:

- an entry that has ended, asked for in the context it was made active in: popped, the one before it is active again;
- an entry that has ended, asked for in a copy of that context: inherited, it stays the parent of the work there.

So work that outlives the span it was started under stays in its trace. After `LATE_NS` it starts a new one.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import time_ns
from typing import TYPE_CHECKING

from ddtrace.trace import BaseContextProvider, Context, Span as DDSpan

from asynctrace._core.delivery import listeners

if TYPE_CHECKING:
    from contextvars import Token

LATE_NS = 600 * 10**9
"""How long (ns) after its end a span is still the parent of the work it left behind."""

top_entry: ContextVar[Entry | None] = ContextVar("asynctrace", default=None)


class Entry:
    """One thing that was made active: a span of ours, or by `Foreign` something of ddtrace's."""

    __slots__ = ("owner", "previous")

    previous: Entry | None
    """What was active before."""

    owner: Token[Entry | None] | None
    """The context it was made active in; None once it was left behind there: who still sees it, inherited it.

    A Token can be reset in its own context only, and that is how a context is told from a copy of it.
    """

    @property
    def ended_ns(self) -> int:
        """When it ended, in ns since the epoch; 0 while it is open."""
        raise NotImplementedError

    def as_parent(self) -> DDSpan | Context | None:
        """What ddtrace sees as the active span, and takes as the parent of the next one."""
        raise NotImplementedError

    def push(self) -> None:
        self.previous = top_entry.get()
        self.owner = top_entry.set(self)

    def pop(self) -> None:
        """Called when it has ended. Ended out of order, or elsewhere: `active_entry` pops it when its owner asks."""
        if top_entry.get() is self:
            top_entry.set(self.below(left=self.is_mine()))

    def is_mine(self) -> bool:
        """Whether the context that asks is the owner. If so, what is active must be set anew."""
        if self.owner is None:
            return False
        try:
            top_entry.reset(self.owner)
        except (ValueError, RuntimeError):  # made in another context; or used up
            return False
        return True

    def below(self, *, left: bool) -> Entry | None:
        """What is active again after this one.

        `left`: its owner goes on without it, for good; then it lets go of context and chain, so that a request and its
        task are freed without the garbage collector. Only a copy of the context still holds it: it is inherited there.
        """
        previous = self.previous
        if left:
            self.owner = self.previous = None
        if type(previous) is Foreign and previous.one_shot:
            return previous.previous
        return previous


class Foreign(Entry):
    """A ddtrace span (of an integration, of the user), a ddtrace Context, or nothing at all."""

    __slots__ = ("closed_ns", "one_shot", "target")

    def __init__(self, target: DDSpan | Context | None, *, one_shot: bool = False) -> None:
        self.target, self.one_shot, self.closed_ns = target, one_shot, 0
        self.previous = self.owner = None

    @property
    def ended_ns(self) -> int:
        if isinstance(self.target, DDSpan):
            return span_end_ns(self.target)
        return self.closed_ns

    def as_parent(self) -> DDSpan | Context | None:
        return self.target

    def close(self) -> None:
        """It is active no more, where it was made so."""
        self.closed_ns = time_ns()
        self.pop()


def span_end_ns(span: DDSpan) -> int:
    """When a ddtrace span ended, in ns since the epoch; 0 while it is open."""
    return 0 if span.duration_ns is None else (span.start_ns + span.duration_ns) or 1


def active_entry() -> Entry | None:
    """The active entry; pops what has ended and belongs to the one who asks."""
    entry = top_entry.get()
    while entry is not None:
        ended = entry.ended_ns
        if not ended:
            return entry
        if not entry.is_mine():
            return entry if time_ns() - ended < LATE_NS else None
        entry = entry.below(left=True)
        top_entry.set(entry)
    return None


class Provider(BaseContextProvider):
    """asynctrace's rule behind ddtrace's own interface, so that it holds for every span of ddtrace, too."""

    def _has_active_context(self) -> bool:
        return self.active() is not None

    def active(self) -> DDSpan | Context | None:
        entry = active_entry()
        return None if entry is None else entry.as_parent()

    def activate(self, ctx: DDSpan | Context | None) -> None:
        """Make `ctx` active, as ddtrace and its integrations do. What is in the chain becomes its top again."""
        if ctx is None:
            top_entry.set(None)
        elif (known := self._find(ctx)) is not None:
            top_entry.set(known)
        else:
            # ddtrace's integrations activate the context of a request's headers and leave it there: it is good for one
            # span, or the next request on that connection would join the trace. `_reactivate` is ddtrace's own word
            # for "more than one" (its executor integration); without it we'd lose only that.
            once = isinstance(ctx, Context) and not getattr(ctx, "_reactivate", False)
            if isinstance(ctx, Context):
                top_entry.set(None)  # nobody deactivates it: chains would grow without bound
            Foreign(ctx, one_shot=once).push()
            if listeners and isinstance(ctx, DDSpan):
                for listener in tuple(listeners):
                    listener.opened(ctx)
        self.announce(ctx)

    def announce(self, ctx: DDSpan | Context | None) -> None:
        """Tell ddtrace's listeners (profiler, native thread context) what runs now."""
        super().activate(ctx)

    @staticmethod
    def _find(ctx: DDSpan | Context) -> Entry | None:
        entry = top_entry.get()
        while entry is not None and entry.as_parent() is not ctx:
            entry = entry.previous
        return entry


provider = Provider()
