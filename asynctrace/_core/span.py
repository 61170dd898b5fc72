"""The Span handle: open, tag, outcome, finish, restore. Behind it is a ddtrace span; nothing outside `_core` knows."""

from __future__ import annotations

import logging
import sys
import traceback
from time import time_ns
from typing import TYPE_CHECKING, Any

from ddtrace.trace import Span as DDSpan, tracer

from asynctrace._core.cancel import cut_short, explain
from asynctrace._core.context import ROOT, SpanContext
from asynctrace._core.delivery import listeners
from asynctrace._core.early import watch
from asynctrace._core.errors import UsageError
from asynctrace._core.outcome import CANCELLED, FAILED, OUTCOME_TAG, leaf_types, outcome_of, type_name
from asynctrace._core.provider import Entry, active_entry, provider, span_end_ns, top_entry
from asynctrace._core.values import presentable, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from ddtrace.trace import Context
    from typing_extensions import Self

log = logging.getLogger("asynctrace")

MEASURED = "_dd.measured"
"""Metric that makes Datadog compute hits, errors and latency for a span that is not a service's entry."""

STACK_FRAMES = 30
"""A stack is cut to this many frames, the innermost; ddtrace's own default."""

STACK_LENGTH = 16_000
"""And, with those of the exceptions it came from and of a group's members, to so many characters, the last."""

LEAVES_TAG = "async.error.leaves"
"""The types of the exceptions in an exception group."""


