"""aio-pika: publishing and consuming, with the trace in the message's headers.

What crosses the gap: Datadog and W3C headers, written as text only (AMQP type S, the one every language reads), read
tolerantly. A message's work belongs to its publisher's trace, never to whoever opened the connection. Doors: the base
`Exchange.publish`, `Queue.consume` and `Queue.get`, which the robust classes call; `QueueIterator`; how a message is
settled.

    from asynctrace import traced_consumer, traced_producer
    from asynctrace.aio_pika import traced_iterator

    orders = traced_producer(await channel.declare_exchange("orders"))
    await orders.publish(Message(b"tea"), routing_key="new")     # span basic.publish orders

    await queue.consume(traced_consumer(handle))                 # span basic.deliver, child of the publish

    async with traced_iterator(queue) as messages:               # the same, for as long as the body runs
        async for message in messages:
            await message.ack()

A message's span is a child of the one that published it, or starts a trace of its own with a link to that
(`relation="link"`, or `ASYNCTRACE_AIO_PIKA_RELATION=link`). As in dd-trace-java, `DD_RABBIT_PROPAGATION_ENABLED` and
`DD_RABBIT_PROPAGATION_DISABLED_EXCHANGES` and `_QUEUES` say where no trace goes along.

- `publishing`, `consuming`, `iterating`, `getting`: a door each, and what users wrap by hand
- `handling`: a message in hand, and its span; `turns`: in a loop's body
- `settling`: ack, nack, reject, `process()`; `message`: the same by hand
- `headers`: what crosses
- `describe`: names and tags
- `switch`: on or off, child or link
- `doors`: install and uninstall
"""

from __future__ import annotations

from asynctrace.aio_pika.consuming import traced_consumer
from asynctrace.aio_pika.doors import SUPPORTED, install, uninstall
from asynctrace.aio_pika.headers import read_context
from asynctrace.aio_pika.iterating import traced_iterator
from asynctrace.aio_pika.message import traced_message
from asynctrace.aio_pika.publishing import traced_producer

__all__ = [
    "SUPPORTED",
    "install",
    "read_context",
    "traced_consumer",
    "traced_iterator",
    "traced_message",
    "traced_producer",
    "uninstall",
]
