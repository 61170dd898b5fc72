"""SpanContext: how work crosses a gap (HTTP hop, broker, queue, thread, background task)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ddtrace.propagation.http import HTTPPropagator
from ddtrace.trace import Context, Span as DDSpan

from asynctrace._core.aggregator import sample
from asynctrace._core.carrier import PRIORITIES, normalised, trace_headers_in
from asynctrace._core.errors import UsageError
from asynctrace._core.plain import plain_context, plain_headers
from asynctrace._core.provider import Foreign, active_entry, provider, top_entry
from asynctrace._core.tracer import tracer, weak_root

if TYPE_CHECKING:
    import weakref
    from collections.abc import MutableMapping
    from typing import ClassVar

    Headers = TypeVar("Headers", bound=MutableMapping[Any, Any])

log = logging.getLogger("asynctrace")


class SpanContext:
    """Where in which trace work belongs: taken here, given to `span(parent=...)` or `attached()` there.

    Tiny, hashable, safe to keep for hours: it holds ids, sampling decision and baggage, but no span. False when there
    is no trace.

    Example:
        >>> from asynctrace import SpanContext, span
        >>> with span("producer"):
        ...     headers = SpanContext.current().inject({})
        >>> with span("consumer", parent=SpanContext.extract(headers)) as consumer:
        ...     consumer.trace_id == SpanContext.extract(headers).trace_id
        True
    """

    __slots__ = ("__weakref__", "_context", "_root")

    ROOT: ClassVar[SpanContext]

    def __init__(self, context: Context | None = None, root: weakref.ref[DDSpan] | None = None) -> None:
        self._context = context
        self._root = root  # the local root, weakly: asked for its sampling decision when it is still open

    @classmethod
    def current(cls) -> SpanContext:
        """The context of what is active here; false when nothing is."""
        if tracer.context_provider is not provider:
            return cls.of(tracer.context_provider.active())
        entry = active_entry()
        context = None if entry is None else entry.context_here()
        return ROOT if entry is None or context is None else cls(context, entry.local_root())

    @classmethod
    def of(cls, active: DDSpan | Context | None) -> SpanContext:
        """The context of a ddtrace span or ddtrace Context."""
        if isinstance(active, DDSpan):
            return cls(active.context, weak_root(active))
        if active is None:
            return ROOT
        return cls(active)

    @classmethod
    def extract(cls, headers: object) -> SpanContext:
        """The context in `headers` (a mapping, or pairs): Datadog's, W3C's and what `DD_TRACE_PROPAGATION_STYLE` names.

        Only text of at most 8 KB a header is read; ids and priorities are checked. Where they are not right, the
        result is empty and starts a new trace. Raises nothing, whatever `headers` is.

        Example:
            >>> SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"}).span_id
            8
            >>> bool(SpanContext.extract({"traceparent": b"rubbish"}))
            False
        """
        try:
            if type(headers) is dict and (plain := plain_context(headers)) is not None:
                return cls(plain)
            if not (fit := normalised(headers)):
                return ROOT
            if (plain := plain_context(fit)) is not None:
                return cls(plain)
            context = HTTPPropagator.extract(fit)  # type: ignore[no-untyped-call]
            if context is None or not _is_sound(context):
                return ROOT
        except Exception:
            log.debug("trace headers could not be read", exc_info=True)
            return ROOT
        return cls(context)

    @overload
    def inject(self, headers: dict[str, str]) -> dict[str, str]: ...
    @overload
    def inject(self, headers: Headers) -> Headers: ...
    def inject(self, headers: Any) -> Any:
        """Write this context into `headers` and return them. Trace headers that were there are replaced.

        An empty context writes nothing, and leaves `headers` as they are. Raises `UsageError` when `headers` is not a
        mutable mapping.
        """
        context = self._context
        if context is None:
            return headers
        if type(headers) is not dict and not (hasattr(headers, "__setitem__") and hasattr(headers, "keys")):
            raise UsageError(
                f"inject() needs a mutable mapping of headers, got {type(headers).__name__}",
                hint="pass a dict, or context.inject({}) for a new one",
            )
        if (
            context.sampling_priority is None
            and self._root is not None
            and (root := self._root()) is not None
        ):
            sample(root)  # decided once, here, so that all services agree
        for key in trace_headers_in(headers) if headers else ():
            if key in headers:  # a multidict lets go of "Traceparent" and "traceparent" at once
                del headers[key]
        if (plain := plain_headers(context)) is not None:
            headers.update(plain)
        else:
            HTTPPropagator.inject(context, headers)
        return headers

    @property
    def trace_id(self) -> int:
        """The trace's id, 128 bits; 0 when there is no trace."""
        return (self._context.trace_id or 0) if self._context is not None else 0

    @property
    def span_id(self) -> int:
        """The span's id, 64 bits; 0 when there is none."""
        return (self._context.span_id or 0) if self._context is not None else 0

    def __bool__(self) -> bool:
        return self.trace_id != 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SpanContext):
            return NotImplemented
        return (self.trace_id, self.span_id) == (other.trace_id, other.span_id)

    def __hash__(self) -> int:
        return hash((self.trace_id, self.span_id))

    def __repr__(self) -> str:
        if not self:
            return "SpanContext()"
        return f"SpanContext(trace_id={self.trace_id:032x}, span_id={self.span_id:016x})"


