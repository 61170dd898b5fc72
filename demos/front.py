"""front: /greeting passes the request on to `back`, wherever that is, and the answer back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from asynctrace import traced_app
from demos.environment import BACK_URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BACK = web.AppKey("back", aiohttp.ClientSession)


async def pass_on(request: web.Request) -> web.Response:
    body = request.content if request.can_read_body else None
    async with request.app[BACK].request(request.method, "/greeting", data=body) as reply:
        return web.Response(body=await reply.read(), status=reply.status, content_type=reply.content_type)


async def resources(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(BACK_URL) as session:
        app[BACK] = session
        yield


@traced_app
def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(resources)
    app.router.add_route("*", "/greeting", pass_on)
    return app
