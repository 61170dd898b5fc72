"""Two connections to a real RabbitMQ: what is published on one is consumed on the other."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from asynctrace import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asynctrace.testing import RecordedSpan, Recorder
    from demos.services import Service


AIO_PIKA, AIORMQ = (int(version(name).partition(".")[0]) for name in ("aio-pika", "aiormq"))

CUT_OFF = "disconnected" if AIORMQ >= 7 else "cancelled"
"""The outcome of a handler that aio-pika cancels because its channel is gone; before, it does not say so."""


@dataclass
class Broker:
    """A publishing channel, and a queue on another connection; messages handled are counted."""

    channel: Any
    consuming: Any
    queue: Any
    handled: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def publish(self, *bodies: bytes, **properties: Any) -> None:
        for body in bodies:
            message = aio_pika.Message(body, **properties)
            await self.channel.default_exchange.publish(message, routing_key=self.queue.name)

    async def publish_bare(self, body: bytes = b"bare", headers: Any = None) -> None:
        """As somebody does who has never heard of tracing, or of ours."""
        properties = aio_pika.Message(body, headers=headers).properties
        channel = await self.channel.get_underlay_channel()
        await channel.basic_publish(body, routing_key=self.queue.name, properties=properties)

    async def handle(self, message: Any) -> None:
        async with message.process():
            with span("work", tags={"body": message.body.decode()}):
                pass
        self.handled.put_nowait(message)

    async def declare(self, **arguments: Any) -> Any:
        """One more queue of our own, gone with the connection."""
        name = f"asynctrace-{uuid.uuid4().hex}"
        return await self.consuming.declare_queue(name, **{"exclusive": True, **arguments})


@pytest.fixture
async def broker(rabbitmq: Service) -> AsyncIterator[Broker]:
    """Two robust connections and a queue of our own."""
    async with (
        await aio_pika.connect_robust(rabbitmq.url) as publishing,
        await aio_pika.connect_robust(rabbitmq.url) as consuming,
    ):
        channel = await consuming.channel()
        queue = await channel.declare_queue(f"asynctrace-{uuid.uuid4().hex}", exclusive=True)
        yield Broker(await publishing.channel(), channel, queue)


@pytest.fixture
async def consuming(broker: Broker) -> AsyncIterator[Callable[[Any], Awaitable[None]]]:
    """Consume with a callback until the end of the test; every consumer span is over when the test is."""
    tags = []

    async def consume(callback: Any) -> None:
        tags.append(await broker.queue.consume(callback))

    yield consume
    for tag in tags:
        await broker.queue.cancel(tag)


@pytest.fixture
async def unhandled() -> list[dict[str, Any]]:
    """What handlers raise, aio-pika leaves to the loop."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


def of_kind(traces: Recorder, kind: str) -> list[RecordedSpan]:
    return [one for one in traces.spans if one.tags.get("span.kind") == kind]


async def delivered(traces: Recorder, count: int) -> list[RecordedSpan]:
    """The consumer spans, once there are `count`: they end right after the handler says it is done."""
    await traces.wait_for(lambda _: len(of_kind(traces, "consumer")) >= count)
    return of_kind(traces, "consumer")


def short(one: RecordedSpan) -> str:
    """What stands for a span in a tree."""
    return {"producer": "publish", "consumer": "deliver"}.get(str(one.tags.get("span.kind")), one.name)
