"""Whether spans below a trace's first one may be records: the one place that decides it.

A record is a span only when its trace is handed over, or when somebody asks ddtrace for it. Products of ddtrace's that
watch spans as they start and end would not see it: with one of them on, every span is a ddtrace span from its start.
The profiler and the native thread context want to know what runs, and are told (`span.py`).
"""

from __future__ import annotations

import os

from asynctrace._core.aggregator import may_be_told_later, may_begin as may_be_begun
from asynctrace._core.naming import is_on as is_switched_on, is_true
from asynctrace._core.tracer import setting, watchers

PRODUCTS = (
    "DD_LLMOBS_ENABLED",
    "DD_APPSEC_ENABLED",
    "DD_IAST_ENABLED",
    "DD_EXCEPTION_REPLAY_ENABLED",
    "DD_EXCEPTION_DEBUGGING_ENABLED",
    "DD_DYNAMIC_INSTRUMENTATION_ENABLED",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED",
    "DD_CIVISIBILITY_ENABLED",
    "DD_TRACE_RESOURCE_RENAMING_ENABLED",
)
"""Settings of ddtrace's products that work on running spans, or on each at its end."""


def wanted() -> bool:
    """Whether the settings allow it: `ASYNCTRACE_LEAN` is not off, and none of `PRODUCTS` is on."""
    return is_switched_on("ASYNCTRACE_LEAN") and not any(
        is_true(os.environ.get(name, "")) for name in PRODUCTS
    )


_wanted = wanted()


may_begin = not is_true(os.environ.get("DD_PROFILING_ENABLED", ""))
"""Whether a local root may be a record, in a trace of which this process has sent spans: the profiler wants one."""


may_defer = may_begin and may_be_begun() and not setting("_report_hostname")
"""Whether ddtrace may be told later of a trace's first span."""


def is_on() -> bool:
    """Asked once a local root. A product may be switched on while the program runs: it registers itself then."""
    return _wanted and not watchers()


def may_wait() -> bool:
    """Whether ddtrace may be told of a span's end by a thread, a moment later."""
    return _wanted and may_be_told_later()
