"""logging: every record says in which trace and span it was made, and by which service.

What crosses: nothing; a record is made where its span is active. Door: ddtrace's own integration, which `ddtrace-run`
puts on by itself. Records have the attributes `dd.trace_id` (32 hex digits, as `asynctrace.trace_id()`), `dd.span_id`
(decimal), `dd.service`, `dd.env` and `dd.version`, by which Datadog knows them; zeros outside of traces.

    install("logging")
    logging.basicConfig(format="%(levelname)s [dd.trace_id=%(dd.trace_id)s dd.span_id=%(dd.span_id)s] %(message)s")
    with span("request"):
        logging.warning("no tea")

On by default, as in ddtrace; `DD_LOGS_INJECTION=false` keeps it off.
"""

from __future__ import annotations

from asynctrace._patching import LogIntegration

__all__ = ["SUPPORTED", "install", "uninstall"]

SUPPORTED = ("0", "999")
"""Part of Python."""

_ddtraces = LogIntegration("logging")

install, uninstall = _ddtraces.install, _ddtraces.uninstall
