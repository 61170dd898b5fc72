"""One message, several attempts: one trace, a span each, and what the broker says of the earlier ones as tags."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from aio_pika import Message

from asynctrace import span, traced_producer
from asynctrace.aio_pika.describe import describe_delivery
from tests.messages.conftest import Broker, delivered, of_kind
from tests.messages.styles import BY_HAND, INSTALLED

if TYPE_CHECKING:
    from asynctrace.testing import Recorder
    from tests.messages.styles import Style

STYLES = [pytest.param(style, id=style.__name__) for style in (*INSTALLED, *BY_HAND)]

ATTEMPTS = 3


async def handle(message: Any) -> None:
    """Takes it at the third attempt."""
    deaths = message.headers.get("x-death") or [{"count": 0}]
    async with message.process():
        with span("work"):
            if deaths[-1]["count"] < ATTEMPTS - 1:
                raise ValueError("not yet")


@pytest.fixture
async def retried(broker: Broker) -> Any:
    """A queue whose rejected messages wait in another one, and come back from there."""
    name = f"asynctrace-{uuid.uuid4().hex}"
    to = {"x-dead-letter-exchange": ""}
    waiting = await broker.declare(
        arguments={**to, "x-dead-letter-routing-key": name, "x-message-ttl": 1}, exclusive=True
    )
    return await broker.consuming.declare_queue(
        name, exclusive=True, arguments={**to, "x-dead-letter-routing-key": waiting.name}
    )


@pytest.mark.parametrize("style", STYLES)
async def test_through_a_dead_letter_exchange(
    style: Style, installed: Any, broker: Broker, retried: Any, traces: Recorder, unhandled: Any
) -> None:
    """Every attempt is in the one trace, below the publish span; its number and the message's deaths are tags."""
    if style in INSTALLED:
        installed("aio_pika")
    exchange = broker.channel.default_exchange
    if style in BY_HAND:
        exchange = traced_producer(exchange)
    with span("request"):
        await exchange.publish(Message(b"tea"), retried.name)
    await style(retried, handle, ATTEMPTS, "child")
    delivers = await delivered(traces, ATTEMPTS)
    [publish] = of_kind(traces, "producer")
    assert {(one.trace_id, one.parent_id) for one in delivers} == {(publish.trace_id, publish.span_id)}
    assert [one.outcome for one in delivers] == ["error", "error", "ok"]
    assert [one.tags["messaging.attempt"] for one in delivers] == [1, 2, 3]
    # each attempt, and each expiry in the waiting queue, is a death
    assert [one.tags.get("amqp.x_death.count") for one in delivers] == [None, 2, 4]
    assert [one.tags.get("amqp.x_death.reason") for one in delivers] == [None, "expired", "expired"]
    assert [one.tags.get("amqp.x_death.first_queue") for one in delivers] == [
        None,
        retried.name,
        retried.name,
    ]
    queue_ms = [one.tags["messaging.queue_ms"] for one in delivers]
    assert queue_ms == sorted(queue_ms)


async def test_a_quorum_queue(installed: Any, broker: Broker, traces: Recorder) -> None:
    """Quorum queues count deliveries: the number of the attempt is exact after any number of requeues."""
    installed("aio_pika")
    arguments = {"x-queue-type": "quorum"}
    name = f"asynctrace-{uuid.uuid4().hex}"
    queue = await broker.consuming.declare_queue(name, durable=True, arguments=arguments)
    try:
        await broker.channel.default_exchange.publish(Message(b"tea"), queue.name)
        async with queue.iterator() as messages:
            async for message in messages:
                if message.headers.get("x-delivery-count", 0) == 2:
                    await message.ack()
                    break
                await message.nack()
    finally:
        await queue.delete(if_unused=False, if_empty=False)
    delivers = await delivered(traces, 3)
    assert [one.tags["messaging.attempt"] for one in delivers] == [1, 2, 3]
    assert [one.tags.get("amqp.delivery_count") for one in delivers][1:] == [1, 2]
    assert [one.tags.get("amqp.redelivered") for one in delivers] == [None, "true", "true"]


class Delivered:
    """What describe_delivery looks at."""

    exchange, routing_key, body_size, message_id, delivery_mode = "", "q", 3, None, None

    def __init__(self, headers: Any, *, redelivered: bool = False) -> None:
        self.headers, self.redelivered = headers, redelivered


@pytest.mark.parametrize(
    ("headers", "attempt"),
    [
        (None, 1),
        ({"x-death": [{"reason": "rejected", "count": 3}]}, 4),
        ({"x-death": [{"reason": "expired", "count": 3}]}, 1),
        ({"x-death": [{"reason": "expired", "count": 2}, {"reason": "rejected", "count": 2}]}, 3),
        ({"x-death": [{"reason": "delivery_limit", "count": 1}], "x-delivery-count": 4}, 6),
        ({"x-death": "rubbish", "x-delivery-count": "rubbish"}, 1),
        ({"x-death": [7, {"reason": ["rejected"], "count": {}}, {}], "x-delivery-count": -7}, 1),
    ],
)
def test_the_number_of_an_attempt(headers: Any, attempt: int) -> None:
    """One more than there were before: rejected, or given up by a quorum queue; expired messages were not attempted."""
    _, tags = describe_delivery(Delivered(headers))
    assert tags["messaging.attempt"] == attempt


def test_redelivered_by_a_classic_queue() -> None:
    """It does not count: at least the second."""
    _, tags = describe_delivery(Delivered({}, redelivered=True))
    assert tags["messaging.attempt"] == 2
