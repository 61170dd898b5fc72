"""OpenTelemetry's SDK with its own batching, and an exporter that takes every batch and does nothing with it."""

from __future__ import annotations

import importlib.metadata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider  # type: ignore[import-not-found,unused-ignore]
from opentelemetry.sdk.trace.export import (  # type: ignore[import-not-found,unused-ignore]
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class DeadEnd(SpanExporter):  # type: ignore[misc,unused-ignore]
    """Says that all went well."""

    def export(self, spans: Any) -> Any:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Kit:
    """`start_as_current_span`, as a decorator and as a block."""

    version = f"OpenTelemetry {importlib.metadata.version('opentelemetry-sdk')}"

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self.provider.add_span_processor(BatchSpanProcessor(DeadEnd()))
        trace.set_tracer_provider(self.provider)
        self.tracer = trace.get_tracer("tests.bench")
        self.span = self.tracer.start_as_current_span

    def traced(self, function: Any) -> Any:
        return self.tracer.start_as_current_span(function.__qualname__)(function)

    @contextmanager
    def off(self) -> Iterator[Callable[[str], AbstractContextManager[Any]]]:
        yield trace.NoOpTracer().start_as_current_span  # what it has under OTEL_SDK_DISABLED=true

    def flush(self) -> None:
        self.provider.force_flush()
