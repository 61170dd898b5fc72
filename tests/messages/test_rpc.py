"""Request and reply over RabbitMQ: call, work, reply and what is done with it are one trace."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aio_pika.patterns import RPC, Master

from asynctrace import span
from tests.messages.conftest import Broker, short

if TYPE_CHECKING:
    from asynctrace.testing import Recorder

TREE = """
    request
      publish
        deliver
          work
          publish
            deliver
      after the reply
"""


async def test_by_hand(installed: Any, broker: Broker, consuming: Any, traces: Recorder) -> None:
    """A reply queue and correlation ids: the reply is handled below the server's publish; the caller goes on."""
    installed("aio_pika")
    replies = await broker.channel.declare_queue(exclusive=True)
    waiting: dict[str, asyncio.Future[bytes]] = {}

    async def serve(message: Any) -> None:
        async with message.process():
            with span("work"):
                reply = aio_pika.Message(message.body * 2, correlation_id=message.correlation_id)
            await broker.consuming.default_exchange.publish(reply, message.reply_to)

    async def on_reply(message: Any) -> None:
        waiting[message.correlation_id].set_result(message.body)

    await consuming(serve)
    tag = await replies.consume(on_reply, no_ack=True)
    with span("request"):
        future = waiting["7"] = asyncio.get_running_loop().create_future()
        call = aio_pika.Message(b"tea", correlation_id="7", reply_to=replies.name)
        await broker.channel.default_exchange.publish(call, broker.queue.name)
        assert await future == b"teatea"
        with span("after the reply"):
            pass
    await replies.cancel(tag)
    await traces.wait_for(7)
    traces.assert_tree(TREE, label=short)
    resources = {one.resource for one in traces.spans if one.tags.get("amqp.queue") == "<generated>"}
    assert resources == {"basic.deliver <generated>"}


async def test_with_the_library_s_own(installed: Any, broker: Broker, traces: Recorder) -> None:
    """`aio_pika.patterns.RPC`: the same tree; the method's exception is raised at the caller's, and no error here."""
    installed("aio_pika")
    name = f"asynctrace-{uuid.uuid4().hex}"

    async def work(*, number: int) -> int:
        with span("work"):
            return 10 // number

    server, client = await RPC.create(broker.consuming), await RPC.create(broker.channel)
    await server.register(name, work, exclusive=True)
    with span("request"):
        assert await client.call(name, {"number": 5}) == 2
        with span("after the reply"):
            pass
    await traces.wait_for(7)
    traces.assert_tree(TREE, label=short)
    with pytest.raises(ZeroDivisionError):
        await client.call(name, {"number": 0})
    await client.close()
    await server.close()


async def test_master_and_worker(installed: Any, broker: Broker, traces: Recorder) -> None:
    """`aio_pika.patterns.Master`: a task's work is below the span that created it."""
    installed("aio_pika")
    name = f"asynctrace-{uuid.uuid4().hex}"

    async def work(*, number: int) -> None:
        with span("work", tags={"number": number}):
            pass

    worker = await Master(broker.consuming).create_worker(name, work, exclusive=True)
    with span("request"):
        await Master(broker.channel).create_task(name, {"number": 7})
    await traces.wait_for(4)
    traces.assert_tree("request\n  publish\n    deliver\n      work", label=short)
    await worker.close()
