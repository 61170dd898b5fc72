"""The headers that Datadog's tracers write, read and written at a glance: ddtrace's propagator takes ten times as long.

Both families, Datadog's and W3C's, saying the same, no other vendor's part in it, no baggage: then the context is what
is written there. Whatever is not just so is for `normalised()` and ddtrace's propagator to read, and for it to write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrace._core.carrier import PRIORITIES, is_trace_header
from asynctrace._core.tracer import context_from, passed_on, reads_datadog_first

if TYPE_CHECKING:
    from ddtrace.trace import Context

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

_KNOWN = WRITTEN | {"x-asynctrace-produced"}
"""None of these says anything else of the trace."""

_LOWER = (1 << 64) - 1

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
    trace_id, span_id = int(upper + lower, 16), int(span, 16)
    if (
        get("x-datadog-trace-id") != str(trace_id & _LOWER)
        or get("x-datadog-parent-id") != str(span_id)
        or not span_id
    ):
        return None
    if not _KNOWN.issuperset(headers) and any(map(is_trace_header, headers.keys() - WRITTEN)):
        return None
    meta = {"_dd.p.dm": decision}
    if rate is not None:
        meta["_dd.p.ksr"] = rate
    meta["_dd.p.tid"], meta["traceparent"], meta["tracestate"] = upper, traceparent, tracestate
    return context_from(trace_id, span_id, int(priority), meta)


_PASSED_ON = re.compile(
    r"(?:_dd\.p\.(?:dm=-[0-9]{1,2}|tid=[0-9a-f]{16}|ksr=[0-9.]{1,8}),)+"
    r"(?:dd=[^,]{0,250}(?:,|$))?((?:ot=[a-z0-9:;]{1,60})?)",
    re.ASCII,
)
"""Datadog's tags, then `tracestate` as it came: of that, what is not Datadog's goes on."""


class _Trace(NamedTuple):
    """What the headers of all spans of a trace have in common, and what of their contexts it was made of."""

    priority: int
    said: dict[str, str]
    lower: str
    tags: str
    begin: str
    """Of `traceparent`, before the span's id; and after it."""
    end: str
    state: str
    """Of `tracestate`, after the span's id."""


_recent: dict[int, _Trace] = {}

_MOST = 500
"""Of so many traces it is remembered: a request asks several services, and publishes."""


def plain_headers(context: Context, span_id: int | None = None) -> dict[str, str] | None:
    """The headers that say this context, of a span of ours in a trace that is sampled or not, where they are plain.

    `span_id`: of another span of the same trace, whose context differs in nothing else.
    """
    trace_id, priority, span_id = context.trace_id, context.sampling_priority, span_id or context.span_id
    if not trace_id or not span_id or priority not in PRIORITIES or (said := passed_on(context)) is None:
        return None
    trace = _recent.get(trace_id)
    if trace is None or trace.priority != priority or trace.said != said:
        if (trace := _plain_trace(trace_id, int(priority), said)) is None:
            return None
        if len(_recent) >= _MOST:
            _recent.clear()
        _recent[trace_id] = trace
    _, _, lower, tags, begin, end, state = trace
    span = f"{span_id:016x}"
    return {
        "x-datadog-trace-id": lower,
        "x-datadog-parent-id": str(span_id),
        "x-datadog-sampling-priority": str(priority),
        "x-datadog-tags": tags,
        "traceparent": f"{begin}{span}{end}",
        "tracestate": f"dd=p:{span}{state}",
    }


def _plain_trace(trace_id: int, priority: int, said: dict[str, str]) -> _Trace | None:
    trace = f"{trace_id:032x}"
    if trace_id >> 64 == 0:
        return None
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
    return _Trace(
        priority,
        dict(said),
        str(trace_id & _LOWER),
        tags[:-1],
        f"00-{trace}-",
        f"-0{int(priority > 0)}",
        f";s:{priority}{decision}{members}{others and ','}{others}",
    )
