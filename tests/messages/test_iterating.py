"""`async for message in queue`: a span a turn, active in the loop's body, over when the body is."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import sys
import weakref
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aio_pika.queue import QueueIterator

from asynctrace import UsageError, current_span, span
from asynctrace._core.handover import handover
from asynctrace._core.provider import top_entry
from asynctrace.aio_pika import traced_iterator
from asynctrace.aio_pika.handling import current
from asynctrace.aio_pika.turns import Turn
from tests.messages.conftest import AIO_PIKA, Broker, delivered, of_kind, short

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asynctrace.testing import Recorder
    from tests.sink import Sink


async def published(broker: Broker, *bodies: bytes) -> None:
    """Each in a request of its own."""
    for body in bodies:
        with span(body.decode()):
            await broker.publish(body)


async def test_each_turn_belongs_to_its_message(installed: Any, broker: Broker, traces: Recorder) -> None:
    """What the body does, and the tasks it starts, is below the message's span, to the next turn; then to none."""
    installed("aio_pika")
    await published(broker, b"one", b"two")
    tasks = []

    async def background(name: str) -> None:
        await asyncio.sleep(0)
        with span(f"background {name}"):
            pass

    async with broker.queue.iterator() as messages:
        async for message in messages:
            name = message.body.decode()
            with span(f"work {name}"):
                await message.ack()
            tasks.append(asyncio.create_task(background(name)))
            if name == "two":
                break
        with span("afterwards"):
            await asyncio.gather(*tasks)
    traces.assert_tree(
        """
        one
          publish
            deliver
              work one
              background one
        two
          publish
            deliver
              work two
              background two
        afterwards
        """,
        label=short,
    )


async def test_what_was_active_is_so_again(installed: Any, broker: Broker, traces: Recorder) -> None:
    """A worker's own span is active before, between the turns' ends, and after; messages belong to their publishers."""
    installed("aio_pika")
    await published(broker, b"one")
    with span("worker") as worker:
        async with broker.queue.iterator() as messages:
            async for message in messages:
                await message.ack()
                with span("work"):
                    pass
                break
            assert current_span() is worker
    traces.assert_tree("one\n  publish\n    deliver\n      work\nworker", label=short)


async def test_a_worker_is_nobodys(installed: Any, broker: Broker, traces: Recorder) -> None:
    """A loop in a task that a request has started: from its first message on, it does not belong to the request."""
    installed("aio_pika")
    await published(broker, b"one")

    async def work() -> None:
        with span("before"):
            pass
        async for message in broker.queue:
            await message.ack()
            break
        with span("afterwards"):
            pass

    with span("request"):
        await asyncio.create_task(work())
    traces.assert_tree("one\n  publish\n    deliver\nrequest\n  before\nafterwards", label=short)


TASKS_TELL = sys.version_info >= (3, 11) or importlib.util.find_spec("backports.asyncio") is not None
"""Whether a task knows that it is being cancelled; on Python 3.10 it does under pytest-asyncio."""

LEFT = ["break", "return", "raise", "cancel"]


async def leave(messages: Any, how: str) -> None:
    """Leaves a loop in its first turn."""
    async for message in messages:
        await message.ack()
        if how == "break":
            break
        if how == "return":
            return
        if how == "raise":
            raise ValueError("no tea")
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(1)


OUTCOMES = {"break": ("ok", None), "return": ("ok", None), "raise": ("error", "builtins.ValueError")}


@pytest.mark.parametrize("how", LEFT)
async def test_a_block_is_left(how: str, installed: Any, broker: Broker, traces: Recorder) -> None:
    """Leaving `async with` and the loop in it ends the turn, with the exception that it is left with."""
    installed("aio_pika")
    await published(broker, b"one")

    async def work() -> None:
        async with broker.queue.iterator() as messages:
            await leave(messages, how)

    await left_by(work, how)
    [deliver] = await delivered(traces, 1)
    assert (deliver.outcome, deliver.tags.get("error.type")) == OUTCOMES.get(how, ("cancelled", None))
    assert current_span() is None


async def left_by(work: Any, how: str) -> None:
    try:
        await work()
    except ValueError:
        assert how == "raise"
    except asyncio.CancelledError:
        assert how == "cancel"
        getattr(asyncio.current_task(), "uncancel", int)()


