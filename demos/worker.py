"""worker: handles every order that `shop` publishes: two things side by side, then one insert."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import aio_pika

from asynctrace import atraced, traced_app
from demos.environment import AMQP_URL, QUEUE, database, ready

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage


@atraced
async def reserve_stock(_: dict[str, Any]) -> None:
    await asyncio.sleep(0.03)


@atraced
async def write_invoice(_: dict[str, Any]) -> None:
    await asyncio.sleep(0.02)


async def handle(pool: Any, message: AbstractIncomingMessage) -> None:
    async with message.process():
        order = json.loads(message.body)
        await asyncio.gather(reserve_stock(order), write_invoice(order))
        await pool.execute(
            "INSERT INTO shipments (customer, state) VALUES ($1, $2)", order["customer"], order["state"]
        )


@traced_app
async def main() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with database() as pool, await aio_pika.connect_robust(AMQP_URL) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, auto_delete=True)

        async def on_message(message: AbstractIncomingMessage) -> None:
            await handle(pool, message)

        await queue.consume(on_message)
        ready()
        await stopped.wait()
