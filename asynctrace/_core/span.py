"""The Span handle: open, tag, outcome, finish, restore.

Behind it is a ddtrace span, or a record: below a span that ddtrace has yet to hand over, a span is only written down
(`segment.py`), and becomes a ddtrace span when its trace leaves or when somebody asks ddtrace for it (`record.py`).
So does a local root that is deferred (`deferred.py`). Nothing outside `_core` knows which it is.
"""

from __future__ import annotations

import logging
import sys
import weakref
from time import time_ns
from typing import TYPE_CHECKING, Any

from ddtrace.trace import Span as DDSpan, tracer

from asynctrace._core import begin, deferred
from asynctrace._core.cancel import cut_short
from asynctrace._core.context import SpanContext
from asynctrace._core.early import send_ahead, send_soon, watch
from asynctrace._core.errors import UsageError
from asynctrace._core.failure import record_error
from asynctrace._core.handover import handover
from asynctrace._core.listening import listeners
from asynctrace._core.outcome import CANCELLED, FAILED, OUTCOME_TAG, outcome_of
from asynctrace._core.provider import Entry, active_entry, provider, span_end_ns, top_entry
from asynctrace._core.record import early
from asynctrace._core.segment import running, segment_of
from asynctrace._core.tracer import weak_root
from asynctrace._core.values import AT_ONCE, fit, is_number, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from ddtrace.trace import Context
    from typing_extensions import Self

    from asynctrace._core.segment import Segment

log = logging.getLogger("asynctrace")


