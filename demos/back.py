"""back: /greeting tells what reached it: the trace's headers, the length of the body, the connection's other end."""

from __future__ import annotations

from aiohttp import web

from asynctrace import atraced, traced_app

TRACE_HEADERS = ("x-datadog-", "traceparent", "tracestate")


@atraced
async def greet(request: web.Request) -> web.Response:
    peer = request.transport and request.transport.get_extra_info("peername")
    return web.json_response(
        {
            "headers": {
                name.lower(): value
                for name, value in request.headers.items()
                if name.lower().startswith(TRACE_HEADERS)
            },
            "body": len(await request.read()),
            "connection": peer and peer[1],
        }
    )


@traced_app
def make_app() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/greeting", greet)
    return app
