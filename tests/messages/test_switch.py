"""When messages are traced, and how: settings, patches that come off, an integration of ddtrace's own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from asynctrace import UsageError, current_span, span, traced_consumer, uninstall
from asynctrace.aio_pika.switch import Settings, chosen
from tests.messages.conftest import Broker, delivered, of_kind, short

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


@pytest.mark.parametrize(
    ("value", "relation"), [(None, "child"), ("child", "child"), (" LINK ", "link"), ("parent", "child")]
)
def test_the_relation_is_a_setting(
    value: str | None, relation: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`ASYNCTRACE_AIO_PIKA_RELATION`: child where it is not set, and with a warning where it is something else."""
    if value is not None:
        monkeypatch.setenv("ASYNCTRACE_AIO_PIKA_RELATION", value)
    with caplog.at_level(logging.WARNING, "asynctrace"):
        assert Settings().relation == relation
    assert bool(caplog.records) is (value == "parent")


def test_an_argument_wins() -> None:
    """Over the setting; what it can't be is a `UsageError`."""
    assert (chosen("link"), chosen("child"), chosen(None)) == ("link", "child", "child")
    with pytest.raises(UsageError, match="cannot be 'parent'"):
        chosen("parent")


async def test_off_while_a_consumer_is_registered(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder
) -> None:
    """After `uninstall()` a consumer stays traced until it is cancelled; it is given aio-pika's own messages."""
    installed("aio_pika")
    kinds = []

    async def handle(message: Any) -> None:
        kinds.append(type(message))
        await broker.handle(message)

    await consuming(handle)
    uninstall()
    await broker.publish(b"tea")
    await delivered(traces, 1)
    assert kinds == [aio_pika.IncomingMessage]
    traces.assert_tree("deliver\n  work", label=short)


async def test_off_in_the_middle_of_a_loop(installed: Any, broker: Broker, traces: Recorder) -> None:
    """After `uninstall()` the turn goes on to its end, and the next ones are nobody's."""
    installed("aio_pika")
    await broker.publish(b"one", b"two")
    async with broker.queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            with span(f"work {message.body.decode()}"):
                pass
            if message.body == b"two":
                break
            uninstall()
    traces.assert_tree("publish\n  deliver\n    work one\npublish\nwork two", label=short)
    assert current_span() is None


async def test_one_consumer_in_another(broker: Broker, traces: Recorder) -> None:
    """A traced handler that hands its message on to a traced handler: one span."""
    await broker.publish_bare()
    inner = traced_consumer(broker.handle)

    @traced_consumer
    async def outer(message: Any) -> None:
        await inner(message)

    await outer(await broker.queue.get())
    traces.assert_tree("deliver\n  work", label=short)


async def test_beside_an_integration_of_ddtraces(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once ddtrace ships one and has patched aio-pika: no span of ours in any style, by hand neither, and no header."""
    installed("aio_pika")
    monkeypatch.setattr(aio_pika, "_datadog_patch", True, raising=False)
    other = await broker.declare()
    for _ in range(2):
        await broker.channel.default_exchange.publish(aio_pika.Message(b"tea"), other.name)
    message = await other.get()
    with span("work"):
        await broker.handle(message)
    async with other.iterator() as messages:
        async for one in messages:
            await broker.handle(one)
            break
    await consuming(traced_consumer(broker.handle))
    await broker.publish(b"tea")
    received = [await broker.handled.get() for _ in range(3)]
    assert [one.headers for one in received] == [{}, {}, {}]
    assert {one.name for one in traces.spans} == {"work"}
    assert [one.parent_id for one in of_kind(traces, "consumer")] == []
