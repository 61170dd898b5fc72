"""Messages through a real RabbitMQ."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import TYPE_CHECKING, Any

from tests.bench.rows import LOT, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.kits import Kit
    from tests.bench.rows import Operations


class Broker:
    """A channel to publish on, and a consumer on another connection; opened at the first operation."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.exchange: Any = None
        self.connections: tuple[Any, ...] = ()
        self.handled = asyncio.Semaphore(0)

    async def open(self) -> None:
        import aio_pika

        url = os.environ["ASYNCTRACE_AMQP_URL"]
        self.connections = publishing, consuming = await aio_pika.connect(url), await aio_pika.connect(url)
        self.message = aio_pika.Message(b"0123456789")
        self.exchange = (await publishing.channel()).default_exchange
        channel = await consuming.channel()
        queue = await channel.declare_queue(f"asynctrace-bench-{uuid.uuid4().hex}", exclusive=True)
        self.name = queue.name
        await queue.consume(self.handle)

    async def handle(self, message: Any) -> None:
        await message.ack()
        self.handled.release()

    async def operations(self, count: int) -> None:
        """`LOT` messages published below a root span, one after the other; then all of them have been handled."""
        if self.exchange is None:
            await self.open()
        for _ in range(count // LOT):
            with self.kit.span("root"):
                for _ in range(LOT):
                    await self.exchange.publish(self.message, self.name)
            for _ in range(LOT):
                await self.handled.acquire()


class Message(Row):
    """publish + consume"""

    note = (
        "with confirms, one after the other; a callback that acks, on another connection of the same process"
    )

    server = "rabbitmq"

    broker: Broker | None = None

    def bare(self, kit: Kit) -> Operations:
        self.broker = Broker(kit)
        return self.broker.operations

    def ddtrace(self, kit: Kit) -> str:
        return "no integration"

    def opentelemetry(self, kit: Kit) -> Operations | str:
        try:
            from opentelemetry.instrumentation.aio_pika import AioPikaInstrumentor
        except ImportError:
            return "no instrumentation installed"
        instrument: Callable[[], None] = AioPikaInstrumentor().instrument
        instrument()
        return self.bare(kit)

    def asynctrace(self, kit: Kit) -> Operations:
        return self.bare(kit)

    async def close(self) -> None:
        for connection in () if self.broker is None else self.broker.connections:
            await connection.close()


ROWS = (Message,)
