"""Work that is not awaited where it is started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.bench.rows import LOT, Row, below_root

if TYPE_CHECKING:
    from tests.bench.kits import Kit
    from tests.bench.rows import Operations


class Spawn(Row):
    """spawn"""

    note = "an empty coroutine as a task of the trace, no span; the others' is asyncio.create_task"

    def everyone(self, kit: Kit) -> Operations:
        return self._with(kit, asyncio.create_task)

    def asynctrace(self, kit: Kit) -> Operations:
        from asynctrace import spawn

        return self._with(kit, spawn)

    @staticmethod
    def _with(kit: Kit, start: Any) -> Operations:
        async def work() -> None: ...

        async def lot() -> None:
            for task in [start(work()) for _ in range(LOT)]:
                await task

        return below_root(kit, lot)


ROWS = (Spawn,)
