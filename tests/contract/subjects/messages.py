"""aio-pika: a message published, and handled by a consumer on another connection."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import aio_pika
from aio_pika.connection import Connection
from aio_pika.exchange import Exchange
from aio_pika.message import IncomingMessage, ProcessContext
from aio_pika.queue import Queue, QueueIterator

from asynctrace import span, traced_consumer, traced_producer
from asynctrace.aio_pika import traced_iterator
from tests.contract.subjects import Base

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from demos.services import Service


class Subject(Base):
    integration = component = "aio_pika"
    service = "rabbitmq"
    spans = 2

    @contextlib.asynccontextmanager
    async def open(self, service: Service | None) -> AsyncIterator[None]:
        assert service is not None
        self.handled: dict[int, asyncio.Future[Any]] = {}
        async with (
            await aio_pika.connect_robust(service.url) as publishing,
            await aio_pika.connect_robust(service.url) as consuming,
        ):
            self.exchange = (await publishing.channel()).default_exchange
            channel = await consuming.channel()
            self.queue = await channel.declare_queue(f"asynctrace-{uuid.uuid4().hex}", exclusive=True)
            self.other = await channel.declare_queue(f"asynctrace-{uuid.uuid4().hex}", exclusive=True)
            tag = await self.queue.consume(self.handle)
            yield
            await self.queue.cancel(tag)

    async def handle(self, message: Any) -> None:
        number = int(message.body)
        async with message.process():
            with span("handled", tags={"request": number}):
                await asyncio.sleep(0)
        self.handled[number].set_result((type(message), message.body, message.processed))

    async def operate(self, number: int) -> object:
        future = self.handled[number] = asyncio.get_running_loop().create_future()
        confirmed = await self.exchange.publish(aio_pika.Message(b"%d" % number), self.queue.name)
        return (type(confirmed), *(await future))

    async def fail(self, exc: Exception) -> None:
        class Message(aio_pika.Message):
            @property
            def properties(self) -> Any:
                raise exc

        await self.exchange.publish(Message(b"0"), self.queue.name)

    async def hang(self, hanging: asyncio.Event) -> None:
        await self.exchange.publish(aio_pika.Message(b"0"), self.other.name)
        async with self.other.iterator() as messages:
            async for _ in messages:
                hanging.set()
                await asyncio.get_running_loop().create_future()

    def doors(self) -> dict[str, Any]:
        doors = {
            Exchange: ("publish",),
            Queue: ("consume", "get", "__aiter__"),
            QueueIterator: ("__aiter__", "__anext__", "__aenter__", "__aexit__"),
            IncomingMessage: ("ack", "nack", "reject"),
            ProcessContext: ("__aenter__", "__aexit__"),
            Connection: ("connect",),
        }
        return {
            f"{owner.__name__}.{name}": vars(owner)[name] for owner, names in doors.items() for name in names
        }

    def by_hand(self) -> list[tuple[object, object]]:
        iterator, handle = self.queue.iterator(), self.handle
        return [
            (self.exchange, traced_producer(self.exchange)),
            (handle, traced_consumer(handle)),
            (iterator, traced_iterator(iterator)),
        ]
