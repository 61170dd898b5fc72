"""aio-pika: publishing and consuming, with the trace in the message's headers.

What crosses the gap: Datadog and W3C headers, written as text only (AMQP type S, the one every language reads), read
tolerantly. A message's work belongs to its publisher's trace, never to whoever opened the connection. Doors: the base
`Exchange.publish` and `Queue.consume`; the robust classes call them.

    from asynctrace import traced_consumer, traced_producer

    orders = traced_producer(await channel.declare_exchange("orders"))
    await orders.publish(Message(b"tea"), routing_key="new")     # span basic.publish orders

    await queue.consume(traced_consumer(handle))                 # span basic.deliver, child of the publish

Names and tags: dd-trace-java's RabbitMQ integration (RabbitDecorator.java). Bodies and headers are never recorded.
"""

from __future__ import annotations

import functools
import inspect
import logging
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, cast

import wrapt

from asynctrace._core.api import Description, described
from asynctrace._core.carrier import is_trace_header
from asynctrace._core.context import ROOT, SpanContext
from asynctrace._core.errors import UsageError
from asynctrace._core.naming import operation
from asynctrace._core.span import MEASURED
from asynctrace._core.tracer import tracer
from asynctrace._patching import Patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

    Proxy = wrapt.ObjectProxy[Any]
    Callback = Callable[[AbstractIncomingMessage], Any]
    TracedCallback = Callable[[AbstractIncomingMessage], Awaitable[Any]]

else:
    Proxy = wrapt.ObjectProxy

log = logging.getLogger("asynctrace")

X = TypeVar("X", bound="AbstractExchange")

SUPPORTED = ("9.4", "11")
"""From this version on, below that one."""

SEND = operation("amqp.command", "amqp.send")
PROCESS = operation("amqp.command", "amqp.process")

COMMON_TAGS = {"component": "aio_pika", "messaging.system": "rabbitmq", MEASURED: 1}

_patches = Patches()


# -- what a span says


def bounded(name: str, *, empty: str = "<default>") -> str:
    """A name that can't make a new resource every day: `amq.gen-4fT...` is `<generated>`."""
    if name.startswith("amq.gen-"):
        return "<generated>"
    return name or empty


def describe_publish(exchange: Any, message: Any, routing_key: str) -> Description:
    """One message given to the broker."""
    name = bounded(str(exchange.name))
    tags: dict[str, Any] = {
        **COMMON_TAGS,
        "amqp.command": "basic.publish",
        "amqp.exchange": name,
        "amqp.routing_key": routing_key,
        "messaging.destination.name": name if exchange.name else bounded(str(routing_key)),
        "messaging.operation": "publish",
        **_message_tags(message),
        **_broker_tags(exchange),
    }
    return {
        "name": SEND,
        "resource": f"basic.publish {name}",
        "type": "worker",
        "kind": "producer",
        "tags": tags,
    }


def describe_delivery(message: Any, queue: str | None = None) -> Description:
    """One message handled. The default exchange routes by queue name, elsewhere only the consumer knows its queue."""
    exchange = bounded(str(message.exchange or ""))
    if queue is None and not message.exchange:
        queue = str(message.routing_key or "")
    where = exchange if queue is None else bounded(queue)
    tags: dict[str, Any] = {
        **COMMON_TAGS,
        "amqp.command": "basic.deliver",
        "amqp.exchange": exchange,
        "amqp.routing_key": message.routing_key or "",
        "messaging.destination.name": where,
        "messaging.operation": "process",
        **_message_tags(message),
    }
    if queue is not None:
        tags["amqp.queue"] = where
    if message.redelivered:
        tags["amqp.redelivered"] = "true"
    return {
        "name": PROCESS,
        "resource": f"basic.deliver {where}",
        "type": "worker",
        "kind": "consumer",
        "tags": tags,
    }


def _message_tags(message: Any) -> dict[str, Any]:
    tags: dict[str, Any] = {"message.size": message.body_size}
    if message.message_id:
        tags["messaging.message_id"] = message.message_id
    if message.delivery_mode is not None:
        tags["amqp.delivery_mode"] = str(int(message.delivery_mode))
    return tags


def _broker_tags(exchange: Any) -> dict[str, Any]:
    url = getattr(getattr(exchange.channel, "_connection", None), "url", None)
    host = getattr(url, "host", None)
    if not host:
        return {}
    return {"out.host": host, "server.address": host, "network.destination.port": url.port or 5672}  # type: ignore[union-attr]


# -- what crosses: the message's headers


def read_context(headers: Mapping[Any, Any] | None) -> SpanContext:
    """The publisher's context. Other languages write text, bytes and numbers; everything else is ignored."""
    found: dict[str, str] = {}
    for key, value in (headers or {}).items():
        if not is_trace_header(key):
            continue
        if isinstance(value, (bytes, bytearray)):
            found[key] = value.decode("latin-1")
        elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:  # noqa: PLR2004 - AMQP's longest
            found[key] = str(value)
        elif isinstance(value, str):
            found[key] = value
    return SpanContext.extract(found)


