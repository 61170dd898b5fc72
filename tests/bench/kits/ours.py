"""asynctrace with its integrations installed, as under `@traced_app`."""

from __future__ import annotations

import importlib.metadata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddtrace.trace import tracer

import asynctrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Kit:
    """`@atraced` and `span()`."""

    version = f"asynctrace {asynctrace.__version__} on ddtrace {importlib.metadata.version('ddtrace')}"

    def __init__(self) -> None:
        asynctrace.install()
        self.span = asynctrace.span

    def traced(self, function: Any) -> Any:
        return asynctrace.atraced(function)

    @contextmanager
    def off(self) -> Iterator[Callable[[str], AbstractContextManager[Any]]]:
        tracer.enabled = False
        try:
            yield asynctrace.span
        finally:
            tracer.enabled = True

    def flush(self) -> None:
        tracer.flush()  # type: ignore[no-untyped-call]
