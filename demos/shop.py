"""shop: POST /orders {"customer": "ann", "items": ["tea", "milk"]}.

Prices the cart item by item, side by side; asks `pricing` for the sum; stores the order; publishes it for `worker`.
Nothing in here carries a trace: the factory is wrapped, two functions are decorated, that is all.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aio_pika
import aiohttp
import asyncpg
from aiohttp import web

from asynctrace import atraced, trace_id, traced_app
from demos.environment import AMQP_URL, PRICING_URL, QUEUE, database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POOL = web.AppKey[Any]("pool")
PRICING = web.AppKey("pricing", aiohttp.ClientSession)
CHANNEL = web.AppKey[Any]("channel")

SLOW_ITEM = "saffron"
ITEM_SECONDS, SLOW_ITEM_SECONDS = 0.01, 0.06


@atraced(capture=("item",))
async def price_item(item: str) -> None:
    """Looks the item's taxes up somewhere slow."""
    await asyncio.sleep(SLOW_ITEM_SECONDS if item == SLOW_ITEM else ITEM_SECONDS)


@atraced
async def price_cart(app: web.Application, items: list[str]) -> int:
    await asyncio.gather(*map(price_item, items))
    async with app[PRICING].get("/quote", params=[("item", item) for item in items]) as reply:
        return int((await reply.json())["total"])


async def publish(app: web.Application, order: dict[str, Any]) -> None:
    message = aio_pika.Message(json.dumps(order).encode())
    await app[CHANNEL].default_exchange.publish(message, routing_key=QUEUE)


async def create_order(request: web.Request) -> web.Response:
    app, order = request.app, await request.json()
    limit = await app[POOL].fetchval("SELECT credit FROM customers WHERE name = $1", order["customer"])
    total = await price_cart(app, order["items"])
    order |= {"total": total, "limit": limit, "state": "accepted"}
    try:
        await app[POOL].execute(
            "INSERT INTO orders (customer, total, credit) VALUES ($1, $2, $3)",
            order["customer"],
            total,
            limit,
        )
    except asyncpg.CheckViolationError:  # more than the customer may spend
        await publish(app, order | {"state": "refused"})
        raise
    await publish(app, order)
    return web.json_response({"total": total, "trace": trace_id()}, status=201)


async def resources(app: web.Application) -> AsyncIterator[None]:
    async with (
        database() as pool,
        aiohttp.ClientSession(PRICING_URL) as session,
        await aio_pika.connect_robust(AMQP_URL) as connection,
    ):
        app[POOL], app[PRICING], app[CHANNEL] = pool, session, await connection.channel()
        yield


@traced_app
def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(resources)
    app.router.add_post("/orders", create_order)
    return app
