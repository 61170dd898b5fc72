"""What a row needs of a contender. Calls are the libraries' own where it counts: a kit adds nothing to an operation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

Function = Any
"""Of any kind: it keeps its kind."""

HOMES = {"bare": "bare", "ddtrace": "datadog", "opentelemetry": "otel", "asynctrace": "ours", "other": "ours"}
"""The contenders and their modules; `other` is asynctrace from another checkout, see `--against`."""


class Kit(Protocol):
    """One contender, set up."""

    version: str

    def traced(self, function: Function) -> Function:
        """Its decorator."""

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Its `with` block."""

    def off(self) -> AbstractContextManager[Callable[[str], AbstractContextManager[Any]]]:
        """Tracing is off inside; gives what `span` is then."""

    def flush(self) -> None:
        """Sends what has finished, and waits for it."""


def load(contender: str) -> Kit:
    """Sets that contender up in this process. Raises ImportError where its library is not installed."""
    return cast("Kit", importlib.import_module(f"tests.bench.kits.{HOMES[contender]}").Kit())
