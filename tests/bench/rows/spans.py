"""Blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bench.rows import LOT, Row, below_root

if TYPE_CHECKING:
    from tests.bench.kits import Kit
    from tests.bench.rows import Operations

TAGS: dict[str, Any] = {
    "shop.cart": "c-1041",
    "shop.items": 3,
    "shop.total": 17.25,
    "shop.gift": True,
    "user": "u-7",
}


class Tags(Row):
    """span with 5 tags"""

    note = "2 of text, 2 numbers, a bool; given at the start where the library takes them there"

    def bare(self, kit: Kit) -> Operations:
        async def lot() -> None:
            for _ in range(LOT):
                pass

        return below_root(kit, lot)

    def ddtrace(self, kit: Kit) -> Operations:
        trace = kit.span

        async def lot() -> None:
            for _ in range(LOT):
                with trace("work") as span:
                    span.set_tags(TAGS)

        return below_root(kit, lot)

    def opentelemetry(self, kit: Kit) -> Operations:
        start: Any = kit.span

        async def lot() -> None:
            for _ in range(LOT):
                with start("work", attributes=TAGS):
                    pass

        return below_root(kit, lot)

    def asynctrace(self, kit: Kit) -> Operations:
        span: Any = kit.span

        async def lot() -> None:
            for _ in range(LOT):
                with span("work", tags=TAGS):
                    pass

        return below_root(kit, lot)


class SampledOut(Row):
    """span, sampled out"""

    note = f"{LOT} below a root that is dropped by hand as it begins; OpenTelemetry's sampler decides before the root"

    def dropped(self, kit: Kit) -> Operations:
        span = kit.span

        async def operations(count: int) -> None:
            for _ in range(count // LOT):
                with span("root") as root:
                    root.set_tag("manual.drop")
                    for _ in range(LOT):
                        with span("work"):
                            pass

        return operations

    def bare(self, kit: Kit) -> Operations:
        async def lot() -> None:
            for _ in range(LOT):
                pass

        return below_root(kit, lot)

    def ddtrace(self, kit: Kit) -> Operations:
        return self.dropped(kit)

    def opentelemetry(self, kit: Kit) -> str:
        return "no drop"

    def asynctrace(self, kit: Kit) -> Operations:
        return self.dropped(kit)


class Off(Row):
    """span, tracing off"""

    note = "the block alone; OpenTelemetry's is that of its no-op tracer"

    def bare(self, kit: Kit) -> Operations:
        async def operations(count: int) -> None:
            for _ in range(count):
                pass

        return operations

    def everyone(self, kit: Kit) -> Operations:
        async def operations(count: int) -> None:
            with kit.off() as span:
                for _ in range(count):
                    with span("work"):
                        pass

        return operations


ROWS = (Tags, SampledOut, Off)
