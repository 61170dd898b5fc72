"""Where W3C's headers only say again what Datadog's say, they are not parsed: that costs more than all the rest.

Datadog's tracers write both, and ddtrace, which reads both, takes the ids, priority and tags from its own and keeps
W3C's to pass them on. Whatever is not just so is left to ddtrace's propagator as it is.
"""

from __future__ import annotations

import re

from asynctrace._core.tracer import reads_datadog_first

UPPER_BITS = "_dd.p.tid="

_OF_DATADOG = re.compile(r"dd=[^,]{1,250}(,ot=rv:[0-9a-f]{14}(;th:[0-9a-f]{1,14})?)?")
"""A `tracestate` that no other vendor has a part in, within W3C's limits."""

_PRINTED = len("00-" + "0" * 32 + "-" + "0" * 16 + "-01")


def taken(fit: dict[str, str]) -> tuple[str, str] | None:
    """`traceparent` and `tracestate`, taken out of sound headers if they are an echo; None, and all left, if not."""
    traceparent, tracestate = fit.get("traceparent"), fit.get("tracestate", "")
    trace_id, span_id = fit.get("x-datadog-trace-id"), fit.get("x-datadog-parent-id")
    if traceparent is None or trace_id is None or span_id is None or len(traceparent) != _PRINTED:
        return None
    tags = fit.get("x-datadog-tags", "")
    at = tags.find(UPPER_BITS)
    upper = "0" * 16 if at < 0 else tags[at + len(UPPER_BITS) :].partition(",")[0]
    said = f"00-{upper}{int(trace_id):016x}-{int(span_id):016x}-0"
    if not traceparent.startswith(said) or span_id == "0" or tags.count(UPPER_BITS) > 1:
        return None
    if (tracestate and not _OF_DATADOG.fullmatch(tracestate)) or not reads_datadog_first():
        return None
    del fit["traceparent"]
    fit.pop("tracestate", None)
    return traceparent, tracestate
