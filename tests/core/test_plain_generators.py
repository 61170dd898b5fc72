"""A plain `with span()` in a generator without a decorator: active only while the generator's own code runs.

It holds as far as a frame tells where it stands; exactly, for every order of things, it is `@atraced` that holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import tracer

from asynctrace import current_span, span
from asynctrace._core.provider import top_entry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator

    from asynctrace.testing import Recorder


def mark(name: str) -> None:
    with span(name):
        pass


openers = pytest.mark.parametrize("opened", [span, tracer.trace], ids=["ours", "ddtrace's"])


def plain(opened: Callable[[str], Any]) -> Generator[int]:
    with opened("items"):
        for number in range(3):
            mark(f"inside {number}")
            yield number


async def asynchronous(opened: Callable[[str], Any]) -> AsyncGenerator[int]:
    with opened("items"):
        for number in range(3):
            await asyncio.sleep(0)
            mark(f"inside {number}")
            yield number


@openers
def test_the_consumers_spans_are_the_consumers(opened: Any, traces: Recorder) -> None:
    """Between two items the generator's span is not active; in it, it is."""
    with span("consumer"):
        for number in plain(opened):
            mark(f"mine {number}")
        mark("after")
    assert traces.tree().splitlines() == [
        "consumer",
        *("  items", "    inside 0", "    inside 1", "    inside 2"),
        *("  mine 0", "  mine 1", "  mine 2", "  after"),
    ]


@openers
async def test_asynchronous_ones_alike(opened: Any, traces: Recorder) -> None:
    """At an `await` inside, the generator's span is active; at a `yield` it is not."""
    with span("consumer"):
        async for number in asynchronous(opened):
            mark(f"mine {number}")
    assert traces.tree().splitlines() == [
        "consumer",
        *("  items", "    inside 0", "    inside 1", "    inside 2"),
        *("  mine 0", "  mine 1", "  mine 2"),
    ]


def test_yield_from_is_a_yield(traces: Recorder) -> None:
    """A generator that delegates is suspended with the one it delegates to."""

    def outer() -> Generator[int]:
        with span("outer"):
            yield from plain(span)

    for _ in outer():
        mark("mine")
    lines = traces.tree().splitlines()
    assert [line for line in lines if "mine" in line] == ["mine"] * 3
    assert "outer" in lines
    assert "  items" in lines


@openers
async def test_left_early_nothing_is_poisoned(
    opened: Any, traces: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """After `break` the consumer's spans are its own; the generator's is delivered, closed, and no error."""
    with span("consumer"):
        async for _ in asynchronous(opened):
            break
        mark("after")
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        mark("later")
    items = traces.one("items")
    assert (items.outcome, items.error) == ("closed", 0)
    consumer = traces.one("consumer").span_id
    assert [traces.one(name).parent_id for name in ("items", "after", "later")] == [consumer] * 3
    assert not caplog.records


def test_interleaved_generators(traces: Recorder) -> None:
    """Two of them advanced in turn: each has its own spans."""

    def numbered(name: str) -> Generator[None]:
        with span(name):
            for number in range(2):
                mark(f"{name}{number}")
                yield

    for _ in zip(numbered("a"), numbered("b"), strict=True):
        mark("mine")
    parents = {one.span_id: one.name for one in traces.spans}
    found = {one.name: parents.get(one.parent_id or 0) for one in traces.spans}
    assert found == {"a": None, "a0": "a", "a1": "a", "b": None, "b0": "b", "b1": "b", "mine": None}


def test_a_context_manager_lends_its_span(traces: Recorder) -> None:
    """What `contextlib` makes of a generator runs its `with` block inside: there the span is active."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        with span("block"):
            yield

    with block():
        mark("inside")
    mark("after")
    assert traces.tree() == "block\n  inside\nafter"


async def test_an_async_context_manager_lends_its_span(traces: Recorder) -> None:
    """So does `asynccontextmanager`."""

    @contextlib.asynccontextmanager
    async def block() -> AsyncIterator[None]:
        with span("block"):
            await asyncio.sleep(0)
            yield

    async with block():
        mark("inside")
    mark("after")
    assert traces.tree() == "block\n  inside\nafter"


def test_generators_left_behind_do_not_pile_up(traces: Recorder) -> None:
    """A thousand of them, each begun before the one before it ends: the chain of what was active stays short."""

    def rolling() -> None:
        alive: list[Generator[int]] = []
        for _ in range(1000):
            generator = plain(span)
            next(generator)
            alive.append(generator)
            if len(alive) > 2:
                alive.pop(0).close()
            mark("mine")
        entry, length = top_entry.get(), 0
        while entry is not None:
            entry, length = entry.previous, length + 1
        assert length < 10
        for left in alive:
            left.close()
        assert current_span() is None

    contextvars.Context().run(rolling)
    assert {one.parent_id for one in traces.spans if one.name == "mine"} == {None}
