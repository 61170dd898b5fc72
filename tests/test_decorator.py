"""atraced: on functions of all kinds, which stay what they are."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import sys
import typing
from typing import TYPE_CHECKING, Any, overload

import pytest

from asynctrace import UsageError, atraced, current_span, span
from asynctrace._decorator import CAPTURED_LENGTH
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from asynctrace.testing import Recorder
    from tests.sink import Sink


@atraced
async def coroutine(number: int, *more: int, key: str = "x", **rest: Any) -> int:
    """The docstring."""
    return number


@atraced
def function(number: int) -> int:
    return number


@atraced()
async def async_items() -> AsyncGenerator[int]:
    yield 1


@atraced("named")
def items() -> Generator[int]:
    yield 1


@overload
def priced(item: str) -> int: ...
@overload
def priced(item: int) -> str: ...
@atraced
def priced(item: Any) -> Any:
    return item


class Shop:
    @atraced
    async def method(self, number: int) -> tuple[Shop, int]:
        return self, number

    @classmethod
    @atraced
    def inner_class(cls) -> type[Shop]:
        return cls

    @atraced
    @classmethod
    def outer_class(cls) -> type[Shop]:
        return cls

    @atraced
    @staticmethod
    def outer_static(number: int) -> int:
        return number

    @staticmethod
    @atraced
    async def inner_static(number: int) -> int:
        return number

    @atraced
    def __call__(self) -> str:
        return "called"


async def test_every_kind_is_traced(traces: Recorder) -> None:
    """A span a call, named `module.function`, methods without their class, as ddtrace names them."""
    shop = Shop()
    assert await coroutine(1) == function(1) == 1
    assert [item async for item in async_items()] == list(items()) == [1]
    assert await shop.method(2) == (shop, 2)
    assert Shop.inner_class() is Shop.outer_class() is shop.outer_class() is Shop
    assert Shop.outer_static(3) == await shop.inner_static(3) == 3
    assert shop() == "called"
    assert [one.name for one in traces.spans] == [
        *(f"{__name__}.{name}" for name in ("coroutine", "function", "async_items")),
        "named",
        *(f"{__name__}.{name}" for name in ("method", "inner_class", "outer_class", "outer_class")),
        *(f"{__name__}.{name}" for name in ("outer_static", "inner_static", "__call__")),
    ]


def test_named_as_ddtrace_names_them(sink: Sink) -> None:
    """The same names as `tracer.wrap()` gives, also with `DD_TRACE_WRAP_SPAN_NAME_INCLUDE_CLASS`."""
    program = """
        import warnings
        from asynctrace import atraced
        from asynctrace.testing import Recorder
        from ddtrace.trace import tracer
        def free():
            pass
        class Outer:
            class Inner:
                def method(self):
                    pass
            def method(self):
                pass
        def local():
            def inner():
                pass
            class Local:
                def method(self):
                    pass
            return inner, Local().method.__func__
        functions = [free, Outer.method, Outer.Inner.method, *local()]
        with Recorder() as ours:
            for one in functions:
                atraced(one)(*[None] * one.__code__.co_argcount)
        with Recorder() as theirs, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for one in functions:
                tracer.wrap()(one)(*[None] * one.__code__.co_argcount)
        assert [s.name for s in ours.spans] == [s.name for s in theirs.spans], (ours.tree(), theirs.tree())
        print(ours.spans[1].name)
    """
    names = [
        run(program, DD_TRACE_AGENT_URL=sink.url, DD_TRACE_WRAP_SPAN_NAME_INCLUDE_CLASS=setting)
        for setting in ("false", "true")
    ]
    assert names == ["__main__.method", "__main__.Outer.method"]


@pytest.mark.parametrize(
    ("decorated", "is_kind"),
    [
        (coroutine, inspect.iscoroutinefunction),
        (async_items, inspect.isasyncgenfunction),
        (items, inspect.isgeneratorfunction),
        (function, inspect.isfunction),
        (Shop.method, inspect.iscoroutinefunction),
    ],
)
def test_the_kind_stays(decorated: Any, is_kind: Any) -> None:
    """`inspect` sees what it saw before, asyncio too."""
    assert is_kind(decorated)
    assert is_kind(decorated.__wrapped__)
    assert asyncio.iscoroutinefunction(decorated) == inspect.iscoroutinefunction(decorated)


def test_the_identity_stays() -> None:
    """Name, module, docstring, signature, annotations; and it can be pickled by name."""
    assert (coroutine.__name__, coroutine.__qualname__, coroutine.__module__) == (
        *("coroutine",) * 2,
        __name__,
    )
    assert coroutine.__doc__ == "The docstring."
    assert (
        str(inspect.signature(coroutine))
        == "(number: 'int', *more: 'int', key: 'str' = 'x', **rest: 'Any') -> 'int'"
    )
    assert pickle.loads(pickle.dumps(function)) is function
    assert isinstance(vars(Shop)["outer_class"], classmethod)
    assert isinstance(vars(Shop)["outer_static"], staticmethod)


async def test_arguments_and_errors_pass(traces: Recorder) -> None:
    """Any call goes through unchanged, wrong ones raise what they always did."""
    assert await coroutine(1, 2, 3, key="y", name="z", parent=4) == 1
    wrong: Any = function
    with pytest.raises(TypeError, match="missing 1 required"):
        wrong()
    assert traces.spans[-1].outcome == "error"


async def test_everything_said_in_brackets(traces: Recorder) -> None:
    """Name, resource, service, type, kind and tags are the span's."""

    @atraced("job", resource="r", service="s", type="worker", kind="consumer", tags={"a": 1})
    async def job() -> None:
        current = current_span()
        assert current is not None
        assert current.name == "job"

    await job()
    one = traces.one("job")
    assert (one.resource, one.service, one.type) == ("r", "s", "worker")
    assert {"span.kind": "consumer", "a": 1}.items() <= one.tags.items()


