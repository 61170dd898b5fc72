"""Items on their way through an `asyncio.Queue`. Only asynctrace has queues: the others carry the context by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.bench.rows import LOT, Row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.bench.kits import Kit
    from tests.bench.rows import Operations


def lots(kit: Kit, put: Callable[[], Awaitable[None]], get: Callable[[], Awaitable[None]]) -> Operations:
    """`LOT` items put below a root span, then taken outside of it, by what has no span of its own."""

    async def operations(count: int) -> None:
        for _ in range(count // LOT):
            with kit.span("root"):
                await put()
            await get()

    return operations


class Handled(Row):
    """queue item, handled"""

    note = "put below a root, taken by what has no span of its own, a span around its handling; others carry by hand"

    def bare(self, kit: Kit) -> Operations:
        return self._plain(kit, asyncio.Queue())

    def asynctrace(self, kit: Kit) -> Operations:
        from asynctrace.queues import TracedQueue

        return self._plain(kit, TracedQueue())

    @staticmethod
    def _plain(kit: Kit, queue: asyncio.Queue[int]) -> Operations:
        start: Any = kit.span

        async def put() -> None:
            for number in range(LOT):
                await queue.put(number)

        async def get() -> None:
            for _ in range(LOT):
                await queue.get()
                with start("handle"):
                    pass

        return lots(kit, put, get)

    def ddtrace(self, kit: Kit) -> Operations:
        from ddtrace.trace import tracer

        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def put() -> None:
            for number in range(LOT):
                await queue.put((number, tracer.current_trace_context()))

        async def get() -> None:
            for _ in range(LOT):
                _, context = await queue.get()
                tracer.context_provider.activate(context)
                with tracer.trace("handle"):
                    pass
            tracer.context_provider.activate(None)

        return lots(kit, put, get)

    def opentelemetry(self, kit: Kit) -> Operations:
        from opentelemetry import context as contexts

        start: Any = kit.span
        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def put() -> None:
            for number in range(LOT):
                await queue.put((number, contexts.get_current()))

        async def get() -> None:
            for _ in range(LOT):
                _, context = await queue.get()
                token = contexts.attach(context)
                with start("handle"):
                    pass
                contexts.detach(token)

        return lots(kit, put, get)


class Queue(Row):
    """queue put + get"""

    note = "no span an item; ddtrace and OpenTelemetry by hand: (item, context) is put, the context activated"

    def bare(self, kit: Kit) -> Operations:
        return self._plain(kit, asyncio.Queue())

    def asynctrace(self, kit: Kit) -> Operations:
        from asynctrace.queues import TracedQueue

        return self._plain(kit, TracedQueue())

    @staticmethod
    def _plain(kit: Kit, queue: asyncio.Queue[int]) -> Operations:
        async def put() -> None:
            for number in range(LOT):
                await queue.put(number)

        async def get() -> None:
            for _ in range(LOT):
                await queue.get()

        return lots(kit, put, get)

    def ddtrace(self, kit: Kit) -> Operations:
        from ddtrace.trace import tracer

        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def put() -> None:
            for number in range(LOT):
                await queue.put((number, tracer.current_trace_context()))

        async def get() -> None:
            for _ in range(LOT):
                _, context = await queue.get()
                tracer.context_provider.activate(context)
            tracer.context_provider.activate(None)

        return lots(kit, put, get)

    def opentelemetry(self, kit: Kit) -> Operations:
        from opentelemetry import context as contexts

        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def put() -> None:
            for number in range(LOT):
                await queue.put((number, contexts.get_current()))

        async def get() -> None:
            for _ in range(LOT):
                _, context = await queue.get()
                contexts.detach(contexts.attach(context))

        return lots(kit, put, get)


class QueueFor(Row):
    """async for over a queue"""

    note = "put, and `async for` until the loop is left; work in its body belongs to the item's producer"

    def bare(self, kit: Kit) -> Operations:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def put() -> None:
            for number in range(LOT):
                await queue.put(number)

        async def get() -> None:
            while True:
                if await queue.get() == LOT - 1:
                    break

        return lots(kit, put, get)

    def ddtrace(self, kit: Kit) -> str:
        return "no queues"

    def opentelemetry(self, kit: Kit) -> str:
        return "no queues"

    def asynctrace(self, kit: Kit) -> Operations:
        from asynctrace.queues import TracedQueue

        queue: TracedQueue[int] = TracedQueue()

        async def put() -> None:
            for number in range(LOT):
                await queue.put(number)

        async def get() -> None:
            async for number in queue:
                if number == LOT - 1:
                    break

        return lots(kit, put, get)


ROWS = (Handled, Queue, QueueFor)
