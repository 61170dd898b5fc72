"""ack, nack, reject, process(): noted on the message's span, with when; and aio-pika's own behaviour, unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aio_pika.exceptions import MessageProcessError

from asynctrace import UsageError, span, traced_consumer
from asynctrace.aio_pika import traced_message
from tests.messages.conftest import Broker, delivered, of_kind, short

if TYPE_CHECKING:
    from asynctrace.testing import Recorder

WAYS: dict[str, tuple[Any, str | None, str | None]] = {
    "ack": (lambda message: message.ack(), "ack", None),
    "ack, multiple": (lambda message: message.ack(True), "ack", None),
    "nack": (lambda message: message.nack(), "nack", "true"),
    "nack, no requeue": (lambda message: message.nack(requeue=False), "nack", "false"),
    "nack, by position": (lambda message: message.nack(False, False), "nack", "false"),
    "reject": (lambda message: message.reject(), "reject", "false"),
    "reject, requeue": (lambda message: message.reject(True), "reject", "true"),
    "not at all": (lambda _: asyncio.sleep(0), None, None),
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("by_hand", [False, True], ids=["installed", "by hand"])
async def test_every_way(how: str, by_hand: bool, installed: Any, broker: Broker, traces: Recorder) -> None:
    """Its name, whether it goes back to the queue, and when, ms from the beginning of the handling."""
    settle, settled, requeued = WAYS[how]
    handled = asyncio.Event()

    async def handle(message: Any) -> None:
        if not handled.is_set():
            await settle(message)
            handled.set()

    if not by_hand:
        installed("aio_pika")
    tag = await broker.queue.consume(traced_consumer(handle) if by_hand else handle)
    await broker.publish_bare()
    await handled.wait()
    await broker.queue.cancel(tag)
    deliver, *_ = await delivered(traces, 1)
    assert deliver.tags.get("messaging.settle") == settled
    assert deliver.tags.get("messaging.requeue") == requeued
    assert ("messaging.settle_ms" in deliver.tags) is (settled is not None)


async def test_settled_by_a_task(installed: Any, broker: Broker, consuming: Any, traces: Recorder) -> None:
    """A task that the handler waits for settles the message: noted on the message's span."""
    installed("aio_pika")

    async def handle(message: Any) -> None:
        await asyncio.create_task(message.ack())

    await consuming(handle)
    await broker.publish(b"tea")
    [deliver] = await delivered(traces, 1)
    assert deliver.tags["messaging.settle"] == "ack"


