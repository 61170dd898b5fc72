"""What a span says: names and tags of dd-trace-java's RabbitMQ integration (RabbitDecorator.java).

Bodies and headers are never recorded. Names are bounded: resources by exchange and queue, routing keys are tags.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrace._core.naming import operation
from asynctrace._core.span import Span
from asynctrace._core.values import MEASURED, fit, presentable, text
from asynctrace.aio_pika.headers import produced_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

Tags = dict[str, Any]
"""Fit for the wire."""

SEND = operation("amqp.command", "amqp.send")
PROCESS = operation("amqp.command", "amqp.process")

COMMON = {"component": "aio_pika", "messaging.system": "rabbitmq", MEASURED: 1}

QUEUE_MS = "messaging.queue_ms"
"""How long the message was with the broker, ms: from its publishing on, earlier attempts included."""

BUFFER_MS = "messaging.buffer_ms"
"""How long it then waited in this process to be handled, ms."""

ATTEMPT = "messaging.attempt"
"""Which attempt to handle the message this is, from 1 on; at least the second where the broker tells no number."""

ATTEMPTED = ("rejected", "delivery_limit")
"""The reasons in `x-death` that follow from an attempt; the others are expiry and queues that were full."""


class Place(NamedTuple):
    """A queue, or an exchange, of a broker."""

    name: str
    host: str | None = None
    port: int | None = None


def place_of(owner: Any) -> Place:
    """Where an exchange or a queue of aio-pika's is."""
    url = getattr(getattr(owner.channel, "_connection", None), "url", None)
    host = getattr(url, "host", None)
    return Place(str(owner.name), host, (url.port or 5672) if host else None)  # type: ignore[union-attr]


GENERATED = re.compile(r"amq\.gen-|amq\.rabbitmq\.reply-to\.|amq_[0-9a-f]{32}$")
"""Names of queues that the broker, or a robust channel of aio-pika's, has made up."""


@lru_cache(maxsize=1000)
def bounded(name: str) -> str:
    """A name that can't make a new resource every day.

    Example:
        >>> bounded("orders"), bounded("amq.gen-4fT_kO"), bounded("")
        ('orders', '<generated>', '<default>')
    """
    return "<generated>" if GENERATED.match(name) else name or "<default>"


def _publishing_to(exchange: Any) -> tuple[str, Tags]:
    """Resource and tags of every publish there, remembered with the exchange where that takes attributes."""
    try:
        known: tuple[str, Tags] = vars(exchange)["_asynctrace"]
    except (KeyError, TypeError):
        known = _publishing(place_of(exchange))
        with suppress(AttributeError, TypeError):
            exchange._asynctrace = known
    return known


@lru_cache(maxsize=1000)
def _publishing(exchange: Place) -> tuple[str, Tags]:
    """The same, for all exchanges of that name and place."""
    name = bounded(exchange.name)
    tags = {
        **COMMON,
        "span.kind": "producer",
        "amqp.command": "basic.publish",
        "amqp.exchange": name,
        "messaging.destination.name": name,
        "messaging.operation": "publish",
        **_broker(exchange),
    }
    return text(f"basic.publish {name}"), _fitted(tags)


@lru_cache(maxsize=1000)
def _processing(where: Place, is_queue: bool) -> tuple[str, Tags]:
    """Resource and tags of every message handled that comes from there."""
    name = bounded(where.name)
    tags = {
        **COMMON,
        "span.kind": "consumer",
        "amqp.command": "basic.deliver",
        "messaging.destination.name": name,
        "messaging.operation": "process",
        ATTEMPT: 1,
        **_broker(where),
    }
    if is_queue:
        tags["amqp.queue"] = name
    return text(f"basic.deliver {name}"), _fitted(tags)


def _fitted(tags: Tags) -> Tags:
    return dict(fit(*one) for one in tags.items())


def _broker(place: Place) -> dict[str, Any]:
    if place.host is None:
        return {}
    return {"out.host": place.host, "network.destination.port": place.port}


def describe_publish(exchange: Any, message: Any, routing_key: str) -> Span:
    """One message given to the broker."""
    resource, common = _publishing_to(exchange)
    tags = common.copy()
    tags["amqp.routing_key"] = key = text(routing_key)
    if not exchange.name:  # routes by queue name
        tags["messaging.destination.name"] = bounded(key)
    _say_message(tags, message)
    return Span(SEND, None, resource, None, "worker", tags)


def describe_delivery(
    message: Any, queue: Place | None = None, came_ns: int = 0, now_ns: int = 0
) -> tuple[str, Tags]:
    """Resource and tags of one message handled: it came into this process then, in ns since the epoch, and begins now.

    The default exchange routes by queue name; elsewhere only who consumes knows the queue.
    """
    exchange, key, headers = text(message.exchange or ""), text(message.routing_key or ""), message.headers
    if queue is not None:
        resource, common = _processing(queue, True)
    else:
        resource, common = _processing(Place(exchange or key), not exchange)
    tags = common.copy()
    tags["amqp.exchange"], tags["amqp.routing_key"] = bounded(exchange), key
    _say_message(tags, message)
    if came_ns:
        if (produced := produced_ms(headers)) is not None:
            queued = came_ns / 1e6 - produced
            tags[QUEUE_MS] = queued if queued > 0 else 0.0  # another machine's clock may be ahead
        tags[BUFFER_MS] = (now_ns - came_ns) / 1e6 if now_ns > came_ns else 0.0
    if message.redelivered or (headers and ("x-delivery-count" in headers or "x-death" in headers)):
        _say_attempts(tags, message.redelivered, headers or {})
    return resource, tags


def _say_message(tags: Tags, message: Any) -> None:
    tags["message.size"] = message.body_size
    if message.message_id:
        tags["messaging.message_id"] = text(message.message_id)
    if message.delivery_mode is not None:
        tags["amqp.delivery_mode"] = str(int(message.delivery_mode))


def _say_attempts(tags: Tags, redelivered: object, headers: Mapping[Any, Any]) -> None:
    """How often a message was tried before: told by the broker in headers, the attempts of other processes, too."""
    attempt = 1
    if redelivered:
        tags["amqp.redelivered"] = "true"
    if isinstance(count := headers.get("x-delivery-count"), int) and count >= 0:  # quorum queues
        tags["amqp.delivery_count"] = presentable(count)
        attempt += count
    elif redelivered:
        attempt += 1
    if deaths := _deaths(headers):
        counts = [(death.get("reason"), death.get("count")) for death in deaths]
        total = [count for _, count in counts if isinstance(count, int)]
        attempt += sum(count for reason, count in counts if reason in ATTEMPTED and isinstance(count, int))
        tags["amqp.x_death.count"] = presentable(sum(total))
        tags["amqp.x_death.reason"] = text(deaths[0].get("reason"))
        tags["amqp.x_death.first_queue"] = bounded(text(deaths[-1].get("queue")))
    tags[ATTEMPT] = presentable(attempt)


def _deaths(headers: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    """The entries of `x-death`, the latest first, one for each queue and reason."""
    deaths = headers.get("x-death")
    return [death for death in deaths if isinstance(death, dict)] if isinstance(deaths, list) else []
