"""atraced: one span around a call, whatever is called.

A generator's span is active only while the generator's own code runs: what the consumer does between two items is the
consumer's. So its wrapper swaps what is active around every step, in whatever task the step is taken.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from asynctrace._core.api import prepared, span
from asynctrace._core.errors import UsageError
from asynctrace._core.naming import function_name
from asynctrace._core.off import OFF
from asynctrace._core.provider import top_entry
from asynctrace._core.span import Span
from asynctrace._core.tracer import tracer
from asynctrace._core.values import text
from asynctrace._managed import is_manager, makes_managers, managed, traced_class

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from asynctrace._core.provider import Entry

F = TypeVar("F", bound="Callable[..., Any]")

CAPTURED_LENGTH = 200
"""Captured arguments are cut to this many characters."""


@overload
def atraced(function: F, /) -> F: ...
@overload
def atraced(
    name: str | None = None,
    /,
    *,
    resource: str | None = None,
    service: str | None = None,
    type: str | None = None,
    kind: str | None = None,
    tags: Mapping[str, Any] | None = None,
    capture: Sequence[str] = (),
) -> Callable[[F], F]: ...
def atraced(
    name: str | F | None = None,
    /,
    *,
    resource: str | None = None,
    service: str | None = None,
    type: str | None = None,
    kind: str | None = None,
    tags: Mapping[str, Any] | None = None,
    capture: Sequence[str] = (),
) -> F | Callable[[F], F]:
    """Trace every call of a function: coroutine functions, async generators, plain functions and generators, methods.

    Over `@asynccontextmanager`, `@contextmanager` or a class of context managers: every block, from enter to exit.
    With and without brackets. The span is named as ddtrace names it, `module.function`, unless `name` says otherwise;
    `capture` names arguments to record as tags (cut to 200 characters), none by default. The function keeps its kind
    and signature, a class stays the same class; result, exceptions and cancellation are the function's own. Raises
    `UsageError` when decorating something else, and when `capture` names what is no argument.

    Example:
        >>> import asyncio
        >>> from asynctrace import atraced
        >>> @atraced
        ... async def price(item):
        ...     return 3
        >>> @atraced("checkout", capture=("user_id",))
        ... async def checkout(user_id):
        ...     return await price("tea")
        >>> asyncio.run(checkout(7))
        3
    """

    def decorate(function: F) -> F:
        chosen = name if isinstance(name, str) else None
        return cast("F", _wrapped(_target(function), _opener(function, chosen, options, tuple(capture))))

    options = {"resource": resource, "service": service, "type": type, "kind": kind, "tags": tags}
    if name is None or isinstance(name, str):
        return decorate
    return decorate(name)


def _target(function: Any) -> Any:
    if isinstance(function, (classmethod, staticmethod)):
        return function
    if not callable(function) or (inspect.isclass(function) and not is_manager(function)):
        raise UsageError(
            f"@atraced needs a function, or a class of context managers (without __slots__), got {function!r}",
            hint="@atraced, or @atraced('name') above `def` or `async def`",
        )
    return function


def _opener(
    function: Any, name: str | None, options: dict[str, Any], capture: tuple[str, ...]
) -> Callable[..., Span]:
    """Makes the (unopened) span of one call."""
    function = getattr(function, "__func__", function)
    name = name if name is not None else function_name(function)
    if not capture:
        fit = prepared(name, **options).said()
        return lambda _args, _kwargs: Span(*fit)
    signature = inspect.signature(function)
    if unknown := set(capture) - (set() if inspect.isclass(function) else set(signature.parameters)):
        raise UsageError(
            f"capture= names no argument of {name}: {sorted(unknown)}", hint="use the parameters' names"
        )

    def with_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Span:
        tags = dict(options["tags"] or {})
        try:
            bound = signature.bind_partial(*args, **kwargs).arguments
            tags.update({key: text(bound[key])[:CAPTURED_LENGTH] for key in capture if key in bound})
        except TypeError:  # the call is wrong: the function itself will say so
            pass
        return span(name, **{**options, "tags": tags})

    return with_arguments


def _wrapped(function: Any, new_span: Callable[..., Span]) -> Any:
    if isinstance(function, (classmethod, staticmethod)):
        return function.__class__(_wrapped(function.__func__, new_span))
    if inspect.isclass(function):
        return traced_class(function, new_span)
    if makes_managers(function):
        wrapper: Callable[..., Any] = managed(function, new_span)
    elif inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, new_span)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, new_span)
    elif inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        wrapper = _coroutine_function(function, new_span)
    else:
        wrapper = _function(function, new_span)
    return functools.update_wrapper(wrapper, function)


def _coroutine_function(function: Callable[..., Any], new_span: Callable[..., Span]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        if not tracer.enabled:
            return await function(*args, **kwargs)
        own = new_span(args, kwargs).open()  # not a block: that would look whether this is a generator
        try:
            result = await function(*args, **kwargs)
        except BaseException as exc:
            own.__exit__(type(exc), exc, None)
            raise
        own.finish()
        return result

    return call


def _function(function: Callable[..., Any], new_span: Callable[..., Span]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not tracer.enabled:
            return function(*args, **kwargs)
        own = new_span(args, kwargs).open()
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            own.__exit__(type(exc), exc, None)
            raise
        own.finish()
        return result

    return call


get_top, set_top = top_entry.get, top_entry.set


class _Steps:
    """A generator's span, active only during its steps; with it what the generator's own code left active.

    Around every step, the generators below make active what is inside and put back what was outside: a call each would
    cost as much again as the step. `begin()` is for what takes longer than that.
    """

    __slots__ = ("inside", "span")

    def __init__(self, new_span: Span) -> None:
        self.span = new_span
        self.inside: Entry | None = None

    def __enter__(self) -> Self:
        self.span.open(activate=False)
        if self.span is not OFF:
            self.inside = self.span
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.span.__exit__(kind, exc, tb)
        self.inside = None

    def begin(self) -> None:
        """What the generator left active is active again, and owned by whoever advances it now."""
        chain = []
        entry = self.inside
        while entry is not None:
            chain.append(entry)
            entry = entry.previous
        for entry in reversed(chain):
            entry.owner = top_entry.set(entry)


def _unhooked(items: AsyncGenerator[Any, Any]) -> Any:
    """The first step of an async generator of which the loop is not told.

    A loop that shuts down closes all generators it knows side by side; ours closes this one, which must not be closing.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return items.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _async_generator(function: Callable[..., Any], new_span: Callable[..., Span]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with _Steps(new_span(args, kwargs) if tracer.enabled else OFF) as steps:
            items, traced = function(*args, **kwargs), steps.span is not OFF
            step = _unhooked(items)
            passed: list[Any] = []  # an item is taken out as it is yielded: nothing is held while suspended
            try:
                while True:
                    outside = get_top()
                    if (inside := steps.inside) is not None and inside.previous is None:
                        inside.owner = set_top(inside)
                    else:
                        steps.begin()
                    try:
                        passed.append(await step)
                    except StopAsyncIteration:
                        return
                    finally:
                        step = inside = None
                        if traced:
                            steps.inside = get_top()
                            set_top(outside)
                        outside = None
                    try:
                        step = items.asend((yield passed.pop()))
                    except GeneratorExit:
                        raise
                    except BaseException as exc:
                        step = items.athrow(exc)
            finally:
                outside = get_top()
                steps.begin()
                try:
                    await items.aclose()
                finally:
                    if traced:
                        steps.inside = get_top()
                        set_top(outside)

    return call


def _generator(function: Callable[..., Any], new_span: Callable[..., Span]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with _Steps(new_span(args, kwargs) if tracer.enabled else OFF) as steps:
            items, traced = function(*args, **kwargs), steps.span is not OFF
            step: Any = functools.partial(items.send, None)
            passed: list[Any] = []
            try:
                while True:
                    outside = get_top()
                    if (inside := steps.inside) is not None and inside.previous is None:
                        inside.owner = set_top(inside)
                    else:
                        steps.begin()
                    try:
                        passed.append(step())
                    except StopIteration as stop:
                        return stop.value
                    finally:
                        step = inside = None
                        if traced:
                            steps.inside = get_top()
                            set_top(outside)
                        outside = None
                    try:
                        step = functools.partial(items.send, (yield passed.pop()))
                    except GeneratorExit:
                        raise
                    except BaseException as exc:
                        step = functools.partial(items.throw, exc)
            finally:
                outside = get_top()
                steps.begin()
                try:
                    items.close()
                finally:
                    if traced:
                        steps.inside = get_top()
                        set_top(outside)

    return call


__all__ = ["atraced"]
