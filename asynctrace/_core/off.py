"""What `span()` gives while tracing is off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrace._core.context import ROOT, SpanContext
from asynctrace._core.span import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class _Off(Span):
    """What `span()` gives while tracing is off: takes everything, does nothing, one for all."""

    __slots__ = ()

    def open(self, *, activate: bool = True, start_ns: int | None = None) -> Self:  # noqa: ARG002 - the signature is Span's
        return self

    def set_tag(self, key: str, value: Any = None) -> None: ...

    def set_metric(self, key: str, value: float) -> None: ...

    def link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None: ...

    def set_error(self, exc: BaseException) -> None: ...

    def set_outcome(self, outcome: str) -> None: ...

    def finish(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...

    @property
    def resource(self) -> str:
        return ""

    @resource.setter
    def resource(self, value: str) -> None: ...

    @property
    def trace_id(self) -> int:
        return 0

    @property
    def span_id(self) -> int:
        return 0

    @property
    def context(self) -> SpanContext:
        return ROOT


OFF = _Off("off")