@pytest.mark.parametrize("how", LEFT)
async def test_a_bare_loop_is_left(how: str, installed: Any, broker: Broker, traces: Recorder) -> None:
    """Without `async with` nobody shows the exception: still over at once, and an error is told from a cancellation."""
    installed("aio_pika")
    await published(broker, b"one")
    await left_by(lambda: leave(broker.queue, how), how)
    [deliver] = await delivered(traces, 1)
    assert deliver.outcome == (OUTCOMES.get(how, ("cancelled",))[0] if TASKS_TELL else "ok")
    assert current_span() is None


async def test_a_loop_that_is_begun_again(installed: Any, broker: Broker, traces: Recorder) -> None:
    """An exception that leaves the loop and is caught inside the block is that turn's; the next one is unharmed."""
    installed("aio_pika")
    await published(broker, b"one", b"two")
    async with broker.queue.iterator() as messages:
        for how in ("raise", "break"):
            await left_by(lambda how=how: leave(messages, how), how)
    delivers = await delivered(traces, 2)
    assert [one.outcome for one in delivers] == ["error" if TASKS_TELL else "ok", "ok"]


@pytest.mark.skipif(
    not hasattr(QueueIterator, "_on_close"), reason="an aio-pika that compares its own methods"
)
async def test_closed_within_a_turn(installed: Any, broker: Broker, traces: Recorder) -> None:
    """`close()` ends the turn."""
    installed("aio_pika")
    await published(broker, b"one")
    iterator = broker.queue.iterator()
    async for message in iterator:
        await message.ack()
        await iterator.close()
        with span("afterwards"):
            break
    traces.assert_tree("one\n  publish\n    deliver\nafterwards", label=short)


@pytest.mark.parametrize("by", ["anext", "wait_for", "task"])
async def test_asked_for_by_hand(by: str, installed: Any, broker: Broker, traces: Recorder) -> None:
    """`__anext__` called directly, under `wait_for` or in a task: work is the message's where it was asked for."""
    installed("aio_pika")
    await published(broker, b"one", b"two")
    async with broker.queue.iterator() as messages:
        for name in ("one", "two"):
            asked = messages.__anext__()
            if by == "wait_for":
                asked = asyncio.wait_for(asked, 5)
            elif by == "task":
                asked = asyncio.ensure_future(asked)
            message = await asked
            assert message.body.decode() == name
            with span(f"work {name}"):
                await message.ack()
    traces.assert_tree(
        "\n".join(f"{name}\n  publish\n    deliver\n      work {name}" for name in ("one", "two")),
        label=short,
    )


async def test_asked_for_by_hand_and_gone(installed: Any, broker: Broker, sink: Sink) -> None:
    """A task that asked once, and is gone: so is the turn, and its span is sent."""
    installed("aio_pika")
    await published(broker, b"one")

    async def work(messages: Any) -> None:
        await (await messages.__anext__()).ack()

    async with broker.queue.iterator() as messages:
        await asyncio.create_task(work(messages))
        await asyncio.sleep(0)  # the loop holds a task whose end it has just told
        gc.collect()
    assert len(await asyncio.to_thread(sink.wait_for, 3)) == 3


async def test_from_task_to_task(installed: Any, broker: Broker, sink: Sink) -> None:
    """A worker that handles each message in a task born in the one before: none of them is kept for the next."""
    installed("aio_pika")
    bodies = [b"%d" % number for number in range(20)]
    await published(broker, *bodies)
    kept = asyncio.get_running_loop().create_future()

    async def work(messages: Any, left: int) -> None:
        await (await messages.__anext__()).ack()
        if left:
            tasks[:] = [asyncio.create_task(work(messages, left - 1))]
            return
        await asyncio.sleep(0)
        gc.collect()  # ends the turns of tasks that are gone
        handover.finish()  # their traces have left
        gc.collect()
        kept.set_result(sum(type(one) is Turn for one in gc.get_objects()))

    async with broker.queue.iterator() as messages:
        tasks = [asyncio.create_task(work(messages, len(bodies) - 1))]
        assert await kept <= 2  # its own, and the one that it was born in
        tasks.clear()
        await asyncio.sleep(0)
        gc.collect()
    assert len(await asyncio.to_thread(sink.wait_for, 3 * len(bodies))) == 3 * len(bodies)


async def test_in_a_generator(installed: Any, broker: Broker, traces: Recorder) -> None:
    """A generator that hands messages on: its consumer's work is the message's."""
    installed("aio_pika")
    await published(broker, b"one", b"two")

    async def messages() -> AsyncGenerator[Any]:
        async with broker.queue.iterator() as iterator:
            async for message in iterator:
                yield message

    generator = messages()
    async for message in generator:
        await message.ack()
        with span(f"work {message.body.decode()}"):
            pass
        if message.body == b"two":
            break
    await generator.aclose()
    traces.assert_tree(
        """
        one
          publish
            deliver
              work one
        two
          publish
            deliver (closed)
              work two
        """,
        label=short,
    )