class Span(Entry):
    """One piece of work: made by `span()` or `start_span()`, found by `current_span()`.

    Its methods raise nothing once it is open, and may be called after its end.
    """

    __slots__ = (
        "__weakref__",
        "_chosen",
        "_dd",
        "_end_ns",
        "_given",
        "_id",
        "_name",
        "_parent",
        "_parent_id",
        "_resource",
        "_segment",
        "_service",
        "_source",
        "_start_ns",
        "_tags",
        "_trace_id",
        "_type",
        "_under",
        "_written",
    )

    _dd: DDSpan | None
    """What ddtrace knows of it: of a record nothing, until somebody asks."""

    _segment: Segment | None
    """Where a record waits; of others, where those below it do."""

    _written: bool
    """It is a record."""

    _tags: dict[str, Any] | None
    _start_ns: int

    _id: int
    """0 until it is opened."""

    _trace_id: int
    """Of one that is deferred (`deferred.py`)."""

    _parent_id: int

    _chosen: str | None
    """The service it was made with; None for its parent's."""

    _service: str | None
    """Of a record: its service."""

    _under: str | None
    """Of a record: its parent's service as it began, `NOBODY` of a local root."""

    _source: str
    """Of a record: who chose its service, in ddtrace's words."""

    def __init__(
        self,
        name: str,
        parent: SpanContext | None = None,
        resource: str | None = None,
        service: str | None = None,
        type: str | None = None,
        tags: dict[str, Any] | None = None,
    ) -> None:
        """All of it fit for the wire (`values.py`); `tags` is not changed, by nobody."""
        self._name = name
        self._parent = parent
        self._resource = resource
        self._chosen = service
        self._type = type
        self._tags = self._given = tags
        self._end_ns = self._id = 0
        self._written = False
        self.previous = self.owner = self.frame = self._dd = self._segment = None

    def said(self) -> tuple[Any, ...]:
        """The arguments it was made with."""
        return self._name, self._parent, self._resource, self._chosen, self._type, self._given

    # -- begin

    def open(self, *, activate: bool = True, start_ns: int | None = None) -> Self:
        """Start the span, at `start_ns` if given; for integrations: without making it active."""
        if self._id and not begin.renewed(self):
            return self
        ours = tracer.context_provider is provider
        above: Entry | None = None
        segment: Segment | None = None
        if ours and self._parent is None and (above := top_entry.get()) is not None:
            if (
                type(above) is Span
                and above.frame is None
                and not above._end_ns
                and ((dd := above._dd) is None or dd.duration_ns is None)
            ):  # the short way to what is active
                segment = above._segment or above.segment()
            elif (above := active_entry()) is not None:
                segment = above.segment()
        if segment is not None and segment.takes:
            begin.write_down(self, above, segment, start_ns)
        else:
            begin.start(self, above, start_ns, activate=activate and not ours)
        if activate and ours:
            self.previous = top_entry.get()
            self.owner = top_entry.set(self)
            if self._segment is not running.segment or not self._written:
                self._announce()
        if listeners:
            for listener in tuple(listeners):
                listener.opened(self)
        return self

    def _announce(self) -> None:
        """Tell ddtrace's listeners what runs."""
        if not self._written:
            provider.announce(self.shown())
        elif self._segment is not None and self._segment is not running.segment:
            provider.announce_segment(self._segment)

    # -- meanwhile

    def set_tag(self, key: str, value: Any = None) -> None:
        """Set a tag: text, a number (a metric, then), or anything with a `str()`."""
        key, value = fit(key, value)
        if self._id and key not in AT_ONCE:
            if self._dd is None:
                tags = self._tags
                if tags is None or tags is self._given:
                    tags = self._tags = dict(tags or ())
                tags[key] = value
            if self._dd is not None:  # by now
                self._dd.set_tag(key, value)
        else:
            self._known().set_tag(key, value)

    def set_metric(self, key: str, value: float) -> None:
        """Set a numeric tag."""
        if is_number(value):
            self.set_tag(key, value)
        else:
            self._known().set_metric(text(key), value)

    def link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Link to a span of another trace (or of this one) that caused this work, too. An empty context is ignored."""
        dd = self._known()
        try:
            if context.span_id and context._context is not None:
                dd.link_span(context._context, dict(fit(*one) for one in dict(attributes or {}).items()))
        except Exception:
            log.debug("no link set", exc_info=True)

    def set_error(self, exc: BaseException) -> None:
        """Mark the span with what `exc` means: an error with type, message and stack; a cancellation is none."""
        outcome = outcome_of(exc)
        self.set_outcome(outcome)
        if outcome in FAILED:
            record_error(self._known(), exc)
        elif outcome == CANCELLED:
            cut_short(self, exc)

    def set_outcome(self, outcome: str) -> None:
        """Say how it ended, where no exception tells: one of the names in `_core/outcome.py`."""
        self.set_tag(OUTCOME_TAG, outcome)
        if outcome in FAILED:
            self._known().error = 1

    @property
    def name(self) -> str:
        """The operation's name."""
        return self._name

    @property
    def resource(self) -> str:
        """What is worked on: a route, a query, a queue. May be set until the end."""
        if self._dd is None and self._id:
            return self._name if self._resource is None else self._resource
        return self._known().resource

    @resource.setter
    def resource(self, value: str) -> None:
        self._resource = text(value)
        if self._dd is not None or not self._id:
            self._known().resource = self._resource

    @property
    def trace_id(self) -> int:
        """The trace's id, 128 bits."""
        if self._written and self._segment is not None:
            return self._segment.trace_id
        return self._trace_id if self._is_deferred() else self._known().trace_id

    @property
    def span_id(self) -> int:
        """The span's id, 64 bits."""
        return self._id if self._written or self._is_deferred() else self._known().span_id

    @property
    def context(self) -> SpanContext:
        """Where children of this span belong, for use elsewhere."""
        return SpanContext(self.context_here(), self.local_root())

    # -- end

    def step_aside(self) -> None:
        """Be active here no more, and go on: what is done from now on is not below it."""
        was_active = top_entry.get() is self
        self.pop()
        if was_active and not self._written:
            provider.announce_top()

    def finish(self) -> None:
        """End it; anywhere, in any task or thread. Ending twice does nothing."""
        if not self._written:
            if not self._end_ns:
                self._finish_started()
            return
        end, dd = time_ns(), self._dd
        if dd is not None and dd.duration_ns is not None:  # ended by way of ddtrace
            end = dd.start_ns + dd.duration_ns
        if self._end_ns:  # no call from here to where it is set: other threads may be about to end it
            return
        self._end_ns = end if end > self._start_ns else self._start_ns + 1
        if dd is not None:
            dd.duration_ns = self._end_ns - self._start_ns
        self.pop()
        buffer = self._segment.buffer  # type: ignore[union-attr]  # a record has one
        buffer.done.append(self)
        if buffer.left:
            send_soon(buffer)
        elif len(buffer.done) >= buffer.most:
            send_ahead(buffer)

    def _finish_started(self) -> None:
        # another provider may look for what has ended in the context where it ends
        may_wait = tracer.context_provider is provider
        if (dd := self._dd) is None and not (may_wait and self._id and handover.may_wait()):
            dd = self._known()
        if dd is not None and dd.duration_ns is not None:
            return
        was_active, now = top_entry.get() is self, time_ns()
        if self._end_ns:
            return
        self._end_ns = now if now > self._start_ns else self._start_ns + 1
        self.pop()
        if dd is not None:
            handover.end(dd, self._end_ns, may_wait=may_wait)
        elif tracer.enabled:
            handover.wait(deferred.end, self)
            if watch.asleep:
                watch.wake()
        else:
            deferred.drop(self)
        if was_active:
            provider.announce_top()

    def __enter__(self) -> Self:
        if self._id and self._is_open():
            return self  # with start_span(...): it is open already
        self.open()
        if self.owner is not None:
            self.sleep_with(sys._getframe(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is not None and not self.ended_ns:  # ended before: what comes later is not its outcome
            self.set_error(exc)
        self.finish()

    # -- as an entry of the provider

    def _is_open(self) -> bool:
        dd = self._dd
        return not self._end_ns and (dd is None or dd.duration_ns is None)

    def _is_deferred(self) -> bool:
        """Whether it is a local root that ddtrace has not been told of."""
        return self._dd is None and self._id != 0 and not self._written

    @property
    def ended_ns(self) -> int:
        if self._end_ns or self._dd is None:
            return self._end_ns
        return span_end_ns(self._dd)

    def as_parent(self) -> DDSpan:
        return self._known()

    def shown(self) -> DDSpan | Context:
        if self._written and self._segment is not None:
            return self._segment.shown()
        return deferred.ids(self) if self._is_deferred() else self._known()

    def context_here(self) -> Context:
        if self._dd is None and self._written and self._segment is not None:
            return self._segment.context.copy(self._segment.trace_id, self._id)
        if self._is_deferred() and (context := deferred.decided(self)) is not None:
            return context
        return self._known().context

    def local_root(self) -> weakref.ref[DDSpan] | None:
        if self._written:
            root = None if self._segment is None else self._segment.root
            return None if root is None else weakref.ref(root)
        if self._is_deferred() and deferred.is_decided(self):
            return None
        return weak_root(self._known())

    def segment(self) -> Segment | None:
        if self._segment is None:
            if self._dd is not None:
                self._segment = segment_of(self._dd)
            elif self._id:
                return begin.segment_of(self)
        return self._segment

    def written(self) -> Segment | None:
        return self._segment if self._written else None

    def is_for(self, ctx: DDSpan | Context) -> bool:
        return self._dd is ctx

    def _known(self) -> DDSpan:
        """The ddtrace span it is, or becomes now."""
        if self._dd is None:
            if not self._id:
                raise UsageError(
                    f"the span {self._name!r} has not been started",
                    hint="`with span(...) as s:`, or start_span(...)",
                )
            if not self._written or self._segment is None:
                return begin.at_last(self)
            self._dd = early(self, self._segment)
        return self._dd

    def __repr__(self) -> str:
        return f"<Span {self._name!r}>"


def handle_of(dd: DDSpan) -> Span:
    """A handle for a ddtrace span that somebody else opened."""
    handle = Span(dd.name)
    handle._dd, handle._id, handle._start_ns = dd, dd.span_id, dd.start_ns
    return handle