async def test_decorated_twice(traces: Recorder) -> None:
    """Two decorators, two spans, the outer one around."""

    @atraced("outer")
    @atraced("inner")
    async def job() -> None: ...

    await job()
    assert traces.tree() == "outer\n  inner"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="get_overloads is new in 3.11")
def test_overloads_are_found() -> None:
    """Of a function that has them, by its wrapper as by itself."""
    assert len(getattr(typing, "get_overloads")(priced)) == 2  # noqa: B009 - unknown to a type checker for 3.10


def test_recursion(traces: Recorder) -> None:
    """Every call its own span."""

    @atraced("down")
    def down(depth: int) -> None:
        if depth:
            down(depth - 1)

    down(2)
    assert traces.tree() == "down\n  down\n    down"


def test_no_argument_is_recorded_unless_asked_for(traces: Recorder) -> None:
    """Only what `capture=` names, given or left to its default's absence, cut to a bound."""

    class Big:
        def __str__(self) -> str:
            return "x" * 10_000

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    @atraced("job", capture=("user", "big", "left_out", "hostile"), tags={"own": 1})
    def job(user: int, secret: str, big: Big, hostile: Hostile, left_out: int = 7) -> None: ...

    job(7, "secret", hostile=Hostile(), big=Big())
    tags = traces.one("job").tags
    assert (tags["user"], tags["big"], tags["own"]) == ("7", "x" * CAPTURED_LENGTH, 1)
    assert tags["hostile"] == "<Hostile>"
    assert "left_out" not in tags
    assert "secret" not in str(tags)


def test_captured_arguments_of_a_wrong_call(traces: Recorder) -> None:
    """A call that does not fit the signature raises the function's own error."""

    @atraced("job", capture=("user",))
    def job(user: int) -> None: ...

    wrong: Any = job
    with pytest.raises(TypeError, match="unexpected keyword argument 'users'"):
        wrong(users=1)


@pytest.mark.parametrize("wrong", [7, int, object()])
def test_what_is_no_function_is_told(wrong: Any) -> None:
    """`UsageError` with a hint, when decorating; so is a captured argument that does not exist."""
    with pytest.raises(UsageError, match="needs a function"):
        atraced("name")(wrong)
    with pytest.raises(UsageError, match="needs a function"):
        atraced(wrong)
    with pytest.raises(UsageError, match="no argument"):
        atraced(capture=("missing",))(function)


async def test_the_result_is_the_functions_own() -> None:
    """No copy, no wrapper: the same object, also a coroutine or generator that a plain function hands on."""
    thing = object()

    @atraced
    def give() -> object:
        return thing

    @atraced
    async def give_later() -> object:
        return thing

    assert give() is thing
    assert await give_later() is thing


def test_a_decorated_coroutine_is_lazy(traces: Recorder) -> None:
    """Nothing happens before it is awaited."""
    waiting = coroutine(1)
    assert current_span() is None
    waiting.close()
    assert traces.spans == []


async def test_in_the_tree(traces: Recorder) -> None:
    """Spans of a decorated function's body are below it, those after it are not."""

    @atraced("outer")
    async def outer() -> None:
        with span("inner"):
            await asyncio.sleep(0)

    await outer()
    with span("next"):
        pass
    assert traces.tree() == "outer\n  inner\nnext"


class Handler:
    """An object whose call is a coroutine."""

    async def __call__(self, name: str) -> str:
        with span(name):
            await asyncio.sleep(0)
        return name


async def test_an_object_that_is_called_like_a_coroutine_function(traces: Recorder) -> None:
    """Its span lasts as long as the coroutine does."""
    assert await atraced("handler")(Handler())("inner") == "inner"
    assert traces.tree() == "handler\n  inner"
