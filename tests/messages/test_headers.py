"""What other languages put on the wire, byte for byte, read from a real broker; and what nobody should."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace import SpanContext, start_span
from asynctrace.aio_pika import read_context
from asynctrace.aio_pika.headers import produced_ms, stamped
from tests.messages.conftest import Broker, delivered
from tests.messages.wire import Wire, long, short, table

if TYPE_CHECKING:
    from asynctrace.testing import Recorder
    from demos.services import Service

TRACE = 0x65A1B2C300000000_A3CE929D0E0E4736
PARENT = 0xF067AA0BA902B701

JAVA = (  # TextMapInjectAdapter: strings; the time as a Long (RabbitDecorator.java)
    b"\x00\x00\x01W"
    b"\x12x-datadog-trace-idS\x00\x00\x00\x1411803532876627986230"
    b"\x13x-datadog-parent-idS\x00\x00\x00\x1417323001458760791809"
    b"\x1bx-datadog-sampling-priorityS\x00\x00\x00\x011"
    b"\x0ex-datadog-tagsS\x00\x00\x00&_dd.p.tid=65a1b2c300000000,_dd.p.dm=-1"
    b"\x0btraceparentS\x00\x00\x00700-65a1b2c300000000a3ce929d0e0e4736-f067aa0ba902b701-01"
    b"\ntracestateS\x00\x00\x00%dd=s:1;p:f067aa0ba902b701;t.dm:-1,x=1"
    b"\x1bx_datadog_rabbitmq_producedl\x00\x00\x01\x8b\xcf\xe5h\x00"
)

JS = (  # amqplib writes strings as S, and objects, as of Data Streams, as F
    b"\x00\x00\x00\xc7"
    b"\x12x-datadog-trace-idS\x00\x00\x00\x1411803532876627986230"
    b"\x13x-datadog-parent-idS\x00\x00\x00\x1417323001458760791809"
    b"\x1bx-datadog-sampling-priorityS\x00\x00\x00\x011"
    b"\x0ex-datadog-tagsS\x00\x00\x00\x1a_dd.p.tid=65a1b2c300000000"
    b"\x0edd-pathway-ctxF\x00\x00\x00\n\x04hashI\x00\x00\x00\x07"
)

DOTNET = (  # byte arrays, which its client writes as S (WireFormatting.Write.cs)
    b"\x00\x00\x00\xa9"
    b"\x12x-datadog-trace-idS\x00\x00\x00\x1411803532876627986230"
    b"\x13x-datadog-parent-idS\x00\x00\x00\x1417323001458760791809"
    b"\x1bx-datadog-sampling-priorityS\x00\x00\x00\x011"
    b"\x0ex-datadog-tagsS\x00\x00\x00\x1a_dd.p.tid=65a1b2c300000000"
)

GO = (  # []byte as x, with keys as net/http spells them
    b"\x00\x00\x00\xa9"
    b"\x12X-Datadog-Trace-Idx\x00\x00\x00\x1411803532876627986230"
    b"\x13X-Datadog-Parent-Idx\x00\x00\x00\x1417323001458760791809"
    b"\x1bX-Datadog-Sampling-Priorityx\x00\x00\x00\x011"
    b"\x0eX-Datadog-Tagsx\x00\x00\x00\x1a_dd.p.tid=65a1b2c300000000"
)

PIKA = (  # W3C alone, as OpenTelemetry's pika integration writes it
    b"\x00\x00\x00H\x0btraceparentS\x00\x00\x00700-65a1b2c300000000a3ce929d0e0e4736-f067aa0ba902b701-01"
)

NUMBERS = (  # a priority as a number: of one byte, as pika picks it, is enough
    b"\x00\x00\x00\xa5"
    b"\x12x-datadog-trace-idS\x00\x00\x00\x1411803532876627986230"
    b"\x13x-datadog-parent-idS\x00\x00\x00\x1417323001458760791809"
    b"\x1bx-datadog-sampling-priorityb\x01"
    b"\x0ex-datadog-tagsS\x00\x00\x00\x1a_dd.p.tid=65a1b2c300000000"
)

PEERS = {"java": JAVA, "js": JS, "dotnet": DOTNET, "go": GO, "pika": PIKA, "numbers": NUMBERS}


@pytest.mark.parametrize("peer", PEERS)
async def test_read_from_the_wire(
    peer: str, installed: Any, broker: Broker, consuming: Any, traces: Recorder, rabbitmq: Service
) -> None:
    """A message of each language's tracer continues its trace: 128 bits, and ids above 2^63."""
    installed("aio_pika")
    shared = await broker.consuming.declare_queue(f"asynctrace-{uuid.uuid4().hex}", auto_delete=True)
    with Wire(rabbitmq.url) as wire:
        await asyncio.to_thread(wire.publish, shared.name, PEERS[peer])
        tag = await shared.consume(broker.handle)
        [deliver] = await delivered(traces, 1)
        await shared.cancel(tag)
    assert (deliver.trace_id, deliver.parent_id) == (TRACE, PARENT)
    assert ("messaging.queue_ms" in deliver.tags) is (peer == "java")


