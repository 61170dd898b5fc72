"""Header tables that nobody would write: every message reaches its handler."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from asynctrace import start_span
from asynctrace._core.carrier import KNOWN

if TYPE_CHECKING:
    from asynctrace.testing import Recorder
    from tests.messages.conftest import Broker

NAMES = (
    *sorted(KNOWN),
    "ot-baggage-user",
    "x-death",
    "x-delivery-count",
    "x-asynctrace-produced",
    "x_datadog_rabbitmq_produced",
    "tenant",
    "",
)

ALPHABET = "0123456789abcdef-=,:;~ \t\r\n\x00\x7fäß漢😀"


def text(dice: random.Random) -> str:
    return "".join(dice.choices(ALPHABET, k=dice.choice([0, 1, 2, 8, 16, 32, 55, 600])))


def number(dice: random.Random) -> int:
    return dice.choice([0, 1, 7, -(2**31), 2**31, 2**63 - 1, -(2**63), dice.getrandbits(62)])


def value(dice: random.Random, depth: int = 0) -> Any:
    """Of any type that AMQP has."""
    kinds: list[Any] = [
        text,
        text,
        number,
        lambda dice: bytearray(dice.randbytes(dice.choice([0, 1, 20, 300]))),
        lambda dice: dice.choice([True, False, None]),
        lambda dice: dice.choice([0.0, -1.5, 1e30]),
        lambda dice: Decimal(dice.randrange(10**6)).scaleb(-2),
        lambda dice: datetime.fromtimestamp(dice.randrange(2**31), tz=timezone.utc),
    ]
    if depth < 2:
        kinds += [
            lambda dice: [value(dice, depth + 1) for _ in range(dice.randrange(3))],
            lambda dice: {dice.choice(NAMES): value(dice, depth + 1) for _ in range(dice.randrange(3))},
        ]
    return dice.choice(kinds)(dice)


def table(dice: random.Random, sound: dict[str, str]) -> dict[str, Any]:
    """Rubbish alone, or sound headers of which some are spoilt."""
    headers: dict[str, Any] = dict(sound) if dice.random() < 0.5 else {}
    for _ in range(dice.randrange(6)):
        name = dice.choice(NAMES)
        headers[name.title() if dice.random() < 0.2 else name] = value(dice)
    if headers and dice.random() < 0.3:
        spoilt = dice.choice(sorted(headers))
        if isinstance(headers[spoilt], str):
            at = dice.randrange(len(headers[spoilt]) + 1)
            headers[spoilt] = headers[spoilt][:at] + dice.choice(ALPHABET) + headers[spoilt][at + 1 :]
    return headers


@pytest.mark.parametrize(
    "count", [400, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(120)])]
)
async def test_every_message_reaches_its_handler(
    count: int, installed: Any, broker: Broker, traces: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its headers: handled once, in a span of its own; and we say no word."""
    installed("aio_pika")
    sent = start_span("sent")
    sent.finish()
    sound = sent.context.inject({})
    dice = random.Random(20261124)
    handled: list[bytes] = []
    done = asyncio.Event()

    async def handle(message: Any) -> None:
        async with message.process():
            handled.append(message.body)
            if len(handled) == count:
                done.set()

    tag = await broker.queue.consume(handle)
    caplog.set_level(logging.WARNING)
    for turn in range(count):
        await broker.publish_bare(b"%d" % turn, headers=table(dice, sound))
    await done.wait()
    await broker.queue.cancel(tag)
    assert sorted(map(int, handled)) == list(range(count))
    await traces.wait_for(lambda _: sum("messaging.attempt" in one.tags for one in traces.spans) == count, 60)
    # ddtrace itself warns, once, of trace headers of a later version, and of tags it can't decode
    said = [one for one in caplog.records if one.name == "asynctrace" or one.levelno >= logging.ERROR]
    assert [one.getMessage() for one in said] == []
