"""`queue.consume(callback)`: a span for each message, from its delivery to the end of the callback."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from asynctrace import SpanContext, span, start_span, traced_consumer, traced_producer
from asynctrace.aio_pika import read_context
from tests.messages.conftest import Broker, delivered, of_kind

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


async def test_a_message_is_handled_in_its_publishers_trace(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """Under install(), unchanged: consumer span below publish span, with the names and tags Datadog knows."""
    installed("aio_pika")
    await consuming(broker.handle)
    with span("request"):
        await broker.publish(b"tea", message_id="m1")
    await broker.handled.get()
    [process] = await delivered(traces, 1)
    [publish] = of_kind(traces, "producer")
    assert publish.parent_id == traces.one("request").span_id
    assert process.parent_id == publish.span_id
    assert traces.one("work").parent_id == process.span_id
    assert {one.trace_id for one in traces.spans} == {publish.trace_id}
    assert (publish.name, publish.resource, publish.type) == (
        "amqp.command",
        "basic.publish <default>",
        "worker",
    )
    assert (process.name, process.type) == ("amqp.command", "worker")
    assert process.resource == f"basic.deliver {broker.queue.name}"
    both = {
        "component": "aio_pika",
        "messaging.system": "rabbitmq",
        "messaging.destination.name": broker.queue.name,
        "messaging.message_id": "m1",
        "amqp.exchange": "<default>",
        "amqp.routing_key": broker.queue.name,
        "message.size": 3,
        "_dd.measured": 1,
    }
    assert {key: publish.tags.get(key) for key in both} == both
    assert {key: process.tags.get(key) for key in both} == both
    assert publish.tags["out.host"] == "127.0.0.1"
    assert process.tags["amqp.queue"] == broker.queue.name


async def test_by_hand_it_is_the_same(broker: Broker, consuming: Any, traces: Recorder) -> None:
    """traced_producer and traced_consumer, nothing installed: the same two spans."""
    await consuming(traced_consumer(broker.handle))
    exchange = traced_producer(broker.channel.default_exchange)
    assert isinstance(exchange, aio_pika.abc.AbstractExchange)
    with span("request"):
        await exchange.publish(message=aio_pika.Message(b"tea"), routing_key=broker.queue.name)
    await broker.handled.get()
    await delivered(traces, 1)
    assert traces.tree() == "request\n  amqp.command\n    amqp.command\n      work"


async def test_by_hand_and_installed_is_one_span(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """The helpers under install(): one span per operation, not two."""
    installed("aio_pika")
    await consuming(traced_consumer(broker.handle))
    await traced_producer(broker.channel.default_exchange).publish(
        aio_pika.Message(b"tea"), broker.queue.name
    )
    await broker.handled.get()
    [process] = await delivered(traces, 1)
    assert traces.tree() == "amqp.command\n  amqp.command\n    work"
    assert process.resource == f"basic.deliver {broker.queue.name}"


async def test_a_consumer_belongs_to_nobodys_request(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """A consumer registered while a span is open handles no message under that span."""
    installed("aio_pika")
    with span("startup"):
        await consuming(broker.handle)
        await broker.publish_bare()
        await broker.handled.get()
        [process] = await delivered(traces, 1)
    assert process.parent_id is None
    assert process.trace_id != traces.one("startup").trace_id


async def test_one_message_published_by_many_is_shared_by_none(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """One `Message` object published by five requests at once: five traces, its headers untouched."""
    installed("aio_pika")
    await consuming(broker.handle)
    headers = {"tenant": "a", "Traceparent": "stale"}
    message = aio_pika.Message(b"tea", headers=headers)  # type: ignore[arg-type]

    async def request(number: int) -> None:
        with span(f"request {number}"):
            await broker.channel.default_exchange.publish(message, broker.queue.name)

    await asyncio.gather(*map(request, range(5)))
    received = [await broker.handled.get() for _ in range(5)]
    processed = await delivered(traces, 5)
    assert message.headers is headers
    assert headers == {"tenant": "a", "Traceparent": "stale"}
    publishes = {one.span_id: one for one in of_kind(traces, "producer")}
    assert {one.parent_id for one in processed} == set(publishes)
    assert len({one.trace_id for one in processed}) == 5
    for one in received:
        assert one.headers["tenant"] == "a"
        assert "Traceparent" not in one.headers
        assert all(isinstance(value, str) for value in one.headers.values())


async def test_a_handlers_exception_is_its_messages_error(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """An exception in the handler: error on its span, the message settled as it says, the next one unharmed."""
    installed("aio_pika")

    async def fragile(message: Any) -> None:
        if message.body == b"bad":
            async with message.process(requeue=False):
                raise ValueError("no tea")
        await broker.handle(message)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # aio-pika leaves it to the loop
    await consuming(fragile)
    await broker.publish(b"bad", b"good")
    assert (await broker.handled.get()).body == b"good"
    processed = await delivered(traces, 2)
    assert [(one.error, one.tags.get("error.type")) for one in processed] == [
        (1, "builtins.ValueError"),
        (0, None),
    ]


async def test_a_publish_that_fails_is_an_error_and_raises_as_ever(
    installed: Any, broker: Broker, traces: Recorder
) -> None:
    """The caller gets aio-pika's own exception; the publish span has it, too."""
    installed("aio_pika")
    channel = broker.channel
    await channel.close()
    with pytest.raises(aio_pika.exceptions.ChannelInvalidStateError):
        await broker.publish(b"tea")
    [publish] = of_kind(traces, "producer")
    assert (publish.error, publish.outcome) == (1, "error")


