"""Set-up of ddtrace's tracer, and every door of it that is not public: guarded, with what happens without it.

Those of the aggregator, in which ddtrace collects traces, are in `aggregator.py`.

| door | for | without it |
|---|---|---|
| `Span._local_root` | a sampling decision is made on the local root | made on the span itself |
| `Tracer._span_aggregator.user_processors` | our filters around the user's | `configure()`: theirs must be set after |
| `Span._parent_context._is_remote` | the test kit knows that a parent is elsewhere | it is taken for an orphan |
| `_DBM_Propagator`, `dbm_config` of its propagation | a comment for Database Monitoring before queries | no comment |
| `ddtrace.contrib.internal.*.patch` | its integrations of logging and structlog come off again | they are not put on |
| `Context._reactivate` | ddtrace's executor integration activates a context for more than one span | good for one |
| `Span._local_root` (set) | `current_root_span()` below a record | the record's own span |
| `Span._set_attributes` | the tags of a record in one call | `set_tag` for each |
| `Context._meta`, `Tracer._tags`, `config._inferred_base_service` | tags that ddtrace gives its spans | without |
| `config._otel_trace_semantics_enabled` | records without `env` and `version`, as ddtrace has it then | with |
| the closure of its handler of SIGTERM | a loop that handles it ends the program as it will | spans are lost then |
| what `setting()` is asked for, as `config._http` | settings as ddtrace has read them | the defaults |
| `config._propagation_*`, `._x_datadog_tags_*` | plain trace headers are read, written without its propagator | by it |
| `Context._meta`, `._baggage`, `._is_remote` | the same | by it |
| `Context._span_links` | a local root under headers that agree begins without ddtrace | with it |
| who asks is `ddtrace.internal.opentelemetry.thread_context` | is told ids (`provider.py`) | a span is made of each |
| `Context._is_remote`, `ddtrace.internal.runtime` | records under a context of this process | ddtrace spans |
| `core.has_listeners`, `SpanProcessor.__processors__` | products that watch running spans | by their settings |
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import signal
import weakref
from typing import TYPE_CHECKING, Any

import ddtrace
from ddtrace.trace import Context, Span as DDSpan, tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddtrace.trace import TraceFilter

__all__ = ["Context", "set_up", "tracer", "weak_root"]

log = logging.getLogger("asynctrace")

_done = False


def set_up() -> None:
    """Give ddtrace our context provider and our filter. Once a process; a tracer that is off stays off."""
    global _done
    if _done:
        return
    _done = True
    from asynctrace._core.delivery import head, tail
    from asynctrace._core.handover import handover
    from asynctrace._core.naming import is_on
    from asynctrace._core.provider import provider
    from asynctrace._core.threads import install

    configure = tracer.configure
    signature = inspect.signature(configure)

    @functools.wraps(configure)
    def keeping_ours(*args: Any, **kwargs: Any) -> None:
        handover.finish()  # what has ended until now is for the filters there were
        # ddtrace replaces the whole list of filters at every call: ours goes with each
        given = signature.bind_partial(*args, **kwargs)
        if (filters := given.arguments.get("trace_processors")) is not None:
            given.arguments["trace_processors"] = [
                head,
                *(one for one in filters if one is not head and one is not tail),
                tail,
            ]
        configure(*given.args, **given.kwargs)

    tracer.configure = keeping_ours  # type: ignore[method-assign]
    theirs = tracer.context_provider
    if type(theirs).__module__.startswith("ddtrace.") and type(theirs).__name__ == "DefaultContextProvider":
        active = theirs.active()
        tracer.context_provider = provider
        if active is not None:  # first used inside a span of ddtrace's
            provider.activate(active)
    register(head, tail)
    if is_on("DD_TRACE_FUTURES_ENABLED") and tracer.enabled:
        install()


def register(first: TraceFilter, last: TraceFilter) -> None:
    """Put our filters around the user's.

    `tracer.configure(trace_processors=...)`, the public way, replaces the user's filters, switches a disabled tracer
    on, and makes a new writer: with an agent that hangs it holds the whole process for 3 s.
    """
    try:
        aggregator = tracer._span_aggregator
        aggregator.user_processors = [first, *aggregator.user_processors, last]
    except Exception:
        log.debug("ddtrace's list of filters is not where it was", exc_info=True)
        enabled = tracer.enabled
        tracer.configure(trace_processors=[first, last])
        tracer.enabled = enabled


def setting(name: str, default: Any = None) -> Any:
    """A setting of ddtrace's that is not public, as ddtrace has read it: `_http._header_tags`, say."""
    value: Any = ddtrace.config
    for part in name.split("."):
        value = getattr(value, part, None)
    return default if value is None else value


