"""`queue.get()`: what its task does next belongs to the message, until that is settled or the next one is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aio_pika import Message
from aio_pika.exceptions import QueueEmpty

from asynctrace import current_span, span
from asynctrace.aio_pika import switch
from tests.messages.conftest import Broker, delivered, of_kind, short

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


async def published(broker: Broker, *bodies: bytes) -> None:
    """Each in a request of its own."""
    for body in bodies:
        with span(body.decode()):
            await broker.publish(body)


async def test_work_belongs_to_the_message(installed: Any, broker: Broker, traces: Recorder) -> None:
    """From its return until the message is settled; what is done afterwards starts a trace."""
    installed("aio_pika")
    await published(broker, b"one", b"two")
    for name in ("one", "two"):
        message = await broker.queue.get()
        for number in (1, 2):
            with span(f"work {name} {number}"):
                pass
        await message.ack()
        with span(f"after {name}"):
            pass
    traces.assert_tree(
        """
        one
          publish
            work one 1
            work one 2
        two
          publish
            work two 1
            work two 2
        after one
        after two
        """,
        label=short,
    )


async def test_until_the_next_one(installed: Any, broker: Broker, traces: Recorder) -> None:
    """Messages that are never settled (`no_ack`): the next `get()` ends the work on the last one."""
    installed("aio_pika")
    await published(broker, b"one", b"two")
    for name in ("one", "two"):
        await broker.queue.get(no_ack=True)
        with span(f"work {name}"):
            pass
    traces.assert_tree(
        "\n".join(f"{name}\n  publish\n    work {name}" for name in ("one", "two")), label=short
    )


async def test_the_exact_form(installed: Any, broker: Broker, traces: Recorder) -> None:
    """`async with message.process()`: a span from its start to its end, and nothing after it is the message's."""
    installed("aio_pika")
    await published(broker, b"one", b"two")
    for name in ("one", "two"):
        message = await broker.queue.get()
        async with message.process():
            with span(f"work {name}"):
                pass
        with span(f"after {name}"):
            pass
    traces.assert_tree(
        """
        one
          publish
            deliver
              work one
        two
          publish
            deliver
              work two
        after one
        after two
        """,
        label=short,
    )
    assert {one.resource for one in of_kind(traces, "consumer")} == {f"basic.deliver {broker.queue.name}"}


async def test_a_batch(installed: Any, broker: Broker, traces: Recorder) -> None:
    """Several messages taken in a row: the next span starts a trace, with a link to each; also up to an empty `get`."""
    installed("aio_pika")
    await published(broker, b"one", b"two", b"three")
    batch = []
    while (message := await broker.queue.get(fail=False)) is not None:
        batch.append(message)
    with span("store"):
        pass
    await batch[-1].ack(multiple=True)
    with span("afterwards"):
        pass
    store, afterwards = traces.one("store"), traces.one("afterwards")
    publishes = {(one.trace_id, one.span_id) for one in of_kind(traces, "producer")}
    assert {(one.trace_id, one.span_id) for one in store.links} == publishes
    assert store.parent_id is None
    assert (afterwards.parent_id, afterwards.links) == (None, store.links[:0])


async def test_a_batch_one_by_one(installed: Any, broker: Broker, traces: Recorder) -> None:
    """Messages taken in a row and processed one by one: each block belongs to its own message, named by the queue."""
    installed("aio_pika")
    exchange = await broker.channel.declare_exchange(f"{broker.queue.name}-x", auto_delete=True)
    await broker.queue.bind(exchange.name, "key")
    names = ("one", "two", "three")
    for name in names:
        with span(name):
            await exchange.publish(Message(name.encode()), "key")
    batch = [await broker.queue.get() for _ in names]
    for message in batch:
        async with message.process():
            with span(f"work {message.body.decode()}"):
                pass
    traces.assert_tree(
        "\n".join(f"{name}\n  publish\n    deliver\n      work {name}" for name in names), label=short
    )
    assert {one.resource for one in of_kind(traces, "consumer")} == {f"basic.deliver {broker.queue.name}"}