async def test_another_messages_settling(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """A handler that settles a message it has kept from before: not noted on the span of the one in hand."""
    installed("aio_pika")
    kept: list[Any] = []

    async def handle(message: Any) -> None:
        kept.append(message)
        if len(kept) == 2:
            await kept[0].ack()

    await consuming(handle)
    await broker.publish(b"one", b"two")
    assert ["messaging.settle" in one.tags for one in await delivered(traces, 2)] == [False, False]
    await kept[1].ack()


async def test_reject_on_redelivered(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder, unhandled: Any
) -> None:
    """`process(requeue=True, reject_on_redelivered=True)`: what it does the first time, and the second."""
    installed("aio_pika")

    async def handle(message: Any) -> None:
        async with message.process(requeue=True, reject_on_redelivered=True):
            raise ValueError("no tea")

    await consuming(handle)
    await broker.publish(b"tea")
    first, second = await delivered(traces, 2)
    assert [one.tags["messaging.requeue"] for one in (first, second)] == ["true", "false"]
    assert [one.tags.get("amqp.redelivered") for one in (first, second)] == [None, "true"]
    assert [one.tags["messaging.attempt"] for one in (first, second)] == [1, 2]
    assert first.parent_id == second.parent_id


async def test_ignore_processed(installed: Any, broker: Broker, consuming: Any, traces: Recorder) -> None:
    """`process(ignore_processed=True)` after an ack by hand: the ack is what counts."""
    installed("aio_pika")

    async def handle(message: Any) -> None:
        async with message.process(ignore_processed=True):
            await message.reject()

    await consuming(handle)
    await broker.publish(b"tea")
    [deliver] = await delivered(traces, 1)
    assert (deliver.tags["messaging.settle"], deliver.outcome) == ("reject", "ok")


async def test_settled_twice(installed: Any, broker: Broker, traces: Recorder) -> None:
    """aio-pika's exception leaves the block, and is its span's error; the first settling stays."""
    installed("aio_pika")
    await broker.publish(b"tea")
    message = await broker.queue.get()
    with pytest.raises(MessageProcessError):
        async with message.process():
            await message.ack()
    [deliver] = await delivered(traces, 1)
    assert (deliver.outcome, deliver.tags["messaging.settle"]) == ("error", "ack")


async def test_what_a_handler_catches(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """An exception that leaves `process()` and is caught in the handler is not the handler's; the reject is noted."""
    installed("aio_pika")

    async def handle(message: Any) -> None:
        with contextlib.suppress(ValueError):
            async with message.process():
                raise ValueError("no tea")

    await consuming(handle)
    await broker.publish(b"tea")
    [deliver] = await delivered(traces, 1)
    assert (deliver.outcome, deliver.tags["messaging.settle"]) == ("ok", "reject")


async def test_a_block_by_hand(broker: Broker, traces: Recorder) -> None:
    """`with` and `async with traced_message(message)`, nothing installed: a span from start to end."""
    for asynchronous in (False, True):
        await broker.publish_bare(headers={"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})
        message = await broker.queue.get()
        if asynchronous:
            async with traced_message(message) as traced:
                with span("work"):
                    await traced.ack()
        else:
            with traced_message(message) as traced, span("work"):
                await traced.ack()
        with span("afterwards"):
            pass
    delivers = of_kind(traces, "consumer")
    assert {(one.trace_id, one.parent_id, one.tags["messaging.settle"]) for one in delivers} == {
        (7, 8, "ack")
    }
    work = [one.parent_id for one in traces.spans if one.name == "work"]
    assert work == [one.span_id for one in delivers]
    assert [one.parent_id for one in traces.spans if one.name == "afterwards"] == [None, None]


async def test_a_block_by_hand_fails(broker: Broker, traces: Recorder) -> None:
    """The exception that leaves it goes on, and is its span's error; with `relation="link"` its trace is its own."""
    await broker.publish_bare(headers={"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})
    exc = ValueError("no tea")
    with pytest.raises(ValueError, match="no tea") as caught:
        async with traced_message(await broker.queue.get(), relation="link") as message, message.process():
            raise exc
    assert caught.value is exc
    [deliver] = of_kind(traces, "consumer")
    assert (deliver.outcome, deliver.tags["messaging.settle"]) == ("error", "reject")
    assert deliver.parent_id is None
    assert [(one.trace_id, one.span_id) for one in deliver.links] == [(7, 8)]


async def test_a_block_in_a_handler(installed: Any, broker: Broker, consuming: Any, traces: Recorder) -> None:
    """A message that is in hand already has its one span."""
    installed("aio_pika")

    async def handle(message: Any) -> None:
        async with traced_message(message) as traced, traced.process():
            pass

    await consuming(handle)
    await broker.publish(b"tea")
    [deliver] = await delivered(traces, 1)
    assert deliver.tags["messaging.settle"] == "ack"
    traces.assert_tree("publish\n  deliver", label=short)


async def test_a_traced_message_is_the_message(broker: Broker) -> None:
    """By hand a message is handed on as one: its type, attributes, hash and copies are its own."""
    await broker.publish_bare(b"tea")
    message = await broker.queue.get()
    traced = traced_message(message)
    assert isinstance(traced, aio_pika.IncomingMessage)
    assert (traced.body, traced.delivery_tag, traced.info()) == (b"tea", message.delivery_tag, message.info())
    assert traced == message
    assert type(copy.copy(traced)) is aio_pika.Message
    assert traced_message(traced) is traced
    await traced.ack()
    assert message.processed


def test_what_is_no_message() -> None:
    """`UsageError`."""
    with pytest.raises(UsageError, match="needs an incoming message, got bytes"):
        traced_message(b"tea")  # type: ignore[arg-type]
