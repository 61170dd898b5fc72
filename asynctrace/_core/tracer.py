"""Set-up of ddtrace's tracer, and every door of it that is not public: guarded, with what happens without it.

| door | for | without it |
|---|---|---|
| `Span._local_root` | a sampling decision is made on the local root | made on the span itself |
| `Tracer._span_aggregator.user_processors` | our filters around the user's | `configure()`: theirs must be set after |
| `_span_aggregator._traces`, `._lock`, `.dd_processors` | finished spans leave before 300 have ended | after 300 |
| `_span_aggregator._traces` | no record waits for a trace that ddtrace does not hold | taken for held |
| `_span_aggregator.partial_flush_enabled` | as the user has set it | taken for on |
| `_span_aggregator.writer`, `._sync_mode` | ddtrace's writer runs before ours may write | a warning, if both do |
| `_span_aggregator.sampling_processor` | no early decision where rules may see more later | as if there were some |
| `Span._parent_context._is_remote` | the test kit knows that a parent is elsewhere | it is taken for an orphan |
| `_DBM_Propagator`, `dbm_config` of its propagation | a comment for Database Monitoring before queries | no comment |
| `ddtrace.contrib.internal.*.patch` | its integrations of logging and structlog come off again | they are not put on |
| `Context._reactivate` | ddtrace's executor integration activates a context for more than one span | good for one |
| `Span._local_root` (set) | `current_root_span()` below a record | the record's own span |
| `Span._set_attributes` | the tags of a record in one call | `set_tag` for each |
| `_span_aggregator.dd_processors`, `._global_service` of one | peer and base service of records | without |
| `Context._meta`, `Tracer._tags`, `config._inferred_base_service` | tags that ddtrace gives its spans | without |
| `config._otel_trace_semantics_enabled` | records without `env` and `version`, as ddtrace has it then | with |
| `sampling_processor.single_span_rules` | rejected traces are thinned unless such rules keep spans | never thinned |
| what `setting()` is asked for, as `config._http` | settings as ddtrace has read them | the defaults |
| `config._propagation_*`, `._x_datadog_tags_*` | plain trace headers are read and written without its propagator | by it |
| `Context._meta`, `._baggage`, `._is_remote` | the same | the same |
| `Context._is_remote`, `ddtrace.internal.runtime` | records under a context of this process | ddtrace spans |
| `core.has_listeners`, `SpanProcessor.__processors__` | products that watch running spans | by their settings |
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any

import ddtrace
from ddtrace.trace import Context, Span as DDSpan, tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddtrace.trace import TraceFilter

__all__ = ["Context", "sample", "set_up", "tracer", "weak_root"]

log = logging.getLogger("asynctrace")

_done = False


def set_up() -> None:
    """Give ddtrace our context provider and our filter. Once a process; a tracer that is off stays off."""
    global _done
    if _done:
        return
    _done = True
    from asynctrace._core.delivery import head, tail
    from asynctrace._core.naming import is_on
    from asynctrace._core.provider import provider
    from asynctrace._core.threads import install

    configure = tracer.configure
    signature = inspect.signature(configure)

    @functools.wraps(configure)
    def keeping_ours(*args: Any, **kwargs: Any) -> None:
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


def process_tags() -> dict[str, Any]:
    """What ddtrace puts on a local root to say which process made it."""
    tags: dict[str, Any] = {"process_id": os.getpid()}
    try:
        tags["runtime-id"] = importlib.import_module("ddtrace.internal.runtime").get_runtime_id()
    except Exception:
        log.debug("ddtrace's runtime id is not where it was", exc_info=True)
    return tags


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


def sample(root: DDSpan) -> None:
    """Have ddtrace decide now whether the trace of this local root is kept."""
    try:
        tracer.sample(root)  # type: ignore[no-untyped-call]
    except Exception:
        log.debug("sampling decision failed", exc_info=True)


def partial_flush() -> bool:
    """Whether spans may leave before their trace has ended: `DD_TRACE_PARTIAL_FLUSH_ENABLED`."""
    aggregator = getattr(tracer, "_span_aggregator", None)
    return bool(getattr(aggregator, "partial_flush_enabled", True))


def partial_flush_most() -> int:
    """So many ended spans of one trace leave, whatever is still open: `DD_TRACE_PARTIAL_FLUSH_MIN_SPANS`."""
    try:
        aggregator = tracer._span_aggregator
        return aggregator.partial_flush_min_spans if aggregator.partial_flush_enabled else sys.maxsize
    except AttributeError:
        return 300


def start_writer() -> None:
    """Start ddtrace's writer, as its first write does; when the first are two threads' at once, that warns."""
    try:
        writer: Any = tracer._span_aggregator.writer
        if writer._sync_mode is False and writer.status.value == "stopped":
            writer.start()
    except Exception:
        log.debug("ddtrace's writer is not where it was", exc_info=True)


def open_traces() -> list[tuple[int, int, DDSpan]]:
    """Of the traces that ddtrace holds: trace id, how many spans have ended, the first of those that it holds."""
    try:
        traces = list(tracer._span_aggregator._traces.items())
        return [(key, one.num_finished, one.spans[0]) for key, one in traces if one.spans]
    except Exception:
        log.debug("ddtrace's open traces are not where they were", exc_info=True)
        return []


def holds(trace_id: int) -> bool:
    """Whether ddtrace will hand over something of this trace: it has spans of it that have not left."""
    try:
        return trace_id in tracer._span_aggregator._traces
    except Exception:
        log.debug("ddtrace's open traces are not where they were", exc_info=True)
        return True


def take_finished(trace_id: int) -> list[DDSpan]:
    """The finished spans of a trace that has open ones, as ddtrace's own partial flush takes them; it forgets them."""
    aggregator = tracer._span_aggregator
    if not any(getattr(one, "unloads_carriers", False) for one in aggregator.user_processors):
        return []
    with aggregator._lock:
        trace = aggregator._traces.get(trace_id)
        if trace is None:
            return []
        finished: list[DDSpan] = []
        still_open: list[DDSpan] = []
        for span in trace.spans:  # each asked once: threads end spans meanwhile
            (still_open if span.duration_ns is None else finished).append(span)
        if not still_open:  # it leaves as a whole
            return []
        trace.spans[:] = still_open
        # a thread may be between the end of a span and its being counted: it will count one that is not there
        trace.num_finished -= len(finished)
    if finished:
        for processor in aggregator.dd_processors:
            finished = processor.process_trace(finished) or []
    return finished


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


