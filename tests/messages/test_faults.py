"""Channels that fail, consumers that the broker cancels: aio-pika does what it does, and each message has its span."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelInvalidStateError

from asynctrace import span
from tests.messages.conftest import CUT_OFF, Broker, delivered, of_kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctrace.testing import Recorder
    from demos.services import Service


async def break_channel(channel: Any) -> None:
    """The broker closes a channel on which something is acknowledged that was never delivered."""
    underlay = await channel.get_underlay_channel()
    await underlay.basic_ack(999_999)


@pytest.fixture
async def reconnecting(rabbitmq: Service) -> AsyncIterator[Any]:
    """A robust connection that is quick about it."""
    async with await aio_pika.connect_robust(rabbitmq.url, reconnect_interval=0.05) as connection:
        yield connection


async def test_a_channel_that_fails(
    installed: Any, broker: Broker, reconnecting: Any, traces: Recorder
) -> None:
    """Messages in flight end as disconnected; the restored consumer has one span each, of nobody's request."""
    installed("aio_pika")
    in_flight = asyncio.Event()
    channel = await reconnecting.channel()
    queue = await channel.declare_queue(f"{broker.queue.name}-2", exclusive=True)

    async def handle(message: Any) -> None:
        if not message.redelivered:
            in_flight.set()
            await asyncio.get_running_loop().create_future()
        await broker.handle(message)

    with span("startup"):
        await queue.consume(handle)
    with span("request"):
        await broker.channel.default_exchange.publish(aio_pika.Message(b"tea"), queue.name)
    await in_flight.wait()
    await break_channel(channel)
    assert (await broker.handled.get()).body == b"tea"
    first, second = await delivered(traces, 2)
    [publish] = of_kind(traces, "producer")
    assert [one.parent_id for one in (first, second)] == [publish.span_id] * 2
    assert [(one.outcome, one.error) for one in (first, second)] == [(CUT_OFF, 0), ("ok", 0)]
    assert [one.tags["messaging.attempt"] for one in (first, second)] == [1, 2]
    traces.assert_finished()


async def test_settling_on_a_channel_that_is_gone(
    installed: Any, broker: Broker, traces: Recorder, rabbitmq: Service
) -> None:
    """`process()` raises aio-pika's own exception, and its span has it; nothing was settled."""
    installed("aio_pika")
    await broker.publish(b"tea")
    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        exclusive = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"tea"), exclusive.name)
        message = await exclusive.get()
        with pytest.raises(ChannelInvalidStateError):
            async with message.process():
                await channel.close()
    [deliver] = await delivered(traces, 1)
    assert (deliver.outcome, deliver.error, "messaging.settle" in deliver.tags) == ("error", 1, False)


async def cancelled_by_the_server(broker: Broker, url: str, *, robust: bool) -> list[Any]:
    """What happens to an iterator, as its user sees it, when somebody deletes its queue."""
    events: list[Any] = []
    connect = aio_pika.connect_robust if robust else aio_pika.connect
    async with await connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(auto_delete=True)
        await broker.channel.default_exchange.publish(aio_pika.Message(b"tea"), queue.name)
        with contextlib.suppress(asyncio.TimeoutError):
            async with queue.iterator(timeout=0.3) as messages:
                async for message in messages:
                    await message.ack()
                    events.append(message.body)
                    await broker.channel.queue_delete(queue.name)
        events.append(messages.consumer_tag is None)
    return events


@pytest.mark.parametrize("robust", [False, True], ids=["plain", "robust"])
async def test_a_consumer_that_the_server_cancels(
    robust: bool, installed: Any, broker: Broker, traces: Recorder, rabbitmq: Service
) -> None:
    """An iterator whose queue is deleted behaves as it does without us; the message in hand has its span, and ends."""
    bare = await cancelled_by_the_server(broker, rabbitmq.url, robust=robust)
    installed("aio_pika")
    assert await cancelled_by_the_server(broker, rabbitmq.url, robust=robust) == bare
    [deliver] = await delivered(traces, 1)
    assert (deliver.outcome, deliver.tags["messaging.settle"]) == ("ok", "ack")
    traces.assert_finished()


async def test_nothing_is_kept_alive(
    installed: Any, broker: Broker, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a message has been handled, nothing of ours holds it, its task, or the exception it has raised."""
    installed("aio_pika")
    tasks: list[weakref.ref[Any]] = []
    failures: list[weakref.ref[Any]] = []

    class Failure(Exception):
        """Other than Python's own, it can be referred to weakly."""

    async def handle(message: Any) -> None:
        tasks.append(weakref.ref(asyncio.current_task()))
        async with message.process():
            failure = Failure()
            failures.append(weakref.ref(failure))
            raise failure

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    monkeypatch.setattr(logging.getLogger("aiormq.channel"), "disabled", True)  # pytest keeps what is logged
    tag = await broker.queue.consume(handle)
    await broker.publish(b"one", b"two")
    await delivered(traces, 2)
    await broker.queue.cancel(tag)
    await broker.publish(b"three")
    async with broker.queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            break
    await broker.publish(b"four")
    message = await broker.queue.get()
    await message.ack()
    del message, messages
    traces.clear()
    await asyncio.sleep(0)
    gc.collect()
    assert [one() for one in (*tasks, *failures)] == [None] * 4
    assert [one for one in gc.get_objects() if type(one) is aio_pika.IncomingMessage] == []