class Worker:
    """Callbacks of every kind."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def method(self, message: Any) -> None:
        await self.broker.handle(message)

    async def __call__(self, message: Any) -> None:
        await self.broker.handle(message)


@pytest.mark.parametrize("kind", ["method", "object", "partial"])
async def test_every_kind_of_callback(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder, kind: str
) -> None:
    """Bound methods, callable objects and partials are consumers like functions."""
    installed("aio_pika")
    worker = Worker(broker)
    callbacks = {
        "method": worker.method,
        "object": worker,
        "partial": functools.partial(Worker.method, worker),
    }
    await consuming(callbacks[kind])
    await broker.publish(b"tea")
    await broker.handled.get()
    await delivered(traces, 1)
    assert traces.tree() == "amqp.command\n  amqp.command\n    work"


def test_the_same_callback_has_the_same_wrapper() -> None:
    """Robust connections register a callback again and again: the wrapper does not grow."""

    async def handle(message: Any) -> None: ...

    class Holder:
        async def handle(self, message: Any) -> None: ...

    holder = Holder()
    assert traced_consumer(handle) is traced_consumer(handle)
    assert traced_consumer(traced_consumer(handle)) is traced_consumer(handle)
    wrapper = traced_consumer(holder.handle)
    assert traced_consumer(holder.handle) is wrapper
    assert traced_consumer(Holder().handle) is not wrapper


def test_headers_of_other_languages_are_read() -> None:
    """Text, bytes and numbers as Java, .NET, JS and Go write them; everything else is ignored and never raises."""
    sent = start_span("sent")
    sent.finish()
    headers = sent.context.inject({})
    as_bytes = {key: value.encode() for key, value in headers.items()}
    as_arrays = {key.upper(): bytearray(value.encode()) for key, value in headers.items()}
    numbers = {key: int(value) if value.isdigit() else value for key, value in headers.items()}
    for variant in (headers, as_bytes, as_arrays, numbers):
        assert read_context(variant) == sent.context
    odd: dict[Any, Any] = {"x-death": [{"count": 1}], 7: 8, "traceparent": ["a"], "x-datadog-trace-id": 2.5}
    assert read_context({**odd, "x-datadog-parent-id": None}) == SpanContext()
    assert read_context(None) == SpanContext()
