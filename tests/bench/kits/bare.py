"""Nothing traced: what is subtracted."""

from __future__ import annotations

import platform
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Kit:
    """Does nothing."""

    version = f"Python {platform.python_version()}"

    def traced(self, function: Any) -> Any:
        return function

    def span(self, name: str) -> AbstractContextManager[Any]:
        return nullcontext()

    @contextmanager
    def off(self) -> Iterator[Callable[[str], AbstractContextManager[Any]]]:
        yield self.span

    def flush(self) -> None: ...
