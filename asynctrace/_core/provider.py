"""The context provider: what is active, for whom.

One ContextVar holds a chain of entries; the top one is active. Contextvars are copied into tasks, callbacks and
threads, so others see our entries, too. One rule places every span:

- an entry that has ended, asked for in the context it was made active in: popped, the one before it is active again;
- an entry that has ended, asked for in a copy of that context: inherited, it stays the parent of the work there.

So work that outlives the span it was started under stays in its trace. After `LATE_NS` it starts a new one,
with a link.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from time import time_ns
from typing import TYPE_CHECKING

from ddtrace.trace import BaseContextProvider, Context, Span as DDSpan

from asynctrace._core.early import watch
from asynctrace._core.frames import OVER, STOPS_OF_OVER, Over, generator_around, opener, stops
from asynctrace._core.listening import listeners
from asynctrace._core.segment import running, segment_from, segment_of
from asynctrace._core.tracer import is_for_one_span, weak_root

if TYPE_CHECKING:
    import weakref
    from contextvars import Token
    from types import FrameType

    from asynctrace._core.segment import Segment

LATE_NS = 600 * 10**9
"""How long (ns) after its end a span is still the parent of the work it left behind."""

top_entry: ContextVar[Entry | None] = ContextVar("asynctrace", default=None)


class Entry:
    """One thing that was made active: a span of ours, or by `Foreign` something of ddtrace's."""

    __slots__ = ("frame", "lent_below", "owner", "previous", "stops")

    previous: Entry | None
    """What was active before."""

    owner: Token[Entry | None] | None
    """The context it was made active in; None once it was left behind there: who still sees it, inherited it.

    A Token can be reset in its own context only, and that is how a context is told from a copy of it.
    """

    frame: FrameType | Over | None
    """The generator it was opened in: while that is suspended at one of its `stops`, this is not what is active."""

    stops: frozenset[int]

    lent_below: Entry
    """What was active before for those who inherited this, where the owner goes on without it. Set only there."""

    @property
    def ended_ns(self) -> int:
        """When it ended, in ns since the epoch; 0 while it is open."""
        raise NotImplementedError

    def as_parent(self) -> DDSpan | Context | None:
        """What ddtrace sees as the active span, and takes as the parent of the next one."""
        raise NotImplementedError

    def shown(self) -> DDSpan | Context | None:
        """What stands for it with those who want to know no more than the ids of what runs."""
        return self.as_parent()

    def context_here(self) -> Context | None:
        """Where work belongs that is done while this is active, for use elsewhere; holds no span."""
        parent = self.as_parent()
        return parent.context if isinstance(parent, DDSpan) else parent

    def local_root(self) -> weakref.ref[DDSpan] | None:
        """The first span of its trace in this process, which is asked for a sampling decision while it is open."""
        parent = self.as_parent()
        return weak_root(parent) if isinstance(parent, DDSpan) else None

    def segment(self) -> Segment | None:
        """Where records below this wait, if it is a span that may have any."""
        return None

    def written(self) -> Segment | None:
        """Where this waits, if it is a record."""
        return None

    def is_for(self, ctx: DDSpan | Context) -> bool:
        """Whether this is what made `ctx` active."""
        return self.as_parent() is ctx

    def opened(self) -> list[Context]:
        """A span was started while this was active: what it is to be linked to."""
        return []

    def push(self) -> None:
        self.previous, self.frame = top_entry.get(), None
        self.owner = top_entry.set(self)

    def sleep_with(self, frame: FrameType | None) -> None:
        """If this frame is a generator's, be active only while it runs."""
        if (generator := generator_around(frame)) is not None:
            self.frame, self.stops = generator, stops(generator.f_code)

    def sleeps(self) -> bool:
        """Whether the generator it was opened in is suspended."""
        return self.frame is not None and self.frame.f_lasti in self.stops

    def pop(self) -> None:
        """Called when it has ended. Ended elsewhere: `active_entry` pops it when its owner asks."""
        if self.frame is not None:
            # whoever inherited it was, more likely than not, born outside the generator
            self.frame, self.stops = OVER, STOPS_OF_OVER
        if (top := top_entry.get()) is not self:
            if type(self) is not Foreign:  # what was received in a detached() block looks at that for its end
                self.take_out_from_under(top)
            return
        owner, below = self.owner, self.previous
        if type(below) is Foreign and below.one_shot:
            below = below.previous
        try:
            top_entry.reset(owner)  # type: ignore[arg-type]  # see is_mine()
        except (ValueError, RuntimeError, TypeError):  # inherited, or used up, or none
            top_entry.set(getattr(self, "lent_below", below))
        else:
            self.owner = self.previous = None
            if top_entry.get() is not below:
                top_entry.set(below)
        if type(below) is Foreign and below.ended_ns:  # while this was above it, and nobody took it out
            active_entry()

    def take_out_from_under(self, top: Entry | None) -> None:
        """Ended out of order: its owner goes on, after what was opened since, with what was active before it."""
        above = top
        while above is not None and above.previous is not self:
            above = above.previous
        if above is not None and self.is_mine():
            if not hasattr(above, "lent_below"):
                above.lent_below = self
            above.previous = self.below(left=True)
            top_entry.set(top)

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

    __slots__ = ("_segment", "closed_ns", "one_shot", "target")

    def __init__(self, target: DDSpan | Context | None, *, one_shot: bool = False) -> None:
        self.target, self.one_shot, self.closed_ns = target, one_shot, 0
        self.previous = self.owner = self.frame = None
        self._segment: Segment | None = None

    @property
    def ended_ns(self) -> int:
        if isinstance(self.target, DDSpan):
            return span_end_ns(self.target)
        return self.closed_ns

    def as_parent(self) -> DDSpan | Context | None:
        return self.target

    def segment(self) -> Segment | None:
        target = self.target
        if isinstance(target, DDSpan):
            if self._segment is None:
                self._segment = segment_of(target)
            return self._segment
        return None if target is None or self.one_shot else segment_from(target)

    def close(self) -> None:
        """It is active no more, where it was made so."""
        self.closed_ns = time_ns()
        self.pop()


