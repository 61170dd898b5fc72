"""Every consumer style, child and link, however a message's handling ends; and each through a dead letter exchange."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aio_pika import Message

from asynctrace import span, traced_producer
from asynctrace.aio_pika import switch
from tests.messages.conftest import Broker, delivered, of_kind
from tests.messages.styles import BY_HAND, INSTALLED

if TYPE_CHECKING:
    from asynctrace.testing import RecordedSpan, Recorder
    from tests.messages.styles import Style

STYLES = [pytest.param(style, id=style.__name__) for style in (*INSTALLED, *BY_HAND)]


async def ok(message: Any) -> None:
    async with message.process():
        with span("work"):
            await asyncio.sleep(0)


async def raising(message: Any) -> None:
    async with message.process():
        with span("work"):
            raise ValueError("no tea")


async def cancelled(message: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    async with message.process():
        with span("work"):
            task.cancel()
            try:
                await asyncio.sleep(0)
            finally:
                getattr(task, "uncancel", int)()


async def requeueing(message: Any) -> None:
    async with message.process(ignore_processed=True):
        with span("work"):
            await message.nack(requeue=not message.redelivered)


HANDLERS: dict[str, tuple[Any, list[tuple[str, int, str, str | None]]]] = {
    "ok": (ok, [("ok", 0, "ack", None)]),
    "raise": (raising, [("error", 1, "reject", "false")]),
    "cancel": (cancelled, [("cancelled", 0, "reject", "false")]),
    "requeue": (requeueing, [("ok", 0, "nack", "true"), ("ok", 0, "nack", "false")]),
}


@pytest.fixture(params=["child", "link"])
def relation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As the environment would set it."""
    monkeypatch.setattr(switch.settings, "relation", request.param)
    return str(request.param)


def assert_belongs(deliver: RecordedSpan, publish: RecordedSpan, relation: str) -> None:
    """Child of the publish span, or a trace of its own with a link to it."""
    if relation == "child":
        assert (deliver.trace_id, deliver.parent_id) == (publish.trace_id, publish.span_id)
        assert not deliver.links
    else:
        assert deliver.trace_id != publish.trace_id
        assert deliver.parent_id is None
        assert [(one.trace_id, one.span_id) for one in deliver.links] == [(publish.trace_id, publish.span_id)]


@pytest.mark.parametrize("how", HANDLERS)
@pytest.mark.parametrize("style", STYLES)
async def test_every_style(
    style: Style, relation: str, how: str, installed: Any, broker: Broker, traces: Recorder, unhandled: Any
) -> None:
    """A span an attempt, below or linked to its publish span, the work below it; outcome and settling as they were."""
    handle, expected = HANDLERS[how]
    if style in INSTALLED:
        installed("aio_pika")
        await broker.publish(b"tea")
    else:
        await traced_producer(broker.channel.default_exchange).publish(Message(b"tea"), broker.queue.name)
    await style(broker.queue, handle, len(expected), relation)
    delivers = await delivered(traces, len(expected))
    [publish] = of_kind(traces, "producer")
    for deliver in delivers:
        assert_belongs(deliver, publish, relation)
        assert deliver.resource.startswith("basic.deliver ")
    found = [
        (one.outcome, one.error, one.tags["messaging.settle"], one.tags.get("messaging.requeue"))
        for one in delivers
    ]
    assert found == expected
    assert [one.tags["messaging.attempt"] for one in delivers] == list(range(1, len(expected) + 1))
    assert [one.parent_id for one in traces.spans if one.name == "work"] == [one.span_id for one in delivers]
    assert all(one.tags["messaging.settle_ms"] >= 0 for one in delivers)
    traces.assert_finished()