def local_root(span: DDSpan) -> DDSpan:
    """The first span of the trace in this process."""
    return getattr(span, "_local_root", None) or span


def service_of(chosen: str) -> tuple[str, str]:
    """The service of a span for which somebody chose one, and who did in ddtrace's words, as `start_span` has it."""
    source = chosen if chosen in _default_services() else "m"
    return ddtrace.config.service_mapping.get(chosen, chosen), source


def source_of(span: DDSpan) -> str:
    """Who chose the service of a span."""
    return span.get_tag("_dd.svc_src") or ""


def _default_services() -> frozenset[str]:
    known: frozenset[str] = getattr(ddtrace.config, "_integration_default_services", frozenset())
    return known


def is_for_one_span(context: Context) -> bool:
    """Whether a Context that ddtrace activated is used up by its first span, as in ddtrace's own provider."""
    return not getattr(context, "_reactivate", False)


def is_from_elsewhere(context: Context) -> bool:
    """Whether a context came in headers."""
    return bool(getattr(context, "_is_remote", True))


def context_from(trace_id: int, span_id: int, priority: int, meta: dict[str, str]) -> Context:
    """A context that came in headers."""
    context = Context(trace_id=trace_id, span_id=span_id, sampling_priority=priority)
    try:
        context._meta.update(meta)  # to be given them takes a Context four times as long
    except AttributeError:
        return Context(trace_id=trace_id, span_id=span_id, sampling_priority=priority, meta=meta)
    return context


def is_linked(context: Context) -> bool:
    """Whether a span below this context gets links from it: of headers that did not agree."""
    return bool(getattr(context, "_span_links", True))


def on_finish(span: DDSpan) -> None:
    """What ddtrace does at the end of spans that it has started."""
    tracer._on_span_finish(span)


def process_tags() -> dict[str, Any]:
    """What ddtrace puts on a local root to say which process made it."""
    tags: dict[str, Any] = {"process_id": os.getpid()}
    try:
        tags["runtime-id"] = _runtime().get_runtime_id()
    except Exception:
        log.debug("ddtrace's runtime id is not where it was", exc_info=True)
    return tags


@functools.cache
def _runtime() -> Any:
    return importlib.import_module("ddtrace.internal.runtime")


def is_remote(span: DDSpan) -> bool:
    """Whether the parent of a span came in headers, from elsewhere."""
    return bool(getattr(getattr(span, "_parent_context", None), "_is_remote", False))


def integration(name: str) -> Any:
    """The module of one of ddtrace's own integrations, with `patch()` and `unpatch()`.

    `ddtrace.patch()`, the public way, says so in the log, and has no counterpart.
    """
    return importlib.import_module(f"ddtrace.contrib.internal.{name}.patch")


def weak_root(span: DDSpan) -> weakref.ref[DDSpan]:
    """A weak reference to the local root of `span`."""
    return weakref.ref(local_root(span))


def handler_before(number: int) -> Any:
    """What handled a signal before ddtrace put its own handlers first, which shut the tracer down."""
    handler: Any = signal.getsignal(number)
    while str(getattr(handler, "__module__", "")).startswith("ddtrace."):
        inside = dict(zip(handler.__code__.co_freevars, handler.__closure__ or (), strict=False))
        handler = inside["old_signal"].cell_contents
    return handler


def adopt(span: DDSpan, root: DDSpan) -> None:
    """Tell ddtrace what local root a span has that it did not start."""
    try:
        span._local_root = local_root(root)
    except Exception:
        log.debug("a span's local root can't be set", exc_info=True)


def set_tags(span: DDSpan, tags: dict[str, Any]) -> None:
    """Set tags that are text, integers of 64 bits, or finite floats."""
    try:
        span._set_attributes(tags)
    except Exception:
        for key, value in tags.items():
            span.set_tag(key, value)


def is_inferred(service: str | None) -> bool:
    """Whether nobody chose this service: of such a span ddtrace says who made it."""
    return service == getattr(ddtrace.config, "_inferred_base_service", "") or service in _default_services()


