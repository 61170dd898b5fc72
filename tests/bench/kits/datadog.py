"""ddtrace by itself, with its own asyncio integration, as under `ddtrace-run`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ddtrace
from ddtrace.trace import tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Kit:
    """`@tracer.wrap()` and `tracer.trace()`."""

    version = f"ddtrace {ddtrace.__version__}"

    def __init__(self) -> None:
        ddtrace.patch(asyncio=True, futures=True)
        self.span = tracer.trace

    def traced(self, function: Any) -> Any:
        return tracer.wrap()(function)

    @contextmanager
    def off(self) -> Iterator[Callable[[str], AbstractContextManager[Any]]]:
        tracer.enabled = False
        try:
            yield tracer.trace
        finally:
            tracer.enabled = True

    def flush(self) -> None:
        tracer.flush()  # type: ignore[no-untyped-call]