async def test_nothing_comes(installed: Any, broker: Broker, traces: Recorder) -> None:
    """A timeout while it waits raises as ever; no span, and nothing is active."""
    installed("aio_pika")
    with pytest.raises(asyncio.TimeoutError):
        async for _ in broker.queue.iterator(timeout=0.05):
            pass
    assert (current_span(), top_entry.get(), current.get()) == (None, None, None)
    assert traces.spans == []


async def test_cancelled_while_it_waits(installed: Any, broker: Broker, traces: Recorder) -> None:
    """No message, no span; the cancellation goes on."""
    installed("aio_pika")
    consuming = asyncio.Event()

    async def work() -> None:
        async with broker.queue.iterator() as messages:
            consuming.set()
            async for _ in messages:
                pass

    task = asyncio.create_task(work())
    await consuming.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert traces.spans == []
    traces.assert_finished()


async def test_what_was_prefetched_goes_back(installed: Any, broker: Broker, traces: Recorder) -> None:
    """Messages in the buffer of an iterator that is closed are requeued, by aio-pika; no span is made of them."""
    installed("aio_pika")
    await published(broker, b"one", b"two", b"three")
    async with broker.queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            while not messages._queue.qsize():
                await asyncio.sleep(0)
            break
    assert len(await delivered(traces, 1)) == 1
    rest = [await broker.queue.get(no_ack=True) for _ in range(2)]
    assert [one.body for one in rest] == [b"two", b"three"]


async def test_time_in_the_buffer(installed: Any, broker: Broker, traces: Recorder) -> None:
    """`messaging.buffer_ms` is how long a message waited for the turns before it."""
    installed("aio_pika")
    await broker.publish(b"one", b"two")
    async with broker.queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            if message.body == b"two":
                break
            while not messages._queue.qsize():
                await asyncio.sleep(0)
            await asyncio.sleep(0.03)
    one, two = await delivered(traces, 2)
    assert 0 <= one.tags["messaging.buffer_ms"] < two.tags["messaging.buffer_ms"]
    assert two.tags["messaging.buffer_ms"] >= 30


async def test_by_hand(broker: Broker, traces: Recorder) -> None:
    """`traced_iterator(queue)`, nothing installed: the same spans, and what is iterated is aio-pika's iterator."""
    await broker.publish_bare()
    async with traced_iterator(broker.queue) as messages:
        assert isinstance(messages, aio_pika.abc.AbstractQueueIterator)
        async for message in messages:
            assert isinstance(message, aio_pika.IncomingMessage)
            async with message.process():
                with span("work"):
                    break
    traces.assert_tree("deliver\n  work", label=short)
    [deliver] = of_kind(traces, "consumer")
    assert deliver.resource == f"basic.deliver {broker.queue.name}"
    assert deliver.tags["messaging.settle"] == "ack"


async def test_by_hand_and_installed_is_one_span(installed: Any, broker: Broker, traces: Recorder) -> None:
    """`traced_iterator` under `install()`: one span a message, not two, and the relation that was asked for."""
    installed("aio_pika")
    await published(broker, b"one")
    async for message in traced_iterator(broker.queue, relation="link"):
        await message.ack()
        break
    [deliver] = await delivered(traces, 1)
    assert deliver.parent_id is None
    assert len(deliver.links) == 1


@pytest.mark.skipif(AIO_PIKA < 10, reason="before, aio-pika itself keeps its iterators")
async def test_nothing_is_kept(installed: Any, broker: Broker, traces: Recorder) -> None:
    """An iterator that was closed is gone when its user lets go of it, and so is its last message's span."""
    installed("aio_pika")
    await published(broker, b"one")
    async with broker.queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            break
    reference = weakref.ref(messages)
    del messages, message
    await asyncio.sleep(0)  # aio-pika's own callback, at its closing
    gc.collect()
    assert reference() is None
    traces.assert_finished()


def test_what_can_not_be_iterated() -> None:
    """`UsageError` for what is no queue, and for a relation there is not."""
    with pytest.raises(UsageError, match="needs a queue of aio-pika's, got int"):
        traced_iterator(7)
    with pytest.raises(UsageError, match="relation= cannot be 'cousin'"):
        traced_iterator(7, relation="cousin")  # type: ignore[arg-type]
