"""A whole request of the shop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.bench.rows.databases import instrumented as queries_instrumented
from tests.bench.rows.http import Served, Wire, by_ddtrace, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from tests.bench.kits import Kit
    from tests.bench.rows import Operations
    from tests.bench.shop import Shop

BODY = json.dumps({"customer": "ann", "items": ["tea", "milk"]}).encode()
REQUEST = b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Order(Served):
    """a shop's request"""

    note = (
        "HTTP in, 3 queries, an HTTP call to another service in the same process, 4 functions, a message out"
    )
    server = "rabbitmq"

    shop: Shop | None = None

    def operations(self, kit: Kit, trace: Callable[[web.Application], object]) -> Operations:
        wire: Wire | None = None

        async def operations(count: int) -> None:
            nonlocal wire
            if wire is None:
                from tests.bench.shop import Shop  # not above: `--help` needs no environment

                shop = self.shop = Shop(kit)
                await shop.open()
                pricing, orders = shop.applications()
                trace(pricing), trace(orders)
                await shop.call(await self.serve(pricing))
                wire = await Wire.to(await self.serve(orders))
            for _ in range(count):
                await wire.ask(REQUEST)

        return operations

    def ddtrace(self, kit: Kit) -> Operations | str:
        import ddtrace

        ddtrace.patch(asyncpg=True)
        return self.operations(kit, by_ddtrace)

    def opentelemetry(self, kit: Kit) -> Operations | str:
        if absent := instrumented():
            return absent
        try:
            from opentelemetry.instrumentation.aio_pika import AioPikaInstrumentor
        except ImportError:
            return "no instrumentation installed"
        queries_instrumented()
        AioPikaInstrumentor().instrument()
        return self.bare(kit)

    async def close(self) -> None:
        if self.shop is not None:
            await self.shop.close()
        await super().close()


ROWS = (Order,)
