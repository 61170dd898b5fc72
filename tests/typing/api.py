"""What type checkers make of the public names. Never run: mypy reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Literal, overload

from aio_pika.abc import (
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
    AbstractQueueIterator,
)
from aiohttp import web
from multidict import CIMultiDict
from typing_extensions import assert_type

from asynctrace import (
    ROOT,
    Span,
    SpanContext,
    atraced,
    attached,
    current_span,
    detached,
    install,
    shutdown,
    span,
    start_span,
    trace_id,
    traced_app,
    traced_consumer,
    traced_producer,
    uninstall,
)
from asynctrace.aio_pika import traced_iterator, traced_message
from asynctrace.testing import RecordedSpan, Recorder

# -- atraced keeps the type of what it decorates


@atraced
def function(number: int, *, key: str = "x") -> bytes:
    return b""


@atraced("named", capture=["number"], tags={"a": 1})
async def coroutine(number: int) -> str:
    return ""


@atraced()
async def async_items(count: int) -> AsyncGenerator[int, str]:
    yield 1


@atraced
def items() -> Generator[int, str, bytes]:
    yield 1
    return b""


class Shop:
    @atraced
    async def method(self, number: int) -> Shop:
        return self

    @classmethod
    @atraced
    def make(cls, number: int) -> Shop:  # noqa: ARG003 - a signature
        return cls()

    @staticmethod
    @atraced("static")
    def static(number: int) -> int:
        return number

    @overload
    def get(self, key: Literal["number"]) -> int: ...
    @overload
    def get(self, key: Literal["text"]) -> str: ...
    @atraced
    def get(self, key: str) -> Any:
        return key

    @property
    @atraced
    def size(self) -> int:
        return 1


async def decorated(shop: Shop) -> None:
    assert_type(function(1, key="y"), bytes)
    assert_type(await coroutine(1), str)
    assert_type(async_items(1), AsyncGenerator[int, str])
    assert_type(items(), Generator[int, str, bytes])
    assert_type(await shop.method(1), Shop)
    assert_type(await Shop.method(shop, 1), Shop)
    assert_type(Shop.make(1), Shop)
    assert_type(Shop.static(1), int)
    assert_type(shop.get("number"), int)
    assert_type(shop.get("text"), str)
    assert_type(shop.size, int)
    assert_type(await asyncio.gather(coroutine(1), shop.method(1)), tuple[str, Shop])
    function("x")  # type: ignore[arg-type]
    function(1, other=1)  # type: ignore[call-arg]
    await coroutine()  # type: ignore[call-arg]
    await shop.method("x")  # type: ignore[arg-type]
    shop.get("other")  # type: ignore[call-overload]
    typed: Callable[[int], Coroutine[Any, Any, str]] = coroutine
    assert_type(typed, Callable[[int], Coroutine[Any, Any, str]])


@atraced(names="x")  # type: ignore[call-overload, untyped-decorator]
def wrong_option() -> None: ...


# -- spans and contexts


def spans() -> None:
    with span("a", parent=ROOT, resource="r", service="s", type="web", kind="server", tags={"a": 1}) as a:
        assert_type(a, Span)
        a.set_tag("a", object())
        a.set_metric("a", 1.5)
        a.set_error(ValueError())
        assert_type(a.trace_id, int)
        assert_type(a.span_id, int)
        assert_type(a.resource, str)
        assert_type(a.context, SpanContext)
        a.link(a.context, {"why": "batch"})
        a.resource = 7  # type: ignore[assignment]
        a.name = "b"  # type: ignore[misc]
    assert_type(start_span("a", parent=SpanContext.current()), Span)
    assert_type(start_span("a").finish(), None)
    assert_type(current_span(), Span | None)
    assert_type(trace_id(), str)
    span()  # type: ignore[call-arg]
    span("a", parent=a)  # type: ignore[arg-type]
    span("a", tags=["a"])  # type: ignore[arg-type]


def a_block_does_not_swallow() -> int:
    with span("a"):
        return 1


def an_attached_block_does_not_swallow() -> int:
    with attached(ROOT), detached():
        return 1


def contexts(request: web.Request) -> None:
    context = SpanContext.extract(request.headers)
    assert_type(context, SpanContext)
    assert_type(SpanContext.extract([("a", b"x")]), SpanContext)
    plain: dict[str, str] = {}
    assert_type(context.inject(plain), dict[str, str])
    assert_type(context.inject(CIMultiDict[str]()), CIMultiDict[str])
    assert_type(bool(context), bool)
    assert_type(SpanContext.ROOT, SpanContext)
    context.inject([("a", "b")])  # type: ignore[call-overload]
    attached("x")  # type: ignore[arg-type]


# -- messages


async def handle(message: AbstractIncomingMessage) -> None: ...


async def messages(exchange: AbstractExchange, queue: AbstractQueue, one: AbstractIncomingMessage) -> None:
    assert_type(traced_producer(exchange, propagate=False), AbstractExchange)
    await queue.consume(traced_consumer(handle, relation="link"))
    async with traced_iterator(queue, no_ack=True) as iterator:
        assert_type(iterator, AbstractQueueIterator)
        async for message in iterator:
            assert_type(message, AbstractIncomingMessage)
    async with traced_message(one) as traced, traced.process():
        assert_type(await traced.reject(requeue=True), None)
        print(traced.body)
    with traced_message(one, relation="child"):
        pass
    traced_consumer(7)  # type: ignore[type-var]
    traced_iterator(queue, relation="cousin")  # type: ignore[arg-type]


# -- programs


@traced_app
def make_app(debug: bool = False) -> web.Application:
    return web.Application()


@traced_app(service="shop")
async def make_app_later() -> web.Application:
    return web.Application()


async def programs() -> None:
    assert_type(make_app(debug=True), web.Application)
    assert_type(await make_app_later(), web.Application)
    assert_type(traced_app(web.Application()), web.Application)
    assert_type(install("aiohttp"), None)
    assert_type(uninstall(), None)
    assert_type(await shutdown(2), bool)
    make_app(True, 2)  # type: ignore[call-arg]


def recorded() -> None:
    with Recorder() as traces:
        pass
    assert_type(traces.spans, list[RecordedSpan])
    assert_type(traces.tree(), str)
    assert_type(traces.one("a").parent_id, int | None)