ROOT = SpanContext()
"""The empty context: `span(name, parent=ROOT)` starts a new trace."""

SpanContext.ROOT = ROOT


def _is_sound(context: Context) -> bool:
    """What ddtrace made of the headers: `tracestate`, too, carries a priority and ids of its own."""
    ids = (context.trace_id or 0, context.span_id or 0)
    return (
        0 <= ids[0] < 2**128
        and 0 <= ids[1] < 2**64
        and (context.sampling_priority is None or context.sampling_priority in PRIORITIES)
    )


class Attached:
    """The `with` block of `attached()` and `detached()`; may be entered again, also within itself."""

    __slots__ = ("_entries", "_target")

    def __init__(self, target: Context | None) -> None:
        self._target = target
        self._entries: list[Foreign] = []

    def __enter__(self) -> None:
        entry = Foreign(self._target)
        theirs = tracer.context_provider
        if theirs is provider:
            entry.push()
        else:  # somebody else's rules: the entry only remembers what to restore
            entry.target = theirs.active()
            theirs.activate(self._target)
        self._entries.append(entry)

    def __exit__(self, *exc: object) -> None:
        theirs = tracer.context_provider
        if theirs is provider:
            self._innermost().close()
            provider.announce_top()
        else:
            theirs.activate(self._entries.pop().target)

    def _innermost(self) -> Foreign:
        """The last one entered here: tasks that share a block are in it side by side."""
        entry = top_entry.get()
        while entry is not None and entry not in self._entries:
            entry = entry.previous
        if not isinstance(entry, Foreign):
            return self._entries.pop()
        self._entries.remove(entry)
        return entry


def attached(context: SpanContext) -> Attached:
    """A `with` block in which `context` is the active parent, as often as it is asked for.

    Tasks started in the block keep it. Raises `UsageError` when `context` is not a `SpanContext`.

    Example:
        >>> from asynctrace import SpanContext, attached, span
        >>> with span("request"):
        ...     here = SpanContext.current()
        >>> with attached(here), span("later") as later:
        ...     later.trace_id == here.trace_id
        True
    """
    if not isinstance(context, SpanContext):
        raise UsageError(
            f"attached() needs a SpanContext, got {type(context).__name__}",
            hint="SpanContext.current() or SpanContext.extract(headers)",
        )
    return Attached(context._context)


def detached() -> Attached:
    """A `with` block in which nothing is active: what is started in it begins a trace of its own.

    Example:
        >>> from asynctrace import current_span, detached, span
        >>> with span("request"), detached():
        ...     print(current_span())
        None
    """
    return Attached(None)
