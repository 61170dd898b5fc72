"""How spans are opened and found: `span()`, `start_span()`, `current_span()`, `trace_id()`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from ddtrace.trace import Span as DDSpan, tracer

from asynctrace._core.context import SpanContext
from asynctrace._core.errors import UsageError
from asynctrace._core.off import OFF
from asynctrace._core.provider import active_entry, provider
from asynctrace._core.span import Span, handle_of
from asynctrace._core.values import Fit, all_fit, text

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("asynctrace")


class Description(TypedDict, total=False):
    """What an integration's `describe_*` functions say of an operation: the arguments of `span()`."""

    name: str
    resource: str | None
    service: str | None
    type: str | None
    kind: str | None
    tags: Mapping[str, Any] | None


def span(
    name: str,
    *,
    parent: SpanContext | None = None,
    resource: str | None = None,
    service: str | None = None,
    type: str | None = None,
    kind: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Span:
    """A `with` block that is a span, in async and plain code alike.

    `parent` is a `SpanContext` (`ROOT` for a new trace); left out, the span that is active. `kind` is one of internal,
    server, client, producer, consumer. An exception that leaves the block is recorded and goes on unchanged.
    Raises `UsageError` when `parent` is something else.

    Example:
        >>> from asynctrace import span
        >>> with span("checkout", resource="cart 7", tags={"items": 3}) as s:
        ...     s.set_tag("paid", True)
    """
    if not tracer.enabled:
        return OFF
    return prepared(name, parent, resource, service, type, kind, tags)


def prepared(
    name: str,
    parent: SpanContext | None = None,
    resource: str | None = None,
    service: str | None = None,
    type: str | None = None,
    kind: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Span:
    """An unopened span, whatever its arguments made fit for the wire."""
    if parent is not None and not isinstance(parent, SpanContext):
        raise UsageError(
            f"parent= must be a SpanContext, got {parent.__class__.__name__}",
            hint="span.context, SpanContext.current(), SpanContext.extract(headers) or ROOT",
        )
    said: dict[str, Any] | None = None if kind is None else {"span.kind": text(kind)}
    if isinstance(tags, Fit) and said is None:
        said = tags
    elif tags is not None:
        if not isinstance(tags, (dict, Mapping)):  # the first of them is a glance
            raise UsageError(
                f"tags= must be a mapping, got {tags.__class__.__name__}", hint='tags={"items": 3}'
            )
        said = all_fit(tags, said or {})
    return Span(
        text(name),
        parent,
        None if resource is None else text(resource),
        None if service is None else text(service),
        None if type is None else text(type),
        said,
    )


def start_span(
    name: str,
    *,
    parent: SpanContext | None = None,
    resource: str | None = None,
    service: str | None = None,
    type: str | None = None,
    kind: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Span:
    """Like `span()`, without `with`: active at once; `finish()` it anywhere, in any task.

    Example:
        >>> from asynctrace import start_span
        >>> upload = start_span("upload")
        >>> upload.finish()
    """
    return span(
        name, parent=parent, resource=resource, service=service, type=type, kind=kind, tags=tags
    ).open()


def current_span() -> Span | None:
    """The handle of the span that is active here, or None. A span that ddtrace or the user's ddtrace code opened, too.

    Example:
        >>> from asynctrace import current_span, span
        >>> with span("outer"):
        ...     current_span().set_tag("seen", "yes")
    """
    if tracer.context_provider is provider and isinstance(entry := active_entry(), Span):
        return entry
    active = tracer.context_provider.active()
    return handle_of(active) if isinstance(active, DDSpan) else None


def trace_id() -> str:
    """The active trace's id, 32 hex digits, for log lines and error pages; "" where there is none.

    Example:
        >>> from asynctrace import span, trace_id
        >>> with span("request"):
        ...     len(trace_id())
        32
    """
    return f"{here:032x}" if (here := SpanContext.current().trace_id) else ""


def described(describe: Callable[..., Description], *args: Any, parent: SpanContext | None = None) -> Span:
    """The (unopened) span that `describe(*args)` describes; a silent one when that fails: never the host's problem."""
    if not tracer.enabled:
        return OFF
    try:
        return span(parent=parent, **describe(*args))
    except Exception:
        log.debug("%s failed: the operation goes untraced", describe.__name__, exc_info=True)
        return OFF
