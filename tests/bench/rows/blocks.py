"""How long the loop stands still at most, while the spans of a request end and its trace is handed over."""

from __future__ import annotations

import asyncio
from statistics import median
from time import thread_time_ns
from typing import TYPE_CHECKING, Any

from tests.bench.rows import Row

if TYPE_CHECKING:
    from tests.bench.kits import Kit
    from tests.bench.rows import Operations


def longest_block(kit: Kit, children: int) -> Operations:
    """Requests of so many children, each with a turn of the loop; the longest turn of each, the median of those."""
    start: Any = kit.span

    async def request() -> int:
        longest, begun = 0, thread_time_ns()
        with start("root"):
            for _ in range(children):
                with start("work"):
                    pass
                await asyncio.sleep(0)
                now = thread_time_ns()
                longest, begun = max(longest, now - begun), now
        return max(longest, thread_time_ns() - begun)

    async def operations(count: int) -> int:
        return int(median([await request() for _ in range(count // children)]))

    return operations


class Block300(Row):
    """longest block, 300"""

    note = "not per operation: the longest turn (us) of a request of 300 spans, one after the other"
    lot = 300

    def everyone(self, kit: Kit) -> Operations:
        return longest_block(kit, self.lot)


class Block10000(Row):
    """longest block, 10,000"""

    note = "the same of a request of 10,000 spans"
    lot = 10_000

    def everyone(self, kit: Kit) -> Operations:
        return longest_block(kit, self.lot)


ROWS = (Block300, Block10000)
