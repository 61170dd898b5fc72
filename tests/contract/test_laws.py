"""The laws that every integration keeps."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import tracer

from asynctrace import span, uninstall
from tests.contract.subjects import NAMES, Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace.testing import RecordedSpan, Recorder
    from demos.services import Service

REQUESTS = 50


@pytest.fixture(params=NAMES)
def subject(request: pytest.FixtureRequest) -> Base:
    """Every integration in turn."""
    made: Base = importlib.import_module(f"tests.contract.subjects.{request.param}").Subject()
    return made


@pytest.fixture
def service(request: pytest.FixtureRequest, subject: Base) -> Service | None:
    """The server it needs."""
    return None if subject.service is None else request.getfixturevalue(subject.service)


@pytest.fixture
def off() -> Iterator[None]:
    """Tracing is switched off."""
    tracer.enabled = False
    yield
    tracer.enabled = True


def of(subject: Base, traces: Recorder) -> list[RecordedSpan]:
    return [one for one in traces.spans if one.tags.get("component") == subject.component]


async def test_the_right_parent(
    subject: Base, service: Service | None, installed: Callable[..., None], traces: Recorder
) -> None:
    """50 requests at once: every span of an operation, and what the user did in it, is below its own request."""
    installed(subject.integration)

    async def request(number: int) -> None:
        with span("request", tags={"request": number}):
            await subject.operate(number)

    async with subject.open(service):
        await asyncio.gather(*map(request, range(REQUESTS)))
        await traces.wait_for(lambda _: len(of(subject, traces)) >= REQUESTS * subject.spans)
    assert len(of(subject, traces)) == REQUESTS * subject.spans
    assert len(traces.traces()) == REQUESTS
    assert {spans[0].name for spans in traces.traces().values()} == {"request"}
    traces.assert_no_crosstalk("request")
    traces.assert_no_orphans()


async def test_the_same_result(
    subject: Base, service: Service | None, installed: Callable[..., None], traces: Recorder
) -> None:
    """What an operation gives is what it gives without us, value and type."""
    async with subject.open(service):
        untraced = await subject.operate(7)
    assert of(subject, traces) == []
    installed(subject.integration)
    async with subject.open(service):
        traced = await subject.operate(7)
        await traces.wait_for(lambda _: len(of(subject, traces)) >= subject.spans)
    assert traced == untraced
    assert type(traced) is type(untraced)


async def test_the_same_exception(
    subject: Base, service: Service | None, installed: Callable[..., None], traces: Recorder
) -> None:
    """The caller gets the exception that was raised, that very object, untouched; a span has it as its error."""
    installed(subject.integration)
    exc = ValueError("of the user's")
    async with subject.open(service):
        with pytest.raises(ValueError, match="of the user's") as caught:
            await subject.fail(exc)
    assert caught.value is exc
    assert exc.args == ("of the user's",)
    assert (exc.__cause__, exc.__context__) == (None, None)
    await traces.wait_for(lambda _: any(one.error for one in of(subject, traces)))
    failed = {(one.outcome, one.tags["error.type"]) for one in of(subject, traces) if one.error}
    assert failed == {("error", "builtins.ValueError")}


async def test_cancellation(
    subject: Base, service: Service | None, installed: Callable[..., None], traces: Recorder
) -> None:
    """A cancelled operation is cancelled, and its span ends so: no error."""
    installed(subject.integration)
    async with subject.open(service):
        hanging = asyncio.Event()
        task = asyncio.create_task(subject.hang(hanging))
        await hanging.wait()
        open_ones = {one.span_id for one in traces.open}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await traces.wait_for(lambda _: open_ones <= {one.span_id for one in traces.spans})
    ended = [one for one in of(subject, traces) if one.span_id in open_ones]
    assert {(one.error, one.outcome) for one in ended} == {(0, "cancelled")}
    traces.assert_finished()


async def test_installing_twice(
    subject: Base, service: Service | None, installed: Callable[..., None], traces: Recorder
) -> None:
    """A second `install()` changes nothing; `uninstall()` gives the library's own back."""
    own = subject.doors()
    installed(subject.integration)
    once = subject.doors()
    assert all(once[name] is not own[name] for name in own)
    installed(subject.integration)
    assert all(subject.doors()[name] is once[name] for name in own)
    async with subject.open(service):
        await subject.operate(7)
        await traces.wait_for(lambda _: len(of(subject, traces)) >= subject.spans)
    assert len(of(subject, traces)) == subject.spans
    uninstall()
    assert all(subject.doors()[name] is own[name] for name in own)
    traces.clear()
    async with subject.open(service):
        await subject.operate(7)
    assert of(subject, traces) == []


async def test_off_means_off(
    subject: Base, service: Service | None, installed: Callable[..., None], off: Any, traces: Recorder
) -> None:
    """With tracing off, `install()` replaces nothing, and the helpers give back what they were given."""
    own = subject.doors()
    installed(subject.integration)
    assert all(subject.doors()[name] is own[name] for name in own)
    async with subject.open(service):
        await subject.operate(7)
        for given, got in subject.by_hand():
            assert got is given
    assert traces.spans == []


async def test_switched_off_later(
    subject: Base, service: Service | None, installed: Callable[..., None], traces: Recorder
) -> None:
    """Tracing that is switched off under installed patches leaves everything working, and no span."""
    installed(subject.integration)
    async with subject.open(service):
        before = await subject.operate(7)
        await traces.wait_for(lambda _: len(of(subject, traces)) >= subject.spans)
        traces.clear()
        tracer.enabled = False
        try:
            assert await subject.operate(7) == before
        finally:
            tracer.enabled = True
    assert traces.spans == []
