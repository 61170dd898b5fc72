"""A request, and the task that served it, are freed when it ends, without the garbage collector; whatever it did."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
import uvloop
from ddtrace.trace import tracer

from asynctrace import SpanContext, atraced, attached, current_span, detached, isolated, span, spawn
from asynctrace._core.handover import handover
from asynctrace.anyio import traced_stream
from asynctrace.queues import TracedQueue

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


request_variable: contextvars.ContextVar[Request] = contextvars.ContextVar("request_variable")
"""As frameworks have it: the task's context holds the request, and so does whoever holds that context."""


class Request:
    """What a request's handler holds."""


class World:
    """What is there before the request, and after it."""

    def __init__(self) -> None:
        self.queue: TracedQueue[int] = TracedQueue()
        self.over = asyncio.Event()
        self.left: list[Any] = []

    async def background(self) -> None:
        await self.over.wait()
        with span("late"):
            pass


Handler = Callable[[Request, World], Awaitable[None]]

HANDLERS: dict[str, Handler] = {}


def handler(function: Handler) -> Handler:
    HANDLERS[function.__name__] = function
    return function


@atraced(capture=("request",))
async def decorated(request: Request) -> None:
    with span("inner", tags={"request": 1}):
        await asyncio.sleep(0)


@atraced
async def items(request: Request) -> AsyncIterator[int]:
    for number in range(3):
        yield number


@atraced
def plain_items(request: Request) -> Iterator[int]:
    yield from range(3)


async def items_with_a_span(request: Request) -> AsyncIterator[int]:
    with span("items"):
        for number in range(3):
            yield number


@handler
async def calls(request: Request, world: World) -> None:
    await decorated(request)
    with tracer.trace("theirs"):
        await decorated(request)


@handler
async def gathers(request: Request, world: World) -> None:
    await asyncio.gather(decorated(request), asyncio.create_task(decorated(request)))
    await asyncio.wait_for(decorated(request), 10)


@handler
async def is_outlived_by_tasks(request: Request, world: World) -> None:
    world.left += [asyncio.create_task(world.background()), spawn(world.background())]
    world.left.append(spawn(world.background(), relation="link"))


@handler
async def opens_a_connection(request: Request, world: World) -> None:
    async def connect() -> asyncio.Task[None]:
        return asyncio.create_task(world.background())

    world.left.append(await isolated(connect()))
    with detached():
        world.left.append(asyncio.create_task(world.background()))


@handler
async def produces(request: Request, world: World) -> None:
    await world.queue.put(1)
    await world.queue.put(2)


@handler
async def consumes(request: Request, world: World) -> None:
    queue: TracedQueue[Any] = TracedQueue()
    for _ in range(4):
        queue.put_nowait(request)
    await queue.get()
    await asyncio.wait_for(queue.get(), 10)
    async with queue.processing("item") as item:
        assert item is request
    del item
    async with queue.batch(1, "batch"):
        pass


@handler
async def streams(request: Request, world: World) -> None:
    send, receive = traced_stream(anyio.create_memory_object_stream[Request](2))
    with send, receive:
        await send.send(request)
        assert await receive.receive() is request


@handler
async def leaves_generators(request: Request, world: World) -> None:
    for make in (items, items_with_a_span):
        async for _ in make(request):
            pass
        held = make(request)
        async for _ in held:
            break
        await held.aclose()  # type: ignore[attr-defined]
    for _ in plain_items(request):
        break


@handler
async def works_in_threads(request: Request, world: World) -> None:
    def work() -> None:
        with span("work"):
            pass

    await asyncio.to_thread(work)
    await asyncio.get_running_loop().run_in_executor(None, work)


@handler
async def calls_back_later(request: Request, world: World) -> None:
    world.left.append(asyncio.get_running_loop().call_later(3600, print))


@handler
async def passes_its_context_on(request: Request, world: World) -> None:
    world.left.append(SpanContext.current())
    with attached(world.left[-1]), span("inner"):
        pass


@handler
async def is_looked_at(request: Request, world: World) -> None:
    current = current_span()
    assert current is not None
    current.set_tag("request", request)
    assert tracer.current_span() is not None


@handler
async def fails(request: Request, world: World) -> None:
    with pytest.raises(KeyError), span("inner"):
        raise KeyError(request)


@handler
async def is_cancelled(request: Request, world: World) -> None:
    task = asyncio.create_task(asyncio.wait_for(world.background(), 10))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def served(handle: Handler) -> list[Any]:
    """What is left of a request and its task, while all it has started lives on."""
    world = World()
    refs: list[weakref.ref[Any]] = []

    async def serve(request: Request) -> None:
        refs.append(weakref.ref(request))
        with span("request"):
            await handle(request, world)
            request_variable.set(request)  # not before: what was started has a copy of the context to itself

    task = asyncio.create_task(serve(Request()))
    refs.append(weakref.ref(task))
    await task
    del task
    await asyncio.sleep(0)
    handover.finish()  # its trace has left
    alive = [ref() for ref in refs if ref() is not None]
    world.over.set()
    for left in world.left:
        if isinstance(left, asyncio.Task):
            await left
        elif isinstance(left, asyncio.TimerHandle):
            left.cancel()
    return alive


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("handle", HANDLERS)
def test_freed_when_it_ends(handle: str, loop: str) -> None:
    """Though what it has started, put into queues and passed on is still there."""
    running = LOOPS[loop]()
    running.run_until_complete(
        served(HANDLERS[handle])
    )  # caches are filled, and functions met, the first time
    gc.collect()
    gc.disable()
    try:
        assert running.run_until_complete(served(HANDLERS[handle])) == []
    finally:
        gc.enable()
        running.run_until_complete(running.shutdown_default_executor())
        running.close()
