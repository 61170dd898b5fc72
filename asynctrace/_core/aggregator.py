"""The doors of ddtrace's aggregator, in which it collects traces until they leave: none is public.

| door | for | without it |
|---|---|---|
| `_span_aggregator._traces`, `._lock`, `.dd_processors` | finished spans leave before 300 have ended | after 300 |
| `_span_aggregator._traces` | no record waits for a trace that ddtrace does not hold | taken for held |
| `_span_aggregator.partial_flush_enabled` | as the user has set it | taken for on |
| `_span_aggregator.writer`, `._sync_mode` | ddtrace's writer runs before ours may write | a warning, if both do |
| the same, `Span._on_finish_callbacks` | a thread tells ddtrace that a trace has ended | whoever ends it |
| `_span_aggregator.on_span_start`, `Tracer._on_span_finish` | a local root begins without ddtrace | with it |
| `_span_aggregator.on_span_finish` | what ended before the tracer was switched off | is lost |
| `_span_aggregator.sampling_processor` | no early decision where rules may see more later | as if there were some |
| `_span_aggregator.dd_processors`, `._global_service` of one | peer and base service of records | without |
| `sampling_processor.single_span_rules` | rejected traces are thinned unless such rules keep spans | never thinned |
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from ddtrace.trace import Span as DDSpan, tracer

from asynctrace._core.tracer import local_root

log = logging.getLogger("asynctrace")


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


def has_single_span_rules() -> bool:
    """Whether `DD_SPAN_SAMPLING_RULES` may keep a span of a trace that is rejected."""
    sampling = getattr(getattr(tracer, "_span_aggregator", None), "sampling_processor", None)
    return bool(getattr(sampling, "single_span_rules", True))


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


def begin(span: DDSpan) -> None:
    """Have ddtrace hold a span of which it learns only now, until its trace has ended."""
    try:
        tracer._span_aggregator.on_span_start(span)
    except Exception:
        log.debug("span %r could not be begun", span.name, exc_info=True)


def may_begin() -> bool:
    """Whether it does."""
    return hasattr(getattr(tracer, "_span_aggregator", None), "on_span_start") and hasattr(
        tracer, "_on_span_finish"
    )


def end(span: DDSpan) -> None:
    """Have ddtrace do what it does at the end of a span that has ended already."""
    try:
        if tracer.enabled:
            for callback in span._on_finish_callbacks:
                callback(span)
        else:  # it ended while the tracer was on
            tracer._span_aggregator.on_span_finish(span)
    except Exception:
        log.debug("span %r could not be handed over", span.name, exc_info=True)


def may_be_told_later() -> bool:
    """Whether ddtrace may be told of a span's end a moment later, in a thread.

    Not where its writer sends each trace by itself: there a process is frozen between two requests.
    """
    try:
        writer: Any = tracer._span_aggregator.writer
        return writer._sync_mode is False and hasattr(DDSpan, "_on_finish_callbacks")
    except AttributeError:
        log.debug("ddtrace's writer is not where it was", exc_info=True)
        return False