class Span(Entry):
    """One piece of work: made by `span()` or `start_span()`, found by `current_span()`.

    Its methods raise nothing once it is open, and may be called after its end.
    """

    __slots__ = ("__weakref__", "_dd", "_name", "_parent", "_resource", "_service", "_tags", "_type")

    _dd: DDSpan | None

    def __init__(
        self,
        name: str,
        *,
        parent: SpanContext | None = None,
        resource: str | None = None,
        service: str | None = None,
        type: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        self._name, self._parent, self._resource, self._service = name, parent, resource, service
        self._type, self._tags = type, tags
        self.previous = self.owner = self.frame = self._dd = None

    # -- begin

    def open(self, *, activate: bool = True, start_ns: int | None = None) -> Self:
        """Start the span, at `start_ns` if given; for integrations: without making it active."""
        ours = tracer.context_provider is provider
        entry = active_entry() if ours and self._parent is None else None
        parent = self._parent_of(entry, ours=ours)
        dd = self._dd = tracer.start_span(
            self._name,
            child_of=parent,
            service=self._service,
            resource=self._resource,
            span_type=self._type,
            activate=activate and not ours,  # somebody else's provider: ddtrace's own behaviour, then
        )
        if entry is not None:
            entry.opened(dd)
        if start_ns is not None:
            dd.start_ns = start_ns
        if isinstance(parent, DDSpan) and dd.start_ns < parent.start_ns:
            dd.start_ns = (
                parent.start_ns
            )  # the wall clock was stepped back: no child starts before its parent
        if self._tags:
            for key, value in self._tags.items():
                self.set_tag(key, value)
        if activate and ours:
            self.push()
            provider.announce(dd)
        if listeners:
            for listener in tuple(listeners):
                listener.opened(dd)
        if watch.asleep:
            watch.wake()
        return self

    def _parent_of(self, entry: Entry | None, *, ours: bool) -> DDSpan | Context | None:
        if self._parent is not None:
            return self._parent._context
        if not ours:
            return tracer.context_provider.active()
        return None if entry is None else entry.as_parent()

    # -- meanwhile

    def set_tag(self, key: str, value: Any = None) -> None:
        """Set a tag: text, a number (a metric, then), or anything with a `str()`."""
        self._open_span().set_tag(text(key), presentable(value))  # type: ignore[arg-type]  # takes numbers, too

    def set_metric(self, key: str, value: float) -> None:
        """Set a numeric tag."""
        self._open_span().set_metric(text(key), value)

    def link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Link to a span of another trace (or of this one) that caused this work, too. An empty context is ignored."""
        dd = self._open_span()
        try:
            if context.span_id and context._context is not None:
                said = {text(key): presentable(value) for key, value in dict(attributes or {}).items()}
                dd.link_span(context._context, said)
        except Exception:
            log.debug("no link set", exc_info=True)

    def set_error(self, exc: BaseException) -> None:
        """Mark the span with what `exc` means: an error with type, message and stack; a cancellation is none."""
        dd = self._open_span()
        outcome = outcome_of(exc)
        self.set_outcome(outcome)
        if outcome in FAILED:
            record_error(dd, exc)
        elif outcome == CANCELLED:
            cut_short(dd, exc)

    def set_outcome(self, outcome: str) -> None:
        """Say how it ended, where no exception tells: one of the names in `_core/outcome.py`."""
        dd = self._open_span()
        dd.set_tag(OUTCOME_TAG, outcome)
        if outcome in FAILED:
            dd.error = 1

    @property
    def name(self) -> str:
        """The operation's name."""
        return self._name

    @property
    def resource(self) -> str:
        """What is worked on: a route, a query, a queue. May be set until the end."""
        return self._open_span().resource

    @resource.setter
    def resource(self, value: str) -> None:
        self._open_span().resource = text(value)

    @property
    def trace_id(self) -> int:
        """The trace's id, 128 bits."""
        return self._open_span().trace_id

    @property
    def span_id(self) -> int:
        """The span's id, 64 bits."""
        return self._open_span().span_id

    @property
    def context(self) -> SpanContext:
        """Where children of this span belong, for use elsewhere."""
        return SpanContext.of(self._open_span())

    # -- end

    def finish(self) -> None:
        """End it; anywhere, in any task or thread. Ending twice does nothing."""
        dd = self._open_span()
        if dd.duration_ns is not None:
            return
        was_active = top_entry.get() is self
        try:
            if dd.start_ns > time_ns():  # the wall clock was stepped back: no negative durations
                dd.finish(finish_time=(dd.start_ns + 500) / 1e9)  # floats of this size are 240 ns apart
            else:
                dd.finish()
        except Exception:
            log.debug("span %r could not be handed over", self._name, exc_info=True)
        self.pop()
        if was_active:
            provider.announce(provider.active())

    def __enter__(self) -> Self:
        if self._dd is not None and self._dd.duration_ns is None:  # with start_span(...): it is open already
            return self
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

    @property
    def ended_ns(self) -> int:
        return span_end_ns(self._open_span())

    def as_parent(self) -> DDSpan:
        return self._open_span()

    def _open_span(self) -> DDSpan:
        if self._dd is None:
            raise UsageError(
                f"the span {self._name!r} has not been started",
                hint="`with span(...) as s:`, or start_span(...)",
            )
        return self._dd

    def __repr__(self) -> str:
        return f"<Span {self._name!r}>"


class _Off(Span):
    """What `span()` gives while tracing is off: takes everything, does nothing, one for all."""

    __slots__ = ()

    def open(self, *, activate: bool = True, start_ns: int | None = None) -> Self:  # noqa: ARG002 - the signature is Span's
        return self

    def set_tag(self, key: str, value: Any = None) -> None: ...

    def set_metric(self, key: str, value: float) -> None: ...

    def link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None: ...

    def set_error(self, exc: BaseException) -> None: ...

    def set_outcome(self, outcome: str) -> None: ...

    def finish(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...

    @property
    def resource(self) -> str:
        return ""

    @resource.setter
    def resource(self, value: str) -> None: ...

    @property
    def trace_id(self) -> int:
        return 0

    @property
    def span_id(self) -> int:
        return 0

    @property
    def context(self) -> SpanContext:
        return ROOT


OFF = _Off("off")


def handle_of(dd: DDSpan) -> Span:
    """A handle for a ddtrace span that somebody else opened."""
    handle = Span(dd.name)
    handle._dd = dd
    return handle


def record_error(dd: DDSpan, exc: BaseException) -> None:
    """Type, message and stack, whatever kind of exception it is. Never raises, keeps nothing of it."""
    try:
        dd.set_exc_info(type(exc), exc, exc.__traceback__)  # ddtrace's products listen to this
    except Exception:
        log.debug("ddtrace could not record %s", type(exc), exc_info=True)
    dd.error = 1
    try:
        # what ddtrace leaves out: exceptions that were never raised, are false, or have text that is not UTF-8
        dd.set_tag("error.message", text(exc))
        if dd.get_tag("error.type") is None:
            dd.set_tag("error.type", type_name(exc))
        stack = dd.get_tag("error.stack")
        if stack is None:
            stack = "".join(traceback.format_tb(exc.__traceback__, -STACK_FRAMES))
        if stack:
            dd.set_tag("error.stack", text(stack)[-STACK_LENGTH:])
        if leaves := leaf_types(exc):
            dd.set_tag(LEAVES_TAG, text(leaves))
        explain(exc)
    except Exception:
        log.debug("%s could not be recorded", type(exc), exc_info=True)
