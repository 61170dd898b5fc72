"""structlog: every line says in which trace and span it was made, and by which service.

What crosses: nothing; a line is made where its span is active. Door: ddtrace's own integration, which `ddtrace-run`
puts on by itself: a processor, first in the chain, adds what `asynctrace.logging` does, under the same names.

    install("structlog")
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    with span("request"):
        structlog.get_logger().warning("no tea")

On by default, as in ddtrace; `DD_LOGS_INJECTION=false` keeps it off.
"""

from __future__ import annotations

import structlog

from asynctrace._patching import LogIntegration

__all__ = ["SUPPORTED", "install", "uninstall"]

SUPPORTED = ("20.2", "999")
"""As ddtrace's own."""

_ddtraces = LogIntegration("structlog")


def install() -> None:
    """Put the processor into the chain of every logger."""
    _ddtraces.install()
    if _ddtraces.is_on:
        structlog.get_logger()  # that is when it gets into a chain that was configured before


def uninstall() -> None:
    """Take it out again, if it was put in here."""
    if not _ddtraces.is_on:
        return
    _ddtraces.uninstall()
    chain = structlog.get_config()["processors"]
    if isinstance(chain, list):
        chain[:] = [one for one in chain if not getattr(one, "__module__", "").startswith("ddtrace.")]
