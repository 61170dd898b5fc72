"""Publishing: a span for each message, whose context goes along in a copy of its headers."""

from __future__ import annotations

import copy
import functools
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

import wrapt

from asynctrace._core.api import described
from asynctrace._core.errors import UsageError
from asynctrace._core.outcome import ERROR
from asynctrace._core.tracer import tracer
from asynctrace.aio_pika.describe import describe_publish
from asynctrace.aio_pika.headers import stamped
from asynctrace.aio_pika.switch import patches, settings, traces

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

    def __init__(self, message: Any, context: SpanContext | None) -> None:
        super().__init__(message)
        self._self_context = context

    @property
    def properties(self) -> Any:
        message = self.__wrapped__
        properties = message.properties
        if self._self_context is not None:
            try:
                if type(message).__module__ != "aio_pika.message":  # others may give the same ones every time
                    properties = copy.copy(properties)
                properties.headers = stamped(properties.headers, self._self_context)
            except Exception:  # headers that are no mapping: aio-pika will say what it thinks of them
                log.debug("no trace headers written", exc_info=True)
        return properties


async def _published(
    publish: Callable[..., Awaitable[Any]],
    exchange: Any,
    message: Any,
    routing_key: Any,
    kwargs: dict[str, Any],
    *,
    propagate: bool = True,
) -> Any:
    if type(message) is _Stamped or not traces():
        return await publish(exchange, message, routing_key, **kwargs)
    with described(describe_publish, exchange, message, routing_key) as span:
        goes_along = propagate and settings.propagates_to(exchange.name, routing_key)
        going = _Stamped(message, span.context if goes_along else None)
        result = await publish(exchange, going, routing_key, **kwargs)
        if (delivery := getattr(result, "delivery", None)) is not None:
            _returned(span, delivery)
        return result


def _returned(span: Span, delivery: Any) -> None:
    """The broker could not route a mandatory message, and gave it back: aio-pika raises only when asked to."""
    span.set_outcome(ERROR)
    span.set_tag("error.type", "basic.return")
    span.set_tag("error.message", f"{delivery.reply_code} {delivery.reply_text}")


class _TracedExchange(Proxy):
    """The user's exchange, whose `publish` is traced."""

    def __init__(self, exchange: Any, *, propagate: bool) -> None:
        super().__init__(exchange)
        self._self_propagate = propagate

    async def publish(self, message: Any, routing_key: str, **kwargs: Any) -> Any:
        exchange, propagate = self.__wrapped__, self._self_propagate
        return await _published(_own_publish, exchange, message, routing_key, kwargs, propagate=propagate)


async def _own_publish(exchange: Any, message: Any, routing_key: str, **kwargs: Any) -> Any:
    return await exchange.publish(message, routing_key, **kwargs)


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

    @functools.wraps(publish)
    async def method(self: Any, message: Any, routing_key: str, **kwargs: Any) -> Any:
        if not patches:
            return await publish(self, message, routing_key, **kwargs)
        return await _published(publish, self, message, routing_key, kwargs)

    return method
