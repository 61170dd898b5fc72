"""anyio's memory object streams whose items carry their sender's trace: one rule a test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from ddtrace.trace import tracer

from asynctrace import UsageError, current_span, span
from asynctrace.anyio import traced_stream
from tests.core.test_queues import links_of, mark

if TYPE_CHECKING:
    from asynctrace.testing import Recorder

buffered_or_not = pytest.mark.parametrize("size", [0, 10])


async def send_all(send: MemoryObjectSendStream[int], *items: int) -> None:
    """Each by a sender of its own, named s and the item."""
    async with send:
        for item in items:
            with span(f"s{item}"):
                await send.send(item)


@buffered_or_not
async def test_work_after_receive_is_its_senders(size: int, traces: Recorder) -> None:
    """Until the next `receive()`; whoever started the receiver is not its parent."""
    send, receive = traced_stream(anyio.create_memory_object_stream[int](size))

    async def work() -> None:
        async with receive:
            for _ in range(2):
                item = await receive.receive()
                mark(f"r{item}")
            with pytest.raises(anyio.EndOfStream):
                await receive.receive()
            assert current_span() is None
            mark("idle")

    async with anyio.create_task_group() as group:
        with span("starter"):
            group.start_soon(work)
        group.start_soon(send_all, send, 1, 2)
    tree = sorted(traces.tree().replace("\n  ", ">").split("\n"))
    assert tree == ["idle", "s1>r1", "s2>r2", "starter"]


@buffered_or_not
async def test_wait_for_and_create_task(size: int, traces: Recorder) -> None:
    """The same when `receive()` runs in another task."""
    send, receive = traced_stream(anyio.create_memory_object_stream[int](size))
    sender = asyncio.create_task(send_all(send, 1, 2))
    async with receive:
        mark(f"r{await asyncio.wait_for(receive.receive(), 5)}")
        mark(f"r{await asyncio.create_task(receive.receive())}")
        await sender
    assert traces.tree() == "s1\n  r1\ns2\n  r2"


@buffered_or_not
async def test_async_for(size: int, traces: Recorder) -> None:
    """The body's work is the item's sender's; after the loop nothing is active."""
    send, receive = traced_stream(anyio.create_memory_object_stream[int](size))
    sender = asyncio.create_task(send_all(send, 1, 2, 3))
    async with receive:
        async for item in receive:
            if item > 1:
                mark(f"r{item}")
    assert current_span() is None
    await sender
    assert traces.tree() == "s1\ns2\n  r2\ns3\n  r3"


async def test_nowait_and_batches(traces: Recorder) -> None:
    """`send_nowait()` and `receive_nowait()` carry, too; items in a row are a batch."""
    send, receive = traced_stream(anyio.create_memory_object_stream[int](3))
    with send, receive:
        for item in (1, 2, 3):
            with span(f"s{item}"):
                send.send_nowait(item)
        with pytest.raises(anyio.WouldBlock):
            send.send_nowait(4)
        assert receive.receive_nowait() == 1
        mark("r1")
        assert (receive.receive_nowait(), await receive.receive()) == (2, 3)
        mark("batch")
        with pytest.raises(anyio.WouldBlock):
            receive.receive_nowait()
        assert current_span() is None
    assert traces.tree() == "s1\n  r1\ns2\ns3\nbatch"
    assert links_of(traces, "batch") == ["s2", "s3"]


async def test_a_span_of_its_own_stays(traces: Recorder) -> None:
    """A task with an open span keeps it."""
    send, receive = traced_stream(anyio.create_memory_object_stream[int](1))
    with send, receive:
        with span("sender"):
            await send.send(1)
        with span("own"):
            await receive.receive()
            mark("inside")
    assert traces.tree() == "sender\nown\n  inside"


async def test_clones(traces: Recorder) -> None:
    """Clones are traced, and closed one by one."""
    send, receive = traced_stream(anyio.create_memory_object_stream[int](1))
    with send.clone() as other_send, receive.clone() as other_receive:
        assert send.statistics().open_send_streams == 2
        send.close()
        receive.close()
        with span("sender"):
            await other_send.send(1)
        await other_receive.receive()
        mark("receiver")
    for closed in (send, receive):
        with pytest.raises(anyio.ClosedResourceError):
            closed.clone()
    assert traces.tree() == "sender\n  receiver"


async def test_they_are_anyios_streams() -> None:
    """isinstance and statistics are as ever; what was in the buffer before, comes as it was."""
    before: Any = anyio.create_memory_object_stream[int](5)
    before[0].send_nowait(1)
    send, receive = pair = traced_stream(before)
    assert traced_stream(pair) is pair
    with send, receive:
        assert isinstance(send, MemoryObjectSendStream)
        assert isinstance(receive, MemoryObjectReceiveStream)
        send.send_nowait(2)
        statistics = receive.statistics()
        assert statistics == send.statistics()
        assert statistics[:4] == (2, 5, 1, 1)
        assert [await receive.receive(), receive.receive_nowait()] == [1, 2]


async def test_what_is_no_pair() -> None:
    """Says so at once."""
    with pytest.raises(UsageError, match="pair"):
        traced_stream(7)  # type: ignore[arg-type]
    send, receive = anyio.create_memory_object_stream[int](1)
    send.close()
    with receive, pytest.raises(UsageError, match="open"):
        traced_stream((send, receive))


async def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tracing off the pair itself comes back."""
    monkeypatch.setattr(tracer, "enabled", False)
    pair = anyio.create_memory_object_stream[int](1)
    with pair[0], pair[1]:
        assert traced_stream(pair) is pair
