"""The examples of aio-pika's own documentation, as they stand in what is installed, each a process of its own."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from tests.core.process import environment

if TYPE_CHECKING:
    from demos.services import Service
    from tests.sink import Sink


def examples() -> list[str]:
    """A consumer with an iterator, a publisher, and `get`; empty where a distribution leaves its description out."""
    metadata: Any = importlib.metadata.metadata("aio-pika")
    text = metadata.get("Description") or metadata.get_payload()
    return re.findall(r"```python\n(.*?)```", text.partition("## Usage example")[2], re.DOTALL)[:3]


pytestmark = pytest.mark.skipif(len(examples()) < 3, reason="this aio-pika comes without its description")


def start(example: str, queue: str, broker: Service, sink: Sink, service: str) -> subprocess.Popen[str]:
    """The program, unchanged but for its queue, and where the broker is; with one line before it."""
    program = example.replace("test_queue", queue).replace("amqp://guest:guest@127.0.0.1/", broker.url)
    return subprocess.Popen(
        [sys.executable, "-c", f"import asynctrace; asynctrace.install()\n{program}"],
        env=environment(DD_TRACE_AGENT_URL=sink.url, DD_SERVICE=service),
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    return output


async def until_there(queue: str, broker: Service) -> None:
    async with await aio_pika.connect(broker.url) as connection:
        while True:
            try:
                await (await connection.channel()).get_queue(queue)
                return
            except aio_pika.exceptions.ChannelNotFoundEntity:
                await asyncio.sleep(0.02)


async def test_publisher_and_consumer(rabbitmq: Service, sink: Sink) -> None:
    """Two processes: the consumer's span is below the publisher's."""
    consumer, publisher, _ = examples()
    queue = f"asynctrace-{uuid.uuid4().hex}"
    consuming = start(consumer, queue, rabbitmq, sink, "consumer")
    await until_there(queue, rabbitmq)
    assert ended(start(publisher, queue, rabbitmq, sink, "publisher")) == ""
    assert queue in ended(consuming)
    spans = {one["service"]: one for one in sink.wait_for(2)}
    publish, deliver = spans["publisher"], spans["consumer"]
    assert (deliver["trace_id"], deliver["parent_id"]) == (publish["trace_id"], publish["span_id"])
    assert (publish["resource"], deliver["resource"]) == ("basic.publish <default>", f"basic.deliver {queue}")
    assert deliver["meta"]["messaging.settle"] == "ack"


def test_get(rabbitmq: Service, sink: Sink) -> None:
    """It publishes, gets and acknowledges as without us; its publish has a span."""
    assert ended(start(examples()[2], f"asynctrace-{uuid.uuid4().hex}", rabbitmq, sink, "get")) == ""
    [publish] = sink.wait_for(1)
    assert publish["resource"] == "basic.publish direct"
