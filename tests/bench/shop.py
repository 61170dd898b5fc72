"""What `demos/shop.py` and `demos/pricing.py` do, without the pauses, and traced by anyone."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from typing import TYPE_CHECKING, Any

import aio_pika
import aiohttp
import asyncpg
from aiohttp import web

from demos.tables import TABLES
from tests.bench.rows.databases import database, holes

if TYPE_CHECKING:
    from tests.bench.kits import Kit


class Shop:
    """Both services, with the queue that orders are published to, which nobody reads."""

    def __init__(self, kit: Kit) -> None:
        self.traced_item, self.traced_cart = kit.traced(self.price_item), kit.traced(self.price_cart)
        self.traced_quote = kit.traced(self.quote)
        self.schema = f"asynctrace_bench_{uuid.uuid4().hex[:12]}"

    async def open(self) -> None:
        holes()
        connection = await asyncpg.connect(database().url)
        await connection.execute(TABLES.format(schema=self.schema))
        await connection.close()
        self.pool: Any = await asyncpg.create_pool(
            database().url, min_size=2, max_size=4, server_settings={"search_path": self.schema}
        )
        self.broker = await aio_pika.connect_robust(os.environ["ASYNCTRACE_AMQP_URL"])
        channel = await self.broker.channel()
        queue = await channel.declare_queue(
            f"asynctrace-bench-{uuid.uuid4().hex}", exclusive=True, arguments={"x-max-length": 100}
        )
        self.exchange, self.queue = channel.default_exchange, queue.name

    async def call(self, port: int) -> None:
        """Where prices are."""
        self.prices = aiohttp.ClientSession(f"http://127.0.0.1:{port}")

    async def close(self) -> None:
        await self.prices.close()
        await self.broker.close()
        await self.pool.execute(f"DROP SCHEMA {self.schema} CASCADE")
        await self.pool.close()

    async def price_item(self, item: str) -> None:
        await asyncio.sleep(0)

    async def price_cart(self, items: list[str]) -> int:
        await asyncio.gather(*map(self.traced_item, items))
        async with self.prices.get("/quote", params=[("item", item) for item in items]) as reply:
            return int((await reply.json())["total"])

    async def quote(self, request: web.Request) -> web.Response:
        items = request.query.getall("item", [])
        total = await self.pool.fetchval(
            "SELECT coalesce(sum(price), 0) FROM items WHERE name = ANY($1)", items
        )
        return web.json_response({"total": total})

    async def create_order(self, request: web.Request) -> web.Response:
        order = await request.json()
        limit = await self.pool.fetchval("SELECT credit FROM customers WHERE name = $1", order["customer"])
        total = await self.traced_cart(order["items"])
        await self.pool.execute(
            "INSERT INTO orders (customer, total, credit) VALUES ($1, $2, $3)",
            order["customer"],
            total,
            limit,
        )
        message = aio_pika.Message(json.dumps(order | {"total": total}).encode())
        await self.exchange.publish(message, routing_key=self.queue)
        return web.json_response({"total": total}, status=201)

    def applications(self) -> tuple[web.Application, web.Application]:
        """Pricing, and where orders are placed."""
        pricing, orders = web.Application(), web.Application()
        pricing.router.add_get("/quote", self.traced_quote)
        orders.router.add_post("/orders", self.create_order)
        return pricing, orders