def propagated_tags(context: Context | None) -> dict[str, str]:
    """The tags that came with the trace from elsewhere, `_dd.p.*`: all of its spans have them."""
    said: dict[str, str] | None = getattr(context, "_meta", None)
    if not said:
        return {}
    return {key: value for key, value in tuple(said.items()) if key.startswith("_dd.p.")}


@functools.cache
def reads_datadog_first() -> bool:
    """Whether ddtrace reads Datadog's headers, then W3C's, as they are: so it does unless it is told otherwise."""
    if os.environ.get("DD_APM_TRACING_ENABLED", "true").lower() not in {"true", "1"}:
        return False
    config = ddtrace.config
    styles = list(getattr(config, "_propagation_style_extract", ()))
    return (
        styles[:2] == ["datadog", "tracecontext"]
        and getattr(config, "_propagation_extract_first", True) is False
        and getattr(config, "_propagation_behavior_extract", "") == "continue"
        and getattr(config, "_128_bit_trace_id_enabled", False) is True
    )


@functools.cache
def _writes_both() -> bool:
    """Whether ddtrace writes Datadog's headers and W3C's, all of them, and no others: so it does unless it is told."""
    if os.environ.get("DD_APM_TRACING_ENABLED", "true").lower() not in {"true", "1"}:
        return False
    config = ddtrace.config
    return (
        set(getattr(config, "_propagation_style_inject", ())) == {"datadog", "tracecontext", "baggage"}
        and getattr(config, "_propagation_http_baggage_enabled", True) is False
        and getattr(config, "_x_datadog_tags_enabled", False) is True
        and getattr(config, "_x_datadog_tags_max_length", 0) >= 512  # noqa: PLR2004 - the default
    )


def passed_on(context: Context) -> dict[str, str] | None:
    """What a context passes on beside its ids and its decision; None where ddtrace may write more, or others watch."""
    try:
        is_plain = context._is_remote is False and context.dd_origin is None and not context._baggage
        if is_plain and _writes_both() and not _has_listeners("http.span_inject"):
            return context._meta
    except AttributeError:
        log.debug("ddtrace's contexts are not as they were", exc_info=True)
    return None


def global_tags() -> dict[str, Any]:
    """`DD_TAGS`, and what the program has set on the tracer."""
    tags: dict[str, Any] | None = getattr(tracer, "_tags", None)
    return (ddtrace.config.tags or {}) if tags is None else tags


def as_opentelemetry() -> bool:
    """Whether `DD_TRACE_OTEL_SEMANTICS_ENABLED` names environment and version another way than by tags of spans."""
    return bool(getattr(ddtrace.config, "_otel_trace_semantics_enabled", False))


def _watching() -> tuple[Callable[[], bool], Callable[[str], bool]]:
    """Whether somebody in ddtrace watches spans as they start and end; whether somebody listens to an event."""
    try:
        kind = importlib.import_module("ddtrace._trace.processor").SpanProcessor
        has_listeners = importlib.import_module("ddtrace.internal.core").has_listeners
        kind.__processors__, has_listeners("trace.span_start")
    except Exception:
        log.debug("ddtrace's span processors are not where they were", exc_info=True)
        return lambda: False, lambda _: False
    return lambda: bool(kind.__processors__) or has_listeners("trace.span_start"), has_listeners


watchers, _has_listeners = _watching()


def watched_at_end() -> bool:
    """Whether somebody in ddtrace wants to be told where and when a span ends: the profiler, feature flags."""
    return _has_listeners("trace.span_finish") or watchers()


def sql_commenter() -> Callable[[str], str] | None:
    """What puts Database Monitoring's comment before a query whose span is active; None where that is off.

    `DD_DBM_PROPAGATION_MODE`, read by ddtrace, and with ddtrace's own propagator.
    """
    try:
        module = importlib.import_module("ddtrace.propagation._database_monitoring")
        if module.dbm_config.propagation_mode == "disabled":
            return None
        inject = module._DBM_Propagator(0, "query").inject
    except Exception:
        log.debug("ddtrace's propagator for databases is not where it was", exc_info=True)
        return None

    def commented(query: str) -> str:
        try:
            return str(inject(tracer.current_span(), (query,), {})[0][0])
        except Exception:
            log.debug("a query goes without a comment", exc_info=True)
            return query

    return commented
