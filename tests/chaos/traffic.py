"""One end of the traffic: publishes, or consumes in one of the styles, until its standard input ends.

Prints a line of JSON for every publish (its id, and whether it was confirmed) and every delivery (its id).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

import aio_pika

from asynctrace import span, traced_app

EXCHANGE = "asynctrace-chaos"

HANDLING_SECONDS = 0.005

PASSING = (Exception, asyncio.CancelledError)
"""What aio-pika raises while the broker is away. It cancels handlers, too: nobody else cancels anything here."""


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def until_told() -> None:
    """Until standard input ends."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def publish(connection: Any, stop: asyncio.Event) -> None:
    channel = await connection.channel()
    exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.FANOUT, durable=True)
    number = 0
    while not stop.is_set():
        number += 1
        message = aio_pika.Message(b"", message_id=str(number), delivery_mode=2)
        ok = False
        with contextlib.suppress(*PASSING), span("request"):
            await exchange.publish(message, "", timeout=2)
            ok = True
        say(published=str(number), ok=ok)
        await asyncio.sleep(0.01 if ok else 0.1)


async def handle(message: Any) -> None:
    say(delivered=message.message_id)
    async with message.process():
        with span("work"):
            await asyncio.sleep(HANDLING_SECONDS)


async def callback(queue: Any, stop: asyncio.Event) -> None:
    tag = await queue.consume(handle)
    await stop.wait()
    await queue.cancel(tag)
    await asyncio.sleep(10 * HANDLING_SECONDS)


async def iterator(queue: Any, stop: asyncio.Event) -> None:
    async def loop() -> None:
        async with queue.iterator() as messages:
            async for message in messages:
                with contextlib.suppress(*PASSING):
                    await handle(message)
                if stop.is_set():
                    break

    task = asyncio.create_task(loop())
    await stop.wait()
    await asyncio.sleep(10 * HANDLING_SECONDS)
    task.cancel()
    await asyncio.wait([task])


async def get(queue: Any, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            message = await queue.get(fail=False, timeout=2)
            if message is not None:
                await handle(message)
                continue
        except PASSING:
            pass
        await asyncio.sleep(0.05)


@traced_app
async def main() -> None:
    role = sys.argv[1]
    stop = asyncio.Event()
    connection = await aio_pika.connect_robust(os.environ["BROKER"], reconnect_interval=0.2)
    async with connection:
        if role == "publish":
            work = publish(connection, stop)
        else:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=10)
            exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.FANOUT, durable=True)
            queue = await channel.declare_queue(f"{EXCHANGE}-{role}", durable=True)
            await queue.bind(exchange)
            work = {"callback": callback, "iterator": iterator, "get": get}[role](queue, stop)
        task = asyncio.create_task(work)
        say(ready=True)
        await until_told()
        stop.set()
        await task


if __name__ == "__main__":
    asyncio.run(main())
