"""The headers that Datadog's tracers write, read and written at a glance: ddtrace's propagator takes ten times as long.

Both families, Datadog's and W3C's, saying the same, no other vendor's part in it, no baggage: then the context is what
is written there. Whatever is not just so is for `normalised()` and ddtrace's propagator to read, and for it to write.
"""

from __future__ import annotations

import re
from typing import Any

from ddtrace.trace import Context

from asynctrace._core.carrier import is_trace_header
from asynctrace._core.tracer import reads_datadog_first, writes_plainly

WRITTEN = frozenset(
    {
        "x-datadog-trace-id",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-tags",
        "traceparent",
        "tracestate",
    }
)

_WRITTEN = re.compile(
    r"(00-([0-9a-f]{16})([0-9a-f]{16})-([0-9a-f]{16})-[0-9a-f]{2}) "
    r"(-1|[012]) "
    r"_dd\.p\.dm=(-[0-9])(?:,_dd\.p\.ksr=([0-9.]{1,8}))?,_dd\.p\.tid=(?!0{16})\2 "
    r"(dd=[^, ]{1,250}(?:,ot=rv:[0-9a-f]{14}(?:;th:[0-9a-f]{1,14})?)?)",
    re.ASCII,
)
"""`traceparent`, the priority, Datadog's tags with the upper half of the same trace id, and `tracestate`."""


def plain_context(headers: dict[Any, Any]) -> Context | None:
    """The context in these headers, where it is plain to see."""
    get = headers.get
    traceparent = get("traceparent")
    if traceparent is None or not reads_datadog_first():
        return None
    said = f"{traceparent} {get('x-datadog-sampling-priority')} {get('x-datadog-tags')} {get('tracestate')}"
    if (match := _WRITTEN.fullmatch(said)) is None:
        return None
    traceparent, upper, lower, span, priority, decision, rate, tracestate = match.groups()
    trace_id, span_id = int(lower, 16), int(span, 16)
    if (
        get("x-datadog-trace-id") != str(trace_id)
        or get("x-datadog-parent-id") != str(span_id)
        or not span_id
    ):
        return None
    if any(map(is_trace_header, headers.keys() - WRITTEN)):
        return None
    meta = {"_dd.p.dm": decision}
    if rate is not None:
        meta["_dd.p.ksr"] = rate
    meta["_dd.p.tid"], meta["traceparent"], meta["tracestate"] = upper, traceparent, tracestate
    return Context(
        trace_id=(int(upper, 16) << 64) | trace_id,
        span_id=span_id,
        sampling_priority=int(priority),
        meta=meta,
    )


_LOWER = (1 << 64) - 1

_PASSED_ON = re.compile(
    r"(?:_dd\.p\.(?:dm=-[0-9]{1,2}|tid=[0-9a-f]{16}|ksr=[0-9.]{1,8}),)+"
    r"(?:dd=[^,]{0,250}(?:,|$))?((?:ot=[a-z0-9:;]{1,60})?)",
    re.ASCII,
)
"""Datadog's tags, then `tracestate` as it came: of that, what is not Datadog's goes on."""


def plain_headers(context: Context) -> dict[str, str] | None:
    """The headers that say this context, of a span of ours in a trace that is sampled or not, where they are plain."""
    trace_id, span_id, priority = context.trace_id, context.span_id, context.sampling_priority
    if (
        not trace_id
        or trace_id >> 64 == 0
        or not span_id
        or priority not in {-1, 0, 1, 2}
        or context.dd_origin is not None
        or not writes_plainly(context)
    ):
        return None
    trace, span = f"{trace_id:032x}", f"{span_id:016x}"
    said = context._meta
    said["_dd.p.tid"] = trace[:16]  # as ddtrace's propagator does
    tags = decision = members = state = ""
    for key, value in said.items():
        if key == "_dd.p.dm":
            tags, decision = f"{tags}{key}={value},", f";t.dm:{value}"
        elif key in {"_dd.p.tid", "_dd.p.ksr"}:
            tags, members = f"{tags}{key}={value},", f"{members};t.{key[6:]}:{value}"
        elif key == "tracestate":
            state = value
        elif key != "traceparent" or value[3:35] != trace:
            return None
    if (match := _PASSED_ON.fullmatch(tags + state)) is None:
        return None
    others = match[1]
    return {
        "x-datadog-trace-id": str(trace_id & _LOWER),
        "x-datadog-parent-id": str(span_id),
        "x-datadog-sampling-priority": str(priority),
        "x-datadog-tags": tags[:-1],
        "traceparent": f"00-{trace}-{span}-0{int(priority > 0)}",
        "tracestate": f"dd=p:{span};s:{priority}{decision}{members}{others and ','}{others}",
    }
