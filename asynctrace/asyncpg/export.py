"""SQL on its way to anything but a Datadog agent, which obfuscates what it is given, is obfuscated here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asynctrace._core.delivery import rewriters
from asynctrace._sql import obfuscated

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan


def obfuscate(span: DDSpan) -> None:
    """Also what other integrations, of ddtrace's, know of SQL. Not before a span leaves: lexers are slow."""
    if span.span_type == "sql":
        span.resource = obfuscated(span.resource)


def guard() -> None:
    """From now on, where ddtrace sends OTLP. Not taken back: spans that were opened before may leave later."""
    if os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "otlp" and obfuscate not in rewriters:
        rewriters.append(obfuscate)
