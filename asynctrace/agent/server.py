"""The HTTP face of the agent, put together: the page, the read API, and what tracers call.

/                       the page, with its files below /asynctrace/page
/asynctrace/v1/...      the read API: see `readers`
anything else           tracers: see `tracers`
"""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from asynctrace.agent.readers import API, Readers
from asynctrace.agent.tracers import Tracers

PAGE = "/asynctrace/page"
FILES = Path(__file__).parent / "page"
# The page may load and call what is here, and nothing else; what is in a trace can run nowhere in it.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(tracers: Tracers, readers: Readers) -> web.Application:
    """The agent's application."""
    app = web.Application(middlewares=[_never_fail])
    app.router.add_get("/", _index)
    app.router.add_static(PAGE, FILES)
    readers.add_routes(app.router)
    tracers.add_routes(app.router)
    app.on_response_prepare.append(_protect)
    return app


async def _index(_request: web.Request) -> web.StreamResponse:
    return web.FileResponse(FILES / "index.html")


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    if request.path == "/" or request.path.startswith("/asynctrace/"):
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
    if request.path.startswith(PAGE) and request.path.endswith(".js"):
        response.content_type = (
            "text/javascript"  # whatever the system's table says: browsers are strict with modules
        )


@web.middleware
async def _never_fail(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if request.path.startswith("/asynctrace/"):
            return web.json_response({"error": error.reason}, status=error.status)
        return web.json_response({})
    except Exception:
        log.exception("%s %s", request.method, request.path)
        if request.path.startswith(API):
            return web.json_response({"error": "the agent failed, see its log"}, status=500)
        return web.json_response({})
