"""Headers: what is written is what is read, and what others write harms nobody, whatever it is."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import datetime as dt
import decimal
import enum
import fractions
import io
import itertools
import pathlib
import re
import types
import uuid
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, UserString, defaultdict, deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from ddtrace.trace import Context
from hypothesis import given, settings, strategies as st
from multidict import CIMultiDict

from asynctrace import SpanContext, attached, span
from asynctrace._core.carrier import KNOWN, MAX_VALUE
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace.testing import Recorder

# -- the identity

printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
word = st.text(min_size=1, max_size=8).filter(
    lambda text: text.strip() == text
)  # ddtrace strips, and takes no ""

CARRIERS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "dict": (dict, dict),
    "multidict": (CIMultiDict, lambda headers: headers),
    "pairs": (dict, lambda headers: list(headers.items())),
    "upper case": (dict, lambda headers: {key.upper(): value for key, value in headers.items()}),
}


@pytest.mark.parametrize("carrier", CARRIERS)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    lower=st.integers(1, 2**64 - 1),
    upper=st.just(0) | st.integers(1, 2**64 - 1),
    span_id=st.integers(1, 2**64 - 1),
    priority=st.sampled_from([None, -1, 0, 1, 2]),
    origin=st.none() | printable,
    baggage=st.dictionaries(word, word, max_size=4),
)
def test_extract_undoes_inject(
    *,
    carrier: str,
    lower: int,
    upper: int,
    span_id: int,
    priority: int | None,
    origin: str | None,
    baggage: dict[str, str],
) -> None:
    """Ids of 64 and 128 bits, sampling decision, origin and baggage are there what they were here; and at every hop."""
    new, sent = CARRIERS[carrier]
    context = Context(
        upper << 64 | lower, span_id, sampling_priority=priority, dd_origin=origin, baggage=dict(baggage)
    )
    headers = SpanContext(context).inject(new())
    there = SpanContext.extract(sent(headers))
    assert there == SpanContext(context)
    assert there._context is not None
    assert there._context.sampling_priority == priority
    assert (there._context.dd_origin or "") == (origin or "")
    assert there._context.get_all_baggage_items() == baggage
    assert there.inject(new()) == headers


@pytest.mark.parametrize("style", ["datadog", "tracecontext", "b3", "b3multi"])
def test_extract_undoes_inject_in_every_style(style: str) -> None:
    """Each header family that `DD_TRACE_PROPAGATION_STYLE` names carries ids and decision alone."""
    program = """
        import random
        from ddtrace.trace import Context
        from asynctrace import SpanContext
        chance = random.Random(7)
        for _ in range(500):
            bits = chance.choice([64, 128])
            context = Context(chance.getrandbits(bits) or 1, chance.getrandbits(64) or 1)
            context.sampling_priority = chance.choice([0, 1])
            there = SpanContext.extract(SpanContext(context).inject({}))
            assert there == SpanContext(context), (there, context)
            assert there._context.sampling_priority == context.sampling_priority
        print(sorted(SpanContext(context).inject({})))
    """
    headers = run(program, DD_TRACE_PROPAGATION_STYLE=style)
    assert style.replace("tracecontext", "traceparent").removesuffix("multi") in headers


# -- what others send


class Hostile:
    """Whatever is done to it, raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __bool__(self) -> bool:
        raise RuntimeError

    __str__ = __repr__ = __eq__ = __hash__ = __iter__ = __len__ = __int__ = __index__ = __bool__  # type: ignore[assignment]


class HostileText(str):
    """A string whose methods raise."""

    __slots__ = ()

    def lower(self) -> str:
        raise RuntimeError

    __len__ = __iter__ = isascii = isprintable = isdigit = encode = __contains__ = split = lower  # type: ignore[assignment]


class Colour(str, enum.Enum):
    """A string, and an enumeration."""

    RED = "7"


class Pair(NamedTuple):
    key: str
    value: int


class Number(int):
    pass


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 7


