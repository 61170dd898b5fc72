"""Context managers under `@atraced`: a span from enter to exit, in whatever task it is left.

The block's spans are its children: that is what one enters a block for. What the manager does on the way out belongs to
its span, too, even where something else is active by then.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import wrapt

from asynctrace._core.off import OFF
from asynctrace._core.provider import Foreign, active_entry, provider
from asynctrace._core.tracer import tracer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from asynctrace._core.span import Span

C = TypeVar("C", bound="type[Any]")

_OPEN = "_asynctrace_open"
"""Where an instance of a traced class keeps its spans while it is entered."""


class _Entering:
    """`with _Entering(span): ... enter()`: the span is open from here on, unless that fails."""

    __slots__ = ("_span",)

    def __init__(self, new: Span) -> None:
        self._span = new

    def __enter__(self) -> None:
        self._span.open()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is not None:
            self._span.__exit__(kind, exc, tb)


class _Leaving:
    """`with _Leaving(span, exc) as leaving: leaving.swallowed = ... exit()`: ends with what leaves the block."""

    __slots__ = ("_above", "_exc", "_span", "swallowed")

    def __init__(self, span: Span | None, exc: BaseException | None) -> None:
        self._span = OFF if span is None else span
        self._exc, self.swallowed = exc, False
        self._above: Foreign | None = None

    def __enter__(self) -> Self:
        if self._span is not OFF and tracer.context_provider is provider and active_entry() is not self._span:
            self._above = Foreign(self._span.as_parent())
            self._above.push()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._above is not None:
            self._above.close()
        left_by = exc if exc is not None or self.swallowed else self._exc
        self._span.__exit__(type(left_by) if left_by is not None else None, left_by, tb)
        self._exc = None


class Managed(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """A context manager with a span around its block."""

    def __init__(self, manager: Any, new_span: Callable[[], Span]) -> None:
        super().__init__(manager)
        self._self_new_span = new_span
        self._self_span: Span | None = None

    async def __aenter__(self) -> Any:
        with _Entering(self._opened()):
            return await self.__wrapped__.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> Any:
        with _Leaving(self._taken(), exc) as leaving:
            leaving.swallowed = await self.__wrapped__.__aexit__(kind, exc, tb)
        return leaving.swallowed

    def __enter__(self) -> Any:
        with _Entering(self._opened()):
            return self.__wrapped__.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> Any:
        with _Leaving(self._taken(), exc) as leaving:
            leaving.swallowed = self.__wrapped__.__exit__(kind, exc, tb)
        return leaving.swallowed

    def _opened(self) -> Span:
        self._self_span = self._self_new_span()
        return self._self_span

    def _taken(self) -> Span | None:
        span, self._self_span = self._self_span, None
        return span

    def __call__(self, function: Any) -> Any:
        """As a decorator: a block, and a span, for every call."""

        def again() -> Managed:
            return Managed(self.__wrapped__._recreate_cm(), self._self_new_span)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            async with again():
                return await function(*args, **kwargs)

        def call(*args: Any, **kwargs: Any) -> Any:
            with again():
                return function(*args, **kwargs)

        return functools.wraps(function)(call_async if hasattr(self.__wrapped__, "__aenter__") else call)


def makes_managers(function: Any) -> bool:
    """Whether it is a function under `@contextmanager` or `@asynccontextmanager`."""
    return getattr(function, "__globals__", None) is vars(contextlib)


def managed(function: Callable[..., Any], new_span: Callable[..., Span]) -> Callable[..., Any]:
    """A function that makes context managers: each has a span, while it is entered."""

    def call(*args: Any, **kwargs: Any) -> Any:
        manager = function(*args, **kwargs)
        return Managed(manager, functools.partial(new_span, args, kwargs)) if tracer.enabled else manager

    return call


def is_manager(kind: type) -> bool:
    """Whether it is a class of context managers whose instances have room for a span."""
    return bool(kind.__dictoffset__) and any(hasattr(kind, door) for door in ("__enter__", "__aenter__"))


def traced_class(kind: C, new_span: Callable[..., Span]) -> C:
    """That class itself, whose instances have a span while they are entered."""
    methods: Any = kind
    if hasattr(kind, "__aenter__"):
        enter_async, exit_async = methods.__aenter__, methods.__aexit__

        async def aenter(self: Any) -> Any:
            with _Entering(span := new_span((), {})):
                entered = await enter_async(self)
            _keep(self, span)
            return entered

        async def aexit(self: Any, kind: Any, exc: BaseException | None, tb: Any) -> Any:
            with _Leaving(_taken(self), exc) as leaving:
                leaving.swallowed = await exit_async(self, kind, exc, tb)
            return leaving.swallowed

        _replace(kind, __aenter__=aenter, __aexit__=aexit)
    if hasattr(kind, "__enter__"):
        enter_plain, exit_plain = methods.__enter__, methods.__exit__

        def enter(self: Any) -> Any:
            with _Entering(span := new_span((), {})):
                entered = enter_plain(self)
            _keep(self, span)
            return entered

        def leave(self: Any, kind: Any, exc: BaseException | None, tb: Any) -> Any:
            with _Leaving(_taken(self), exc) as leaving:
                leaving.swallowed = exit_plain(self, kind, exc, tb)
            return leaving.swallowed

        _replace(kind, __enter__=enter, __exit__=leave)
    return kind


def _replace(kind: type, **methods: Callable[..., Any]) -> None:
    for name, method in methods.items():
        setattr(kind, name, functools.wraps(getattr(kind, name))(method))


def _keep(manager: Any, span: Span) -> None:
    vars(manager).setdefault(_OPEN, []).append(span)


def _taken(manager: Any) -> Span | None:
    """The span of its block that was entered last."""
    spans = vars(manager).get(_OPEN)
    if not spans:
        return None
    span: Span = spans.pop()
    if not spans:
        del vars(manager)[_OPEN]
    return span
