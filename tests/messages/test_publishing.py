"""Publishing: a span for each message, an error when the broker would not take it, headers copied."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from asynctrace import SpanContext, UsageError, span, traced_producer
from asynctrace.aio_pika import read_context, switch
from tests.messages.conftest import Broker, delivered, of_kind, short
from tests.messages.wire import Wire, as_dotnet, as_java, entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from demos.services import Service

TRACE_HEADERS = {
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "traceparent",
    "tracestate",
}


@pytest.mark.parametrize("confirms", [True, False], ids=["confirms", "no confirms"])
@pytest.mark.parametrize("connect", [aio_pika.connect, aio_pika.connect_robust])
@pytest.mark.parametrize("named", [False, True], ids=["default exchange", "named exchange"])
async def test_every_kind_of_channel(
    connect: Callable[..., Any],
    confirms: bool,
    named: bool,
    installed: Any,
    broker: Broker,
    consuming: Any,
    traces: Recorder,
    rabbitmq: Service,
) -> None:
    """Plain and robust, with confirms and without, default exchange or another: one span, and the trace goes along."""
    installed("aio_pika")
    await consuming(broker.handle)
    async with await connect(rabbitmq.url) as connection:
        channel = await connection.channel(publisher_confirms=confirms)
        exchange = channel.default_exchange
        if named:
            exchange = await channel.declare_exchange(f"asynctrace-{uuid.uuid4().hex}", auto_delete=True)
            await broker.queue.bind(exchange.name, "key")
        with span("request"):
            result = await exchange.publish(aio_pika.Message(b"tea"), "key" if named else broker.queue.name)
        await delivered(traces, 1)
    assert (result is None) is not confirms
    traces.assert_tree("request\n  publish\n    deliver\n      work", label=short)
    [publish] = of_kind(traces, "producer")
    assert publish.resource == f"basic.publish {exchange.name or '<default>'}"
    assert publish.tags["messaging.destination.name"] == (exchange.name or broker.queue.name)
    assert publish.tags["out.host"] == "127.0.0.1"


async def test_a_transaction(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder, rabbitmq: Service
) -> None:
    """What is published in a transaction that is committed arrives in its trace; rolled back, its span is no error."""
    installed("aio_pika")
    await consuming(broker.handle)
    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        for name, fails in (("kept", False), ("lost", True)):
            try:
                with span(name):
                    async with channel.transaction():
                        await channel.default_exchange.publish(aio_pika.Message(b"tea"), broker.queue.name)
                        if fails:
                            raise KeyError(name)  # noqa: TRY301 - in the transaction
            except KeyError:
                pass
        await delivered(traces, 1)
    traces.assert_tree("kept\n  publish\n    deliver\n      work\nlost (error)\n  publish", label=short)


@pytest.mark.parametrize("raises", [False, True], ids=["returned", "raised"])
async def test_a_message_nobody_wants(
    raises: bool, installed: Any, traces: Recorder, rabbitmq: Service
) -> None:
    """A mandatory message that comes back is its span's error; the caller gets what aio-pika gives, or raises."""
    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel(on_return_raises=raises)

        async def publish() -> object:
            try:
                return await channel.default_exchange.publish(aio_pika.Message(b"tea"), "no such queue")
            except aio_pika.exceptions.PublishError as exc:
                return exc

        bare = await publish()
        installed("aio_pika")
        traced = await publish()
    assert type(traced) is type(bare)
    [publish_span] = of_kind(traces, "producer")
    assert (publish_span.error, publish_span.outcome) == (1, "error")
    expected = "aiormq.exceptions.PublishError" if raises else "basic.return"
    assert publish_span.tags["error.type"] == expected
    assert "NO_ROUTE" in publish_span.tags["error.message"]


