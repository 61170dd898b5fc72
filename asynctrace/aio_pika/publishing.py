"""Publishing: a span for each message, whose context goes along in a copy of its headers."""

from __future__ import annotations

import copy
import functools
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

import wrapt

from asynctrace._core.errors import UsageError
from asynctrace._core.off import OFF
from asynctrace._core.outcome import ERROR
from asynctrace._core.tracer import tracer
from asynctrace.aio_pika.describe import describe_publish
from asynctrace.aio_pika.headers import stamped
from asynctrace.aio_pika.switch import installed, settings, traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractExchange

    from asynctrace._core.context import SpanContext
    from asynctrace._core.span import Span

    Proxy = wrapt.ObjectProxy[Any]
else:
    Proxy = wrapt.ObjectProxy

log = logging.getLogger("asynctrace")

X = TypeVar("X", bound="AbstractExchange")


class _Stamped(Proxy):
    """A message as it goes out: the caller's own, but for the headers. One `Message` may be published many times."""

    _self_context: SpanContext | None

    @property
    def body(self) -> Any:  # aio-pika asks for it, and a proxy's own way to it is a long one
        return self.__wrapped__.body

    @property
    def properties(self) -> Any:
        message = self.__wrapped__
        properties = message.properties
        if (context := self._self_context) is not None:
            try:
                if type(message).__module__ != "aio_pika.message":  # others may give the same ones every time
                    properties = copy.copy(properties)
                properties.headers = stamped(properties.headers, context)
            except Exception:  # headers that are no mapping: aio-pika will say what it thinks of them
                log.debug("no trace headers written", exc_info=True)
        return properties


def _described(exchange: Any, message: Any, routing_key: Any) -> Span:
    try:
        return describe_publish(exchange, message, routing_key)
    except Exception:
        log.debug("a message is published untraced", exc_info=True)
        return OFF


def _door(
    publish: Callable[..., Awaitable[Any]], is_on: Callable[[], bool], *, propagate: bool = True
) -> Callable[..., Awaitable[Any]]:
    """`publish`, traced while that is on, in one coroutine: each costs at every publish."""

    @functools.wraps(publish)
    async def method(self: Any, message: Any, routing_key: str, **kwargs: Any) -> Any:
        if type(message) is _Stamped or not is_on():
            return await publish(self, message, routing_key, **kwargs)
        with _described(self, message, routing_key).open() as span:
            going = _Stamped(message)
            goes_along = propagate and settings.propagates_to(self.name, routing_key)
            going._self_context = span.context if goes_along else None
            result = await publish(self, going, routing_key, **kwargs)
            if (delivery := getattr(result, "delivery", None)) is not None:
                _returned(span, delivery)
            return result

    return method


def _returned(span: Span, delivery: Any) -> None:
    """The broker could not route a mandatory message, and gave it back: aio-pika raises only when asked to."""
    span.set_outcome(ERROR)
    span.set_tag("error.type", "basic.return")
    span.set_tag("error.message", f"{delivery.reply_code} {delivery.reply_text}")


async def _own_publish(exchange: Any, message: Any, routing_key: str, **kwargs: Any) -> Any:
    return await exchange.publish(message, routing_key, **kwargs)


_by_hand = {propagate: _door(_own_publish, traces, propagate=propagate) for propagate in (True, False)}


class _TracedExchange(Proxy):
    """The user's exchange, whose `publish` is traced."""

    def __init__(self, exchange: Any, *, propagate: bool) -> None:
        super().__init__(exchange)
        self._self_propagate = propagate

    async def publish(self, message: Any, routing_key: str, **kwargs: Any) -> Any:
        return await _by_hand[self._self_propagate](self.__wrapped__, message, routing_key, **kwargs)


def traced_producer(exchange: X, *, propagate: bool = True) -> X:
    """The exchange, with every `publish` a span and its context in the message's headers.

    The message, and the headers given to it, stay as they are; trace headers in them are replaced, so that a message
    that was received can be published again. `propagate=False` leaves the headers alone. Under `install()`, too, there
    is one span. Raises `UsageError` for what has no `publish`.

    Example:
        >>> async def send(channel, message):
        ...     orders = traced_producer(channel.default_exchange)
        ...     await orders.publish(message, routing_key="orders")
    """
    if not callable(getattr(exchange, "publish", None)):
        raise UsageError(
            f"traced_producer() needs an aio-pika exchange, got {type(exchange).__name__}",
            hint="channel.default_exchange, or what channel.declare_exchange() returned",
        )
    if not tracer.enabled or getattr(exchange, "_self_propagate", None) is propagate:
        return exchange
    return cast("X", _TracedExchange(exchange, propagate=propagate))


def traced(publish: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """`Exchange.publish`, traced while the patches are on."""
    return _door(publish, installed)
