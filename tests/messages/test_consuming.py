"""`queue.consume(callback)`: a span for each message, from its delivery to the end of the callback."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from ddtrace.trace import tracer

from asynctrace import span, traced_consumer, traced_producer
from asynctrace._core.handover import handover
from tests.messages.conftest import Broker, delivered, of_kind, short

if TYPE_CHECKING:
    from asynctrace.testing import Recorder
    from demos.services import Service


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


async def test_linked_by_hand_under_install(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """The relation that was asked for by hand holds under `install()`, too."""
    installed("aio_pika")
    await consuming(traced_consumer(broker.handle, relation="link"))
    await broker.publish(b"tea")
    [process] = await delivered(traces, 1)
    [publish] = of_kind(traces, "producer")
    assert (process.parent_id, [one.span_id for one in process.links]) == (None, [publish.span_id])


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


class Decorated:
    """A method may be wrapped where it is defined."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    @traced_consumer
    async def handle(self, message: Any) -> None:
        await self.broker.handle(message)


async def test_as_a_decorator(broker: Broker, consuming: Any, traces: Recorder) -> None:
    """`@traced_consumer` on a function, and on a method of a class."""
    await consuming(Decorated(broker).handle)
    await broker.publish_bare()
    await delivered(traces, 1)
    traces.assert_tree("deliver\n  work", label=short)


@pytest.mark.parametrize("prefetch", [1, 100])
async def test_fifty_handlers_at_once(
    prefetch: int, installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """Whatever the prefetch: handlers that run at once, and the tasks they leave behind, stay with their message."""
    installed("aio_pika")
    await broker.consuming.set_qos(prefetch_count=prefetch)
    together = asyncio.Barrier(50) if prefetch > 1 and hasattr(asyncio, "Barrier") else None
    left: list[asyncio.Task[None]] = []

    async def background(body: str) -> None:
        await asyncio.sleep(0)
        with span("background", tags={"body": body}):
            pass

    async def handle(message: Any) -> None:
        body = message.body.decode()
        if together is not None:
            await together.wait()
        with span("work", tags={"body": body}):
            await asyncio.sleep(0)
        left.append(asyncio.create_task(background(body)))
        await message.ack()

    async def request(number: int) -> None:
        with span("request", tags={"body": str(number)}):
            await broker.publish(b"%d" % number)

    await consuming(handle)
    await asyncio.gather(*map(request, range(50)))
    await delivered(traces, 50)
    await asyncio.gather(*left)
    await traces.wait_for(250)
    traces.assert_no_crosstalk("body")
    traces.assert_no_orphans()
    assert {len(spans) for spans in traces.traces().values()} == {5}


async def test_a_connection_belongs_to_nobodys_request(
    installed: Any, traces: Recorder, rabbitmq: Service
) -> None:
    """Opened in a request: neither a message's trace nor what the library calls back later is that request's."""
    installed("aio_pika")
    returned = asyncio.Event()

    def on_return(_: Any, __: Any) -> None:
        with span("returned"):
            returned.set()

    with span("request"):
        connection = await aio_pika.connect_robust(rabbitmq.url)
        channel = await connection.channel()
        channel.return_callbacks.add(on_return)
    async with connection:
        await channel.default_exchange.publish(aio_pika.Message(b"tea"), "no such queue")
        await returned.wait()
    one = traces.one("returned")
    assert (one.parent_id, one.links) == (None, one.links[:0])


async def test_a_request_is_not_kept(installed: Any, traces: Recorder, rabbitmq: Service) -> None:
    """A connection that was opened in a request holds nothing of it: neither its span nor its entry."""
    installed("aio_pika")

    async def request() -> tuple[Any, weakref.ref[Any]]:
        with span("request") as opened:
            connection = await aio_pika.connect_robust(rabbitmq.url)
            await connection.channel()
            return connection, weakref.ref(opened)

    connection, reference = await asyncio.create_task(request())
    handover.finish()  # its trace has left
    gc.collect()
    assert reference() is None
    await connection.close()


async def test_timings(installed: Any, broker: Broker, consuming: Any, traces: Recorder) -> None:
    """`messaging.queue_ms` is the time with the broker, `messaging.buffer_ms` that before the handler runs."""
    installed("aio_pika")
    await broker.publish(b"tea")
    await asyncio.sleep(0.05)
    await consuming(broker.handle)
    [deliver] = await delivered(traces, 1)
    assert 45 <= deliver.tags["messaging.queue_ms"] < 5000
    assert 0 <= deliver.tags["messaging.buffer_ms"] < 1000


@pytest.mark.parametrize("headers", [None, {}, {"traceparent": "rubbish"}, {"x-datadog-trace-id": "0"}])
async def test_no_headers_or_bad_ones(
    headers: Any, installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """A new trace."""
    installed("aio_pika")
    await consuming(broker.handle)
    await broker.publish_bare(headers=headers)
    [deliver] = await delivered(traces, 1)
    assert (deliver.parent_id, deliver.trace_id > 0) == (None, True)


async def test_cancelled_with_its_channel(installed: Any, broker: Broker, traces: Recorder) -> None:
    """A handler that aio-pika cancels because the user closes the channel: cancelled, no error."""
    installed("aio_pika")
    handling = asyncio.Event()

    async def handle(_: Any) -> None:
        handling.set()
        await asyncio.get_running_loop().create_future()

    await broker.queue.consume(handle)
    await broker.publish(b"tea")
    await handling.wait()
    await broker.consuming.close()
    [deliver] = await delivered(traces, 1)
    assert (deliver.outcome, deliver.error) == ("cancelled", 0)


async def test_the_same_exception(broker: Broker, unhandled: Any, traces: Recorder) -> None:
    """What a handler raises reaches aio-pika as that object, by hand as without us."""
    exc = ValueError("no tea")

    async def handle(_: Any) -> None:
        raise exc

    with pytest.raises(ValueError, match="no tea") as caught:
        await traced_consumer(handle)(await fetched(broker))
    assert caught.value is exc
    [deliver] = of_kind(traces, "consumer")
    assert (deliver.outcome, deliver.tags["error.message"]) == ("error", "no tea")


async def fetched(broker: Broker) -> Any:
    await broker.publish_bare()
    return await broker.queue.get(no_ack=True)


async def test_off_by_hand(broker: Broker, traces: Recorder) -> None:
    """Wrapped while tracing is on, called while it is off: the callback's own call, and no span."""

    async def handle(message: Any) -> Any:
        return message

    wrapped = traced_consumer(handle)
    message = await fetched(broker)
    tracer.enabled = False
    try:
        assert await wrapped(message) is message
    finally:
        tracer.enabled = True
    assert traces.spans == []