async def test_types_that_carry_no_context(
    installed: Any, broker: Broker, consuming: Any, traces: Recorder, rabbitmq: Service
) -> None:
    """Trace headers as tables, lists, floats, booleans, times or nothing: ignored, and the message is handled."""
    installed("aio_pika")
    shared = await broker.consuming.declare_queue(f"asynctrace-{uuid.uuid4().hex}", auto_delete=True)
    fields = [
        short("x-datadog-trace-id") + b"F" + table(short("id") + b"I\x00\x00\x00\x07"),
        short("x-datadog-parent-id") + b"A" + long(b"I\x00\x00\x00\x08"),
        short("x-datadog-sampling-priority") + b"t\x01",
        short("x-datadog-tags") + b"V",
        short("traceparent") + b"d\x40\x09\x21\xfb\x54\x44\x2d\x18",
        short("tracestate") + b"T\x00\x00\x00\x00\x65\x00\x00\x00",
        short("b3") + b"D\x02\x00\x00\x00\x07",
    ]
    with Wire(rabbitmq.url) as wire:
        await asyncio.to_thread(wire.publish, shared.name, table(*fields))
        tag = await shared.consume(broker.handle)
        [deliver] = await delivered(traces, 1)
        await shared.cancel(tag)
    assert deliver.parent_id is None


def sent() -> SpanContext:
    one = start_span("sent")
    one.finish()
    return one.context


def test_every_tolerated_type() -> None:
    """Text, bytes, bytearrays and numbers, under keys in any case."""
    context = sent()
    headers = context.inject({})
    as_bytes = {key: value.encode() for key, value in headers.items()}
    as_arrays = {key.upper(): bytearray(value.encode()) for key, value in headers.items()}
    numbers = {key: int(value) if value.isdigit() else value for key, value in headers.items()}
    for variant in (headers, as_bytes, as_arrays, numbers):
        assert read_context(variant) == context


@pytest.mark.parametrize(
    "value", [None, True, 2.5, [7], {"id": 7}, ("7",), object(), 2**65, -1, b"\xff", "7" * 9000, "\n7", ""]
)
def test_everything_else_is_ignored(value: Any) -> None:
    """Whatever stands where an id should: no context, nothing raised; headers that are none at all, too."""
    assert not read_context({"x-datadog-trace-id": value, "x-datadog-parent-id": "8", 7: 8})
    assert not read_context(value)


def test_headers_of_the_users_are_no_hindrance() -> None:
    """`x-death` and whatever else of any type stands beside trace headers does not lose them."""
    context = sent()
    others: dict[Any, Any] = {"x-death": [{"count": 1}], "n": 7, "blob": bytearray(b"\xff"), "": None, 7: 8}
    assert read_context({**others, **context.inject({})}) == context


def test_what_is_stamped_is_a_copy() -> None:
    """The headers given stay as they are; none at all will do."""
    context, given = sent(), {"tenant": "a", "traceparent": "stale"}
    assert read_context(stamped(given, context)) == context
    assert given == {"tenant": "a", "traceparent": "stale"}
    assert read_context(stamped(None, context)) == context


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-asynctrace-produced": "1700000000000"}, 1700000000000),
        ({"x_datadog_rabbitmq_produced": 1700000000000}, 1700000000000),
        ({"x-asynctrace-produced": "17e11"}, None),
        ({"x-asynctrace-produced": "9" * 400}, None),
        ({"x-asynctrace-produced": "-5"}, None),
        ({"x-asynctrace-produced": 1.5}, None),
        ({"x_datadog_rabbitmq_produced": True}, None),
        ({"x_datadog_rabbitmq_produced": 2**70}, None),
        ({}, None),
        (None, None),
    ],
)
def test_when_it_was_published(headers: Any, expected: int | None) -> None:
    """In ms, from our header or from Java's; nothing from what is no such time."""
    assert produced_ms(headers) == expected