async def test_a_message_the_broker_refuses(
    installed: Any, broker: Broker, traces: Recorder, rabbitmq: Service
) -> None:
    """A nack from a full queue raises aio-pika's DeliveryError, unchanged, and is its span's error."""
    installed("aio_pika")
    full = await broker.declare(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    await broker.channel.default_exchange.publish(aio_pika.Message(b"first"), full.name)
    with pytest.raises(aio_pika.exceptions.DeliveryError):
        await broker.channel.default_exchange.publish(aio_pika.Message(b"second"), full.name)
    assert [one.outcome for one in of_kind(traces, "producer")] == ["ok", "error"]


class Cached(aio_pika.Message):
    """Its properties are the same object every time."""

    @property
    def properties(self) -> Any:
        if "_cached" not in vars(self):
            self._cached = super().properties
        return self._cached


async def test_properties_of_the_users(installed: Any, broker: Broker) -> None:
    """A message of the user's own kind, too, is left as it was."""
    installed("aio_pika")
    message = Cached(b"tea", headers={"tenant": "a"})
    await broker.channel.default_exchange.publish(message, broker.queue.name)
    assert "traceparent" in (await broker.queue.get(no_ack=True)).headers
    assert message.properties.headers == {"tenant": "a"}


@pytest.mark.parametrize("routing_key", [["a"], 7, None, "x" * 256])
async def test_what_can_not_be_published(
    routing_key: Any, installed: Any, broker: Broker, traces: Recorder
) -> None:
    """A routing key that is none: aio-pika's own exception, as without us, and the span has it."""

    async def publish() -> str:
        with pytest.raises((TypeError, ValueError)) as caught:
            await broker.channel.default_exchange.publish(aio_pika.Message(b"tea"), routing_key)
        return repr(caught.value)

    bare = await publish()
    installed("aio_pika")
    assert await publish() == bare
    assert [one.outcome for one in of_kind(traces, "producer")] == ["error"]


async def test_a_cancelled_publish(installed: Any, broker: Broker, traces: Recorder) -> None:
    """Cancelled while it waits for the broker's confirm: cancelled, no error."""
    installed("aio_pika")
    task = asyncio.create_task(broker.publish(b"tea"))
    await traces.wait_for(lambda _: traces.open)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [publish] = of_kind(traces, "producer")
    assert (publish.outcome, publish.error) == ("cancelled", 0)


STALE = {
    "x-datadog-trace-id": "stale",
    "X-Datadog-Parent-Id": "stale",
    "x-datadog-origin": "stale",
    "traceparent": "stale",
    "b3": "stale",
    "x-b3-traceid": "stale",
    "ot-baggage-user": "stale",
    "x-asynctrace-produced": "stale",
}


async def test_a_message_is_forwarded(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """A received message published again: every trace header is replaced, in any spelling; others stay as they are."""
    installed("aio_pika")
    deaths = [{"count": 1, "reason": "rejected", "queue": "q", "exchange": "e", "routing-keys": ["k"]}]
    await broker.publish_bare(headers={**STALE, "x-death": deaths, "tenant": "a"})
    received = await broker.queue.get()
    before = dict(received.headers)
    with span("forward"):
        await broker.channel.default_exchange.publish(received, broker.queue.name)
    await received.ack()
    assert dict(received.headers) == before
    forwarded = await broker.queue.get(no_ack=True)
    [publish] = of_kind(traces, "producer")
    assert read_context(forwarded.headers).span_id == publish.span_id
    assert forwarded.headers["x-death"] == deaths
    assert forwarded.headers["tenant"] == "a"
    assert set(forwarded.headers) == {"x-death", "tenant", "x-asynctrace-produced", *TRACE_HEADERS}


async def test_what_is_on_the_wire(
    installed: Any, broker: Broker, traces: Recorder, rabbitmq: Service
) -> None:
    """Every header of ours has type S; .NET, which reads nothing else, and Java's toString() see the whole context."""
    installed("aio_pika")
    shared = await broker.consuming.declare_queue(f"asynctrace-{uuid.uuid4().hex}", auto_delete=True)
    message = aio_pika.Message(b"", headers={"tenant": "a"})
    with span("request"):
        await broker.channel.default_exchange.publish(message, shared.name)
    with Wire(rabbitmq.url) as wire:
        raw = await asyncio.to_thread(wire.get, shared.name)
    await shared.delete()
    assert set(entries(raw)) == {"tenant", "x-asynctrace-produced", *TRACE_HEADERS}
    assert {kind for kind, _ in entries(raw).values()} == {"S"}
    [publish] = of_kind(traces, "producer")
    for seen in (as_dotnet(raw), as_java(raw)):
        assert SpanContext.extract(seen).span_id == publish.span_id
        assert SpanContext.extract(seen).trace_id == publish.trace_id


async def test_the_timestamp_is_the_users(installed: Any, broker: Broker) -> None:
    """`Message.timestamp` is neither set nor changed: other tracers take it for the time of publishing."""
    installed("aio_pika")
    then = datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    for timestamp in (None, then):
        await broker.publish(b"tea", timestamp=timestamp)
        assert (await broker.queue.get(no_ack=True)).timestamp == timestamp


async def test_by_hand_without_the_trace(broker: Broker, traces: Recorder) -> None:
    """`propagate=False`: a span, and headers as they were given."""
    exchange = traced_producer(broker.channel.default_exchange, propagate=False)
    await exchange.publish(aio_pika.Message(b"tea", headers={"traceparent": "mine"}), broker.queue.name)
    assert (await broker.queue.get(no_ack=True)).headers == {"traceparent": "mine"}
    assert len(of_kind(traces, "producer")) == 1


@pytest.mark.parametrize(
    ("setting", "goes_along"),
    [
        ({}, True),
        ({"DD_RABBIT_PROPAGATION_ENABLED": "false"}, False),
        ({"DD_RABBIT_PROPAGATION_DISABLED_QUEUES": "other, {queue}"}, False),
        ({"DD_RABBIT_PROPAGATION_DISABLED_QUEUES": "other"}, True),
        ({"DD_RABBIT_PROPAGATION_DISABLED_EXCHANGES": "{exchange}"}, False),
        ({"DD_RABBIT_PROPAGATION_DISABLED_EXCHANGES": "other"}, True),
    ],
)
async def test_propagation_is_off_by_destination(
    setting: dict[str, str],
    goes_along: bool,
    installed: Any,
    broker: Broker,
    traces: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """dd-trace-java's settings, by exchange and by queue: nothing is written there, and nothing read."""
    exchange = await broker.channel.declare_exchange(f"asynctrace-{uuid.uuid4().hex}", auto_delete=True)
    await broker.queue.bind(exchange.name, "key")
    for name, value in setting.items():
        monkeypatch.setenv(name, value.format(queue=broker.queue.name, exchange=exchange.name))
    monkeypatch.setattr(switch.settings, "__dict__", vars(switch.Settings()))
    installed("aio_pika")
    by_queue = "DD_RABBIT_PROPAGATION_DISABLED_QUEUES" in setting
    target = broker.channel.default_exchange if by_queue else exchange
    await target.publish(aio_pika.Message(b"tea"), broker.queue.name if by_queue else "key")
    received = await broker.queue.get(no_ack=True)
    assert ("traceparent" in received.headers) is goes_along
    await target.publish(
        aio_pika.Message(b"tea", headers={"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"}),
        broker.queue.name if by_queue else "key",
    )
    async with broker.queue.iterator(no_ack=True) as messages:
        async for _ in messages:
            break
    [deliver] = await delivered(traces, 1)
    assert (deliver.parent_id is not None) is goes_along


def test_what_can_not_be_wrapped() -> None:
    """`UsageError` for what has no `publish`."""
    with pytest.raises(UsageError, match="needs an aio-pika exchange, got int"):
        traced_producer(7)  # type: ignore[type-var]
