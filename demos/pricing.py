"""pricing: GET /quote?item=tea&item=milk answers with the sum, from its own table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from asynctrace import atraced, traced_app
from demos.environment import database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POOL = web.AppKey[Any]("pool")


@atraced
async def quote(request: web.Request) -> web.Response:
    items = request.query.getall("item", [])
    total = await request.app[POOL].fetchval(
        "SELECT coalesce(sum(price), 0) FROM items WHERE name = ANY($1)", items
    )
    return web.json_response({"total": total})


async def resources(app: web.Application) -> AsyncIterator[None]:
    async with database() as pool:
        app[POOL] = pool
        yield


@traced_app
def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(resources)
    app.router.add_get("/quote", quote)
    return app
