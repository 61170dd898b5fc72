"""What is measured: a row is an operation, written once for everyone or once a contender.

    class Insert(Row):
        "insert a row"                     # the title
        note = "what a reader must know to compare it"

        def everyone(self, kit):           # or bare(), ddtrace(), opentelemetry(), asynctrace()
            async def operations(count):
                for _ in range(count):
                    with kit.span("insert"): ...
            return operations

Instead of a function, a word why there is none. What is made outside `operations` is made once and not measured.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.kits import Kit

Operations = Callable[[int], Awaitable["int | None"]]
"""Does so many; may give the figure itself (ns), where that is not the time it took."""

SERVERS = {"rabbitmq": "ASYNCTRACE_AMQP_URL", "postgres": "ASYNCTRACE_POSTGRES_URL"}
"""What rows may ask for, and the variable with its URL."""

GROUPS = ("functions", "spans", "queues", "tasks", "blocks", "messages", "databases", "http", "order")
"""The files of this folder, in the order of the table."""

LOT = 50
"""So many operations share a root span, as in a request: a fiftieth of it is in each of them."""


class Row:
    """One line of the table; its docstring is its title, its class's name the word for `--rows`."""

    note = ""
    server = ""  # rabbitmq or postgres: found or started, its URL in the environment as `SERVERS` says
    lot = LOT  # operations are done in multiples of this

    def everyone(self, kit: Kit) -> Operations | str:
        raise NotImplementedError

    def bare(self, kit: Kit) -> Operations | str:
        return self.everyone(kit)

    def ddtrace(self, kit: Kit) -> Operations | str:
        return self.everyone(kit)

    def opentelemetry(self, kit: Kit) -> Operations | str:
        return self.everyone(kit)

    def asynctrace(self, kit: Kit) -> Operations | str:
        return self.everyone(kit)

    def of(self, contender: str, kit: Kit) -> Operations | str:
        """What that contender does."""
        chosen: Callable[[Kit], Operations | str] = getattr(
            self, "asynctrace" if contender == "other" else contender
        )
        return chosen(kit)

    async def close(self) -> None:
        """At the end: whatever was opened for it."""

    @property
    def key(self) -> str:
        return type(self).__name__.lower()

    @property
    def title(self) -> str:
        return (type(self).__doc__ or self.key).strip()


def below_root(kit: Kit, lot: Callable[[], Awaitable[None]]) -> Operations:
    """`lot`, which does `LOT` operations, below a root span each time."""

    async def operations(count: int) -> None:
        for _ in range(count // LOT):
            with kit.span("root"):
                await lot()

    return operations


def all_rows() -> dict[str, Row]:
    """Every row of every group, by key."""
    modules = [importlib.import_module(f"{__name__}.{group}") for group in GROUPS]
    rows: list[Row] = [kind() for module in modules for kind in module.ROWS]
    return {row.key: row for row in rows}
