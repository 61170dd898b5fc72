"""Who sees spans as they are opened and handed over: `asynctrace.testing.Recorder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ddtrace.trace import Span as DDSpan

    from asynctrace._core.span import Span


class Listener(Protocol):
    """Somebody who wants to see spans. Called on the hot path, in any thread: must be quick and must not raise."""

    def opened(self, span: Span | DDSpan) -> None:
        """A span of ours or of ddtrace's was started."""

    def handed_over(self, trace: list[DDSpan]) -> bool:
        """These spans are about to go to ddtrace's sampler and writer; whether they may."""


listeners: list[Listener] = []
"""Empty in production, so that looking costs one test."""
