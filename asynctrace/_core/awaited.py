"""A span for what is waited for: opened when it comes, active for the one who asked for it.

`Awaited.here()` keeps the place *at the call*, in the caller's context; whoever runs the coroutine opens the span. So
it is right under `wait_for`, too, which runs it in another task before Python 3.12.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING

from ddtrace.trace import tracer

from asynctrace._core.frames import OVER, STOPS_OF_OVER
from asynctrace._core.provider import Entry, provider, top_entry
from asynctrace._core.received import is_mine

if TYPE_CHECKING:
    from ddtrace.trace import Context, Span as DDSpan

    from asynctrace._core.segment import Segment
    from asynctrace._core.span import Span


class Awaited(Entry):
    """The place of a span to come; as long as it is empty, what was active stays so."""

    __slots__ = ("_closed_ns", "span")

    span: Span | None

    def __init__(self) -> None:
        self.previous = self.owner = self.frame = self.span = None
        self._closed_ns = 0

    @classmethod
    def here(cls) -> Awaited:
        """On top of what is active in the context that calls; what others lent to it is let go of, for good."""
        place = cls()
        if tracer.context_provider is provider:
            if (top := top_entry.get()) is not None and not is_mine(top):
                top_entry.set(None)
            place.push()
            place.frame, place.stops = OVER, STOPS_OF_OVER  # empty places sleep
        return place

    def open(self, span: Span) -> None:
        """It has come: open its span."""
        if self.owner is None or (top_entry.get() is self and self.is_mine()):
            self.owner = self.previous = None  # asked for here: the span takes the place itself
            span.open()
        else:
            span.open(activate=False)
            self.frame = None
        self.span = span

    def close(self) -> None:
        """It will not come, or its span is over."""
        if self.span is not None:
            self.span.finish()
        self._closed_ns = time_ns()
        if self.owner is not None:
            self.pop()

    # -- as an entry of the provider: what the span is

    @property
    def ended_ns(self) -> int:
        return self._closed_ns if self.span is None else self.span.ended_ns

    def as_parent(self) -> DDSpan | Context | None:
        return None if self.span is None else self.span.as_parent()

    def shown(self) -> DDSpan | Context | None:
        return None if self.span is None else self.span.shown()

    def segment(self) -> Segment | None:
        return None if self.span is None else self.span.segment()

    def written(self) -> Segment | None:
        return None if self.span is None else self.span.written()