class _Stamped(Proxy):
    """A message as it goes out: the caller's own, but for the headers. One `Message` may be published many times."""

    def __init__(self, message: Any, context: SpanContext) -> None:
        super().__init__(message)
        self._self_context = context

    @property
    def properties(self) -> Any:
        properties = self.__wrapped__.properties
        try:
            properties.headers = self._self_context.inject(dict(properties.headers or {}))
        except Exception:  # headers that are no mapping: aio-pika will say what it thinks of them
            log.debug("no trace headers written", exc_info=True)
        return properties


# -- doors


async def _traced_publish(
    publish: Callable[..., Awaitable[Any]], exchange: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    message, *others = args or (kwargs.get("message"),)
    if message is None or isinstance(message, _Stamped) or not tracer.enabled:
        return await publish(*args, **kwargs)
    routing_key = others[0] if others else kwargs.get("routing_key", "")
    with described(describe_publish, exchange, message, routing_key) as span:
        stamped = _Stamped(message, span.context)
        if args:
            return await publish(stamped, *others, **kwargs)
        return await publish(**{**kwargs, "message": stamped})


class _TracedExchange(Proxy):
    """The user's exchange, whose `publish` is traced."""

    async def publish(self, *args: Any, **kwargs: Any) -> Any:
        return await _traced_publish(self.__wrapped__.publish, self.__wrapped__, args, kwargs)


def traced_producer(exchange: X) -> X:
    """The exchange, with every `publish` a span and its context in the message's headers.

    The message, and the headers given to it, stay as they are. Under `install()`, too, there is one span. Raises
    `UsageError` for what has no `publish`.

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
    if not tracer.enabled or isinstance(exchange, _TracedExchange):
        return exchange
    return cast("X", _TracedExchange(exchange))


_consumers: weakref.WeakValueDictionary[tuple[object, ...], TracedCallback] = weakref.WeakValueDictionary()
"""The wrapper of a callback for a queue, while it is in use. A wrapper holds its callback, so the ids stay true."""


def traced_consumer(callback: Callback) -> TracedCallback:
    """The callback, with every message handled in a span of its own, child of the span that published it.

    Functions, bound methods, partials, callable objects. The same callback gives the same wrapper while it is in use.
    What the callback raises goes on unchanged. Raises `UsageError` for what can't be called.

    Example:
        >>> async def handle(message):
        ...     await message.ack()
        >>> async def work(queue):
        ...     await queue.consume(traced_consumer(handle))
    """
    if not callable(callback):
        raise UsageError(
            f"traced_consumer() needs a callback, got {type(callback).__name__}",
            hint="the function you would give to queue.consume()",
        )
    if not tracer.enabled:
        return callback
    return _consumer(callback, None)


def _consumer(callback: Callback, queue: str | None) -> TracedCallback:
    """The wrapper of a callback for a queue; of a wrapper, the wrapper with the queue's name."""
    inner: Callback = getattr(callback, "_asynctrace_callback", callback)
    if inner is not callback and queue is None:
        return callback
    # a bound method is a new object at every look: its object and function are what is the same
    identity = (inner.__self__, inner.__func__) if inspect.ismethod(inner) else (inner,)
    key = (queue, *map(id, identity))
    wrapper = _consumers.get(key)
    if wrapper is None:
        wrapper = _consumers[key] = _traced_callback(inner, queue)
    return wrapper


def _traced_callback(callback: Callback, queue: str | None) -> TracedCallback:
    from aio_pika.tools import ensure_awaitable

    run = ensure_awaitable(callback)

    async def handle(message: AbstractIncomingMessage) -> Any:
        context = _context_of(message)
        with described(describe_delivery, message, queue, parent=context):
            return await run(message)

    functools.update_wrapper(handle, callback, updated=())
    handle._asynctrace_callback = callback  # type: ignore[attr-defined]
    return handle


def _context_of(message: Any) -> SpanContext:
    try:
        return read_context(message.headers)
    except Exception:  # headers that are no mapping
        return ROOT


async def _traced_consume(
    consume: Callable[..., Awaitable[Any]], queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    from aio_pika.queue import QueueIterator

    callback, *others = args or (kwargs.get("callback"),)
    of_iterator = isinstance(
        getattr(callback, "__self__", None), QueueIterator
    )  # only puts it into its own queue
    if not _patches or not tracer.enabled or not callable(callback) or of_iterator:
        return await consume(*args, **kwargs)
    traced = _consumer(callback, str(queue.name))
    if args:
        return await consume(traced, *others, **kwargs)
    return await consume(**{**kwargs, "callback": traced})


async def _installed_publish(
    publish: Callable[..., Awaitable[Any]], exchange: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if not _patches:
        return await publish(*args, **kwargs)
    return await _traced_publish(publish, exchange, args, kwargs)


def install() -> None:
    """Trace every publish and consume of this process; `asynctrace.install("aio_pika")` checks the version first."""
    from aio_pika.exchange import Exchange
    from aio_pika.queue import Queue

    if _patches:
        return
    _patches.wrap(Exchange, "publish", _installed_publish)
    _patches.wrap(Queue, "consume", _traced_consume)


def uninstall() -> None:
    """Take the patches off. Consumers that were registered under them stay traced until they are cancelled."""
    _patches.undo()
