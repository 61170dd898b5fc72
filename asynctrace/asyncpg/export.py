"""SQL on its way to anything but a Datadog agent, which obfuscates what it is given, is obfuscated here."""

from __future__ import annotations

import os
from typing import Any

from asynctrace._core.delivery import rewriters
from asynctrace._sql import obfuscated


def obfuscate(span: Any) -> None:
    """A ddtrace span that leaves, of ddtrace's own integrations, too. Not sooner: lexers are slow."""
    if span.span_type == "sql":
        span.resource = obfuscated(span.resource)


def guard() -> None:
    """From now on, where ddtrace sends OTLP. Not taken back: spans that were opened before may leave later."""
    if os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "otlp" and obfuscate not in rewriters:
        rewriters.append(obfuscate)
