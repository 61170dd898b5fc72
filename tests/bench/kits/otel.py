"""OpenTelemetry's SDK with its own batching and its own encoding, sent by OTLP over HTTP on one connection that stays.

Not with its own exporter, which pins the version of everything else.
"""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import (  # type: ignore[import-not-found,unused-ignore]
    encode_spans,
)
from opentelemetry.sdk.trace import TracerProvider  # type: ignore[import-not-found,unused-ignore]
from opentelemetry.sdk.trace.export import (  # type: ignore[import-not-found,unused-ignore]
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Exporter(SpanExporter):  # type: ignore[misc,unused-ignore]
    """To the agent."""

    def __init__(self, agent: str) -> None:
        self.connection = HTTPConnection(agent.removeprefix("http://"))

    def export(self, spans: Any) -> Any:
        body, kind = encode_spans(spans).SerializeToString(), {"Content-Type": "application/x-protobuf"}
        self.connection.request("POST", "/v1/traces", body, kind)
        self.connection.getresponse().read()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.connection.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Kit:
    """`start_as_current_span`, as a decorator and as a block."""

    version = f"OpenTelemetry {importlib.metadata.version('opentelemetry-sdk')}"

    def __init__(self) -> None:
        self.provider = TracerProvider()
        exporter = Exporter(os.environ["DD_TRACE_AGENT_URL"])
        # none is dropped: its own queue of 2,048 is full before a round is over
        self.provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=200_000))
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