def of_every_builtin_type() -> Iterator[object]:
    """What each type of Python's own makes of nothing, and of a 7; and the types."""
    for kind in vars(builtins).values():
        if not isinstance(kind, type):
            continue
        yield kind
        for arguments in ((), (7,), ("7",)):
            try:
                yield kind(*arguments)
            except Exception:  # it takes something else
                continue


def values() -> list[object]:
    """Header values of every Python type, and of strings the worst."""
    unawaited = coroutine()
    unawaited.close()
    return [
        *of_every_builtin_type(),
        *(
            None,
            Ellipsis,
            NotImplemented,
            builtins,
            values,
            lambda: 7,
            unawaited,
            generator(),
            re.compile("7"),
        ),
        *(types.SimpleNamespace(a=7), MappingProxyType({"7": 7}), weakref.ref(Colour), contextvars.Context()),
        *(decimal.Decimal(7), fractions.Fraction(7), uuid.UUID(int=7), pathlib.Path("7"), io.BytesIO(b"7")),
        *(dt.datetime.now(dt.timezone.utc), dt.timedelta(7)),
        *(
            Counter("7"),
            OrderedDict(a=7),
            UserDict(a=7),
            UserString("7"),
            defaultdict(int),
            deque("7"),
            ChainMap({}),
        ),
        *(
            Colour.RED,
            Pair("7", 7),
            Number(7),
            asyncio.Queue,
            memoryview(b"7"),
            Hostile(),
            HostileText("7"),
            [[[]]],
        ),
        *(
            "",
            " ",
            "7 ",
            "-7",
            "7\r\na: b",
            "7\0",
            "\u0667",
            "\ud800",
            "é",
            "0x7",
            "1e3",
            "NaN",
            "9" * 5000,
            "-" * 55,
        ),
        *(
            "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
            "dd=s:" + "9" * 400,
            "=,=;=",
            "x" * (MAX_VALUE + 1),
            str(2**64),
        ),
        *(
            b"7",
            b"\xff",
            bytearray(b"7"),
            -1,
            2**64,
            2**1000,
            7.5,
            float("nan"),
            float("inf"),
            7j,
            True,
            range(7),
        ),
    ]


GOOD = {
    "x-datadog-trace-id": "7",
    "x-datadog-parent-id": "8",
    "traceparent": "00-640cfd8d00000000000000000000abcd-00000000000000ef-01",
}


def hostile_headers() -> Iterator[object]:
    """Headers in which one thing is wrong."""
    keys = [*sorted(KNOWN), "ot-baggage-a", "OT-Baggage-\ud800"]
    odd = values()
    for key, value in itertools.product(keys, odd):
        yield {key: value}
        yield {**GOOD, key: value}
        yield [*GOOD.items(), (key.upper(), value), (key, "7")]
    for value in odd:
        yield value
        yield [value]
        yield [(value, "7")]
        yield [(value, value), *GOOD.items()]
        yield [["traceparent", value]]
        yield [[value, "7", "7"], *GOOD.items()]


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ten_thousand_hostile_headers(traces: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Of every Python type, as value, key, pair, or in place of all headers: no exception, no lost local context."""
    count = 0
    with span("local") as local:
        for headers in hostile_headers():
            there = SpanContext.extract(headers)
            assert SpanContext.current() == local.context
            with attached(there):
                out = SpanContext.current().inject({})
                assert all(type(value) is str and value.isprintable() for value in out.values())
                if count % 7 == 0:
                    with span("below") as below:
                        assert below.trace_id
                        assert SpanContext.extract(below.context.inject({})) == below.context
            assert SpanContext.current() == local.context
            count += 1
    assert count > 10_000
    said = {record.getMessage().split(":")[0] for record in caplog.records if record.levelname != "DEBUG"}
    assert said <= {"failed to decode x-datadog-tags"}  # ddtrace's warning, once a minute
    assert len(traces.spans) == 1 + (count + 6) // 7