def process(spans: list[DDSpan]) -> None:
    """Have ddtrace's own processors, which come before all filters, add their tags."""
    if spans:
        try:
            for processor in tracer._span_aggregator.dd_processors:
                processor.process_trace(spans)
        except Exception:
            log.debug("ddtrace's own processors are not where they were", exc_info=True)


def ordinary_service() -> str | None:
    """The service, in lower case, about which ddtrace's own processors have nothing to say; None if unknown."""
    global _ordinary
    if _ordinary is None:
        processors = getattr(getattr(tracer, "_span_aggregator", None), "dd_processors", ())
        _ordinary = next((one._global_service for one in processors if hasattr(one, "_global_service")), None)
    return _ordinary


_ordinary: str | None = None


def is_inferred(service: str | None) -> bool:
    """Whether nobody chose this service: of such a span ddtrace says who made it."""
    return service == getattr(ddtrace.config, "_inferred_base_service", "") or service in _default_services()


def propagated_tags(context: Context) -> dict[str, str]:
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


def writes_plainly(context: Context) -> bool:
    """Whether ddtrace writes nothing for this context but its ids, its decision and its tags, and nobody watches."""
    try:
        return (
            context._is_remote is False
            and context.dd_origin is None
            and not context._baggage
            and context._meta is not None
            and _writes_both()
            and not _has_listeners("http.span_inject")
        )
    except AttributeError:
        return False


def global_tags() -> dict[str, Any]:
    """`DD_TAGS`, and what the program has set on the tracer."""
    tags: dict[str, Any] | None = getattr(tracer, "_tags", None)
    return (ddtrace.config.tags or {}) if tags is None else tags


def as_opentelemetry() -> bool:
    """Whether `DD_TRACE_OTEL_SEMANTICS_ENABLED` names environment and version another way than by tags of spans."""
    return bool(getattr(ddtrace.config, "_otel_trace_semantics_enabled", False))


def has_single_span_rules() -> bool:
    """Whether `DD_SPAN_SAMPLING_RULES` may keep a span of a trace that is rejected."""
    sampling = getattr(getattr(tracer, "_span_aggregator", None), "sampling_processor", None)
    return bool(getattr(sampling, "single_span_rules", True))


def watchers() -> bool:
    """Whether somebody in ddtrace watches spans as they start and end."""
    try:
        return bool(_span_processors()) or _has_listeners("trace.span_start")
    except Exception:
        log.debug("ddtrace's span processors are not where they were", exc_info=True)
        return False


def _watching() -> tuple[Callable[[], Any], Callable[[str], bool]]:
    """Who is registered to see spans, and whether somebody listens to an event."""
    try:
        kind = importlib.import_module("ddtrace._trace.processor").SpanProcessor
        core = importlib.import_module("ddtrace.internal.core")
        kind.__processors__, core.has_listeners("trace.span_start")
    except Exception:
        log.debug("ddtrace's span processors are not where they were", exc_info=True)
        return tuple, lambda _: False
    return lambda: kind.__processors__, core.has_listeners


_span_processors, _has_listeners = _watching()


def decide_by_rules(span: DDSpan) -> None:
    """Have the user's sampling rules decide now, where no filter of the user's comes before they do anyway."""
    try:
        aggregator = tracer._span_aggregator
        if aggregator.sampling_processor.sampler.rules and len(aggregator.user_processors) == len(
            ("first", "last")
        ):
            root = local_root(span)
            if root.context.sampling_priority is None:
                sample(root)
    except Exception:
        log.debug("ddtrace's sampling rules are not where they were", exc_info=True)


def may_decide_early(root: DDSpan) -> bool:
    """Whether the trace of this local root is kept, and may be known to be so before it has ended.

    A sampling rule may ask for a tag or a resource that is set at the end; and of a trace that is to be dropped all
    spans wait, since the user may still want to keep it.
    """
    priority = root.context.sampling_priority
    if priority is None:
        try:
            if tracer._span_aggregator.sampling_processor.sampler.rules:
                return False
        except Exception:
            log.debug("ddtrace's sampling rules are not where they were", exc_info=True)
            return False
        sample(root)
        priority = root.context.sampling_priority
    return priority is not None and priority > 0


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