class Late(Entry):
    """Stands in for an entry that ended long ago: what starts now is a trace of its own, with a link to it."""

    __slots__ = ("_entry",)

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.previous = self.owner = self.frame = None

    @property
    def ended_ns(self) -> int:
        return 0

    def as_parent(self) -> None:
        return None

    def opened(self) -> list[Context]:
        context = self._entry.context_here()
        return [context] if context is not None and context.span_id else []


def span_end_ns(span: DDSpan) -> int:
    """When a ddtrace span ended, in ns since the epoch; 0 while it is open."""
    return 0 if span.duration_ns is None else (span.start_ns + span.duration_ns) or 1


def active_entry() -> Entry | None:
    """The active entry; pops what has ended and belongs to the one who asks, passes over what sleeps."""
    top = entry = top_entry.get()
    above: Entry | None = None  # a sleeper that was passed over
    while entry is not None:
        ended = entry.ended_ns
        if not ended:
            if entry.frame is None or not entry.sleeps():
                return entry
            above, entry = entry, entry.previous
        elif entry.is_mine():
            entry = entry.below(left=True)
            if above is None:
                top_entry.set(entry)
            else:  # taken out from under the sleepers: they would hold one more at every turn
                above.previous = entry
                top_entry.set(top)
        elif entry.frame is not None:
            above, entry = entry, entry.previous
        else:
            return entry if time_ns() - ended < LATE_NS else Late(entry)
    return None


def _wants_ids(frame: FrameType) -> bool:
    """Whether ddtrace asks what is active to publish its ids: at each step of a task, under its asyncio integration."""
    return frame.f_globals.get("__name__") == "ddtrace.internal.opentelemetry.thread_context"


class Provider(BaseContextProvider):
    """asynctrace's rule behind ddtrace's own interface, so that it holds for every span of ddtrace, too."""

    def _has_active_context(self) -> bool:
        return self.active() is not None

    def active(self) -> DDSpan | Context | None:
        if (entry := active_entry()) is None:
            return None
        return entry.shown() if _wants_ids(sys._getframe(1)) else entry.as_parent()

    def activate(self, ctx: DDSpan | Context | None) -> None:
        """Make `ctx` active, as ddtrace and its integrations do. What is in the chain becomes its top again."""
        if ctx is None:
            top_entry.set(None)
        elif (known := self._find(ctx)) is not None:
            top_entry.set(known)
        else:
            # ddtrace's integrations activate the context of a request's headers and leave it there: if it were good for
            # more than one span, the next request on that connection would join the trace
            once = isinstance(ctx, Context) and is_for_one_span(ctx)
            if isinstance(ctx, Context):
                top_entry.set(None)  # nobody deactivates it: chains would grow without bound
            if isinstance(ctx, DDSpan) and (above := active_entry()) is not None:
                for context in above.opened():
                    ctx.link_span(context)
            entry = Foreign(ctx, one_shot=once)
            entry.push()
            if isinstance(ctx, DDSpan):
                entry.sleep_with(opener(sys._getframe(1), "ddtrace."))
            if listeners and isinstance(ctx, DDSpan):
                for listener in tuple(listeners):
                    listener.opened(ctx)
            if watch.asleep:
                watch.wake()
        self.announce(ctx)

    def announce(self, ctx: DDSpan | Context | None) -> None:
        """Tell ddtrace's listeners (profiler, native thread context) what runs now."""
        running.segment = None
        running.span_id = None if ctx is None else ctx.span_id
        super().activate(ctx)

    def announce_segment(self, segment: Segment) -> None:
        """A record runs: which trace that is, if something else ran in this thread before.

        Records are told apart by their local root only: to publish each would cost as much as the record itself.
        """
        running.segment = segment
        root = segment.shown()
        if running.span_id != root.span_id:
            running.span_id = root.span_id
            super().activate(root)

    def announce_top(self) -> None:
        """Something has ended: what was active before runs again."""
        if (top := top_entry.get()) is None:
            self.announce(None)
        elif (segment := top.written()) is not None:
            self.announce_segment(segment)
        else:
            self.announce(None if (entry := active_entry()) is None else entry.shown())

    @staticmethod
    def _find(ctx: DDSpan | Context) -> Entry | None:
        entry = top_entry.get()
        while entry is not None and not entry.is_for(ctx):
            entry = entry.previous
        return entry


provider = Provider()