async def test_a_span_of_its_own(installed: Any, broker: Broker, traces: Recorder) -> None:
    """A task with an open span of its own stays below that: the message is part of its work."""
    installed("aio_pika")
    await published(broker, b"one")
    with span("request"):
        message = await broker.queue.get()
        with span("work"):
            pass
        await message.ack()
    traces.assert_tree("one\n  publish\nrequest\n  work", label=short)


@pytest.mark.parametrize("by", ["wait_for", "task"])
async def test_in_another_task(by: str, installed: Any, broker: Broker, traces: Recorder) -> None:
    """`get()` under `wait_for`, or in a task: work is the message's where it was asked for, and in tasks born there."""
    installed("aio_pika")
    await published(broker, b"one")

    async def background() -> None:
        with span("background"):
            pass

    asked = broker.queue.get()
    message = await (asyncio.wait_for(asked, 5) if by == "wait_for" else asyncio.ensure_future(asked))
    with span("work"):
        pass
    task = asyncio.create_task(background())
    await message.ack()
    await task
    traces.assert_tree("one\n  publish\n    work\n    background", label=short)


async def test_handed_to_a_worker(installed: Any, broker: Broker, traces: Recorder) -> None:
    """A message processed by a task that was there before it belongs to its publisher, there as well."""
    installed("aio_pika")
    await published(broker, b"one")
    hand: asyncio.Queue[Any] = asyncio.Queue()

    async def worker() -> None:
        message = await hand.get()
        async with message.process():
            with span("work"):
                pass

    task = asyncio.create_task(worker())
    hand.put_nowait(await broker.queue.get())
    await task
    traces.assert_tree("one\n  publish\n    deliver\n      work", label=short)


@pytest.mark.parametrize("fail", [False, True])
async def test_nothing_there(fail: bool, installed: Any, broker: Broker, traces: Recorder) -> None:
    """An empty queue gives None, or raises as ever; what was active stays so, also what a task has inherited."""
    installed("aio_pika")

    async def poll() -> None:
        if fail:
            with pytest.raises(QueueEmpty):
                await broker.queue.get()
        else:
            assert await broker.queue.get(fail=False) is None
        with span("work"):
            pass

    with span("request"):
        await asyncio.create_task(poll())
    await poll()
    assert current_span() is None
    traces.assert_tree("request\n  work\nwork", label=short)


async def test_linked(
    installed: Any, broker: Broker, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the relation `link`, work is a trace of its own with a link, in the task and in those it starts."""
    monkeypatch.setattr(switch.settings, "relation", "link")
    installed("aio_pika")
    await published(broker, b"one")

    async def background() -> None:
        with span("background"):
            pass

    message = await broker.queue.get()
    with span("work"):
        pass
    await asyncio.create_task(background())
    await message.ack()
    [publish] = of_kind(traces, "producer")
    for name in ("work", "background"):
        one = traces.one(name)
        assert one.parent_id is None
        assert [link.span_id for link in one.links] == [publish.span_id]


async def test_a_block_within_a_handler(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """A handler that gets and processes another message: that one's span is its own, and the handler's goes on."""
    installed("aio_pika")
    other = await broker.declare()
    await broker.channel.default_exchange.publish(Message(b"reply"), other.name)
    traces.clear()

    async def handle(message: Any) -> None:
        async with message.process():
            reply = await other.get()
            async with reply.process():
                with span("inner"):
                    pass
            with span("outer"):
                pass

    await consuming(handle)
    await published(broker, b"one")
    reply, deliver = sorted(
        await delivered(traces, 2), key=lambda one: one.resource != f"basic.deliver {other.name}"
    )
    assert traces.one("inner").parent_id == reply.span_id
    assert traces.one("outer").parent_id == deliver.span_id
    assert [one.tags["messaging.settle"] for one in (reply, deliver)] == ["ack", "ack"]
