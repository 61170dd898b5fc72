"""Functions under a decorator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.bench.rows import LOT, Row, below_root

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.bench.kits import Kit
    from tests.bench.rows import Operations


class Coroutine(Row):
    """decorated coroutine"""

    note = f"empty, {LOT} one after the other below a root; a {LOT}th of the root is in it"

    def everyone(self, kit: Kit) -> Operations:
        async def work() -> None: ...

        work = kit.traced(work)

        async def lot() -> None:
            for _ in range(LOT):
                await work()

        return below_root(kit, lot)


class Deep(Row):
    """10 deep"""

    note = "10 decorated coroutines, each awaited by the one before; the first is the root"
    lot = 1

    def everyone(self, kit: Kit) -> Operations:
        async def level(below: int) -> None:
            if below:
                await level(below - 1)

        level = kit.traced(level)

        async def operations(count: int) -> None:
            for _ in range(count):
                await level(9)

        return operations


class Gather(Row):
    """gather of 100"""

    note = "100 decorated coroutines, a task each, that yield to the loop once; and their root"
    lot = 1

    def everyone(self, kit: Kit) -> Operations:
        async def work() -> None:
            await asyncio.sleep(0)

        work = kit.traced(work)

        async def operations(count: int) -> None:
            for _ in range(count):
                with kit.span("root"):
                    await asyncio.gather(*[work() for _ in range(100)])

        return operations


class Generator(Row):
    """async generator item"""

    note = f"a decorated async generator of {LOT} items; a {LOT}th of its span and of the root is in each"

    def everyone(self, kit: Kit) -> Operations:
        async def numbers() -> AsyncIterator[int]:
            for number in range(LOT):
                yield number

        return self._consumed(kit, kit.traced(numbers))

    def opentelemetry(self, kit: Kit) -> Operations:
        # its decorator takes an async generator function for a plain one: the span ends before the first item
        async def numbers() -> AsyncIterator[int]:
            with kit.span("numbers"):
                for number in range(LOT):
                    yield number

        return self._consumed(kit, numbers)

    @staticmethod
    def _consumed(kit: Kit, numbers: Callable[[], AsyncIterator[int]]) -> Operations:
        async def lot() -> None:
            async for _ in numbers():
                pass

        return below_root(kit, lot)


ROWS = (Coroutine, Deep, Gather, Generator)
