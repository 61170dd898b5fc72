"""One span a request, whatever the applications are made of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from asynctrace import UsageError, current_span, span, traced_app, uninstall
from asynctrace.aiohttp import trace_application
from tests.core.process import run
from tests.web.helpers import app_with, ask, hello, served

if TYPE_CHECKING:
    from asynctrace.testing import Recorder


def recording(seen: list[Any]) -> Any:
    @web.middleware
    async def record(request: web.Request, handler: Any) -> web.StreamResponse:
        found = current_span()
        seen.append(None if found is None else found.name)
        response: web.StreamResponse = await handler(request)
        return response

    return record


@pytest.mark.parametrize("kind", [tuple, list, iter])
async def test_middlewares_of_any_kind(traced: Any, traces: Recorder, kind: Any) -> None:
    """A tuple, a list that applications share, an iterator: the user's run inside the span, and a list stays theirs."""
    seen: list[Any] = []
    shared = [recording(seen)]
    apps = [app_with(hello, middlewares=kind(shared)) for _ in range(2)]
    for app in apps:
        await ask(await traced(app))
    await served(traces, 2)
    assert seen == ["aiohttp.request"] * 2
    assert len(shared) == 1


async def test_a_middleware_put_first_later_is_inside(traced: Any, traces: Recorder) -> None:
    """Ours is the first when the application starts, whatever was done meanwhile."""
    seen: list[Any] = []
    app = traced_app(app_with(hello))
    app.middlewares.insert(0, recording(seen))
    await ask(await traced(app))
    await served(traces)
    assert seen == ["aiohttp.request"]


async def test_sub_applications(installed: Any, serve: Any, traces: Recorder) -> None:
    """Nested, of a domain, traced by hand besides: one span, with the whole route."""
    installed("aiohttp")
    inner, middle, outer = app_with(hello, "/{name}"), web.Application(), web.Application()
    middle.add_subapp("/middle", trace_application(inner))
    outer.add_subapp("/outer", middle)
    outer.add_domain("shop.example", app_with(hello, "/domain"))
    server = await serve(traced_app(traced_app(outer)))
    assert (await ask(server, "/outer/middle/ann"))[0] == 200
    assert (await ask(server, "/domain", headers={"Host": "shop.example"}))[0] == 200
    assert (await ask(server, "/outer/middle/a/b"))[0] == 404
    resources = [one.resource for one in await served(traces, 3)]
    assert resources == ["GET /outer/middle/{name}", "GET /domain", "GET 404"]


async def test_a_traced_sub_application_alone(serve: Any, traces: Recorder) -> None:
    """What is traced by hand is traced within an application that is not."""
    outer = app_with(hello, "/plain")
    outer.add_subapp("/inner", trace_application(app_with(hello, "/{name}"), "inner"))
    server = await serve(outer)
    await ask(server, "/plain")
    await ask(server, "/inner/ann")
    [request] = await served(traces)
    assert (request.resource, request.service) == ("GET /inner/{name}", "inner")


async def test_several_applications(serve: Any, traces: Recorder) -> None:
    """Each has its own service; what was traced by hand keeps what it was given."""
    one = await serve(trace_application(app_with(hello), "one"))
    two = await serve(trace_application(app_with(hello), "two"))
    await ask(one)
    await ask(two)
    requests = await served(traces, 2)
    assert [one.service for one in requests] == ["one", "two"]
    assert [one.service for one in traces.spans if one.name == "work"] == ["one", "two"]


class Item(web.View):
    async def get(self) -> web.Response:
        with span("work"):
            return web.Response(text=self.request.match_info["number"])


async def test_views_static_files_and_routes_of_any_kind(
    traced: Any, traces: Recorder, tmp_path: Any
) -> None:
    """Class-based views, routes by pattern, static folders, any method: as many resources as there are routes."""
    (tmp_path / "a.txt").write_text("a")
    app = web.Application()
    app.router.add_view(r"/items/{number:\d+}", Item)
    app.router.add_static("/static", tmp_path)
    app.router.add_route("*", "/any/{tail:.*}", hello)
    server = await traced(app)
    assert await ask(server, "/items/7") == (200, b"7")
    assert await ask(server, "/static/a.txt") == (200, b"a")
    assert (await ask(server, "/any/a/b", "PROPFIND"))[0] == 200
    assert (await ask(server, "/items/7", "DELETE"))[0] == 405
    resources = [one.resource for one in await served(traces, 4)]
    assert resources == [
        r"GET /items/{number}",
        "GET /static",
        "_OTHER /any/{tail}",
        r"DELETE /items/{number}",
    ]


async def test_workers_belong_to_no_request(installed: Any, serve: Any, traces: Recorder) -> None:
    """What `on_startup` and `cleanup_ctx` start belongs neither to who started the application nor to a request."""
    installed("aiohttp")
    tasks: list[asyncio.Task[None]] = []
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        with span("job"):
            pass

    async def startup(_: web.Application) -> None:
        tasks.append(asyncio.create_task(work()))

    async def context(_: web.Application) -> Any:
        tasks.append(asyncio.create_task(work()))
        yield

    app = app_with(hello)
    app.on_startup.append(startup)
    app.cleanup_ctx.append(context)
    with span("request"):
        server = await serve(app)
        go.set()
        await asyncio.gather(*tasks)
    await ask(server)
    await served(traces)
    assert [one.parent_id for one in traces.spans if one.name == "job"] == [None, None]


BESIDE = """
import asyncio, warnings
warnings.simplefilter("ignore")  # its middleware is of the old style
import ddtrace
ddtrace.patch(aiohttp=True)
from aiohttp import web
from ddtrace.contrib.aiohttp import trace_app
from asynctrace.aiohttp import install, trace_application
from asynctrace.testing import Recorder
from tests.core.process import run
from tests.web.helpers import Server, app_with, ask, hello

async def main():
    install()
    app = app_with(hello)
    trace_app(app, service="theirs")
    trace_application(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with Recorder(send=False) as traces:
        await ask(Server(runner))
        await traces.wait_for("aiohttp.request")
    await runner.cleanup()
    print([one.service for one in traces.spans if one.name == "aiohttp.request"])

asyncio.run(main())
"""


def test_with_ddtraces_own_integration() -> None:
    """One span a request, not two: ddtrace's, where it has traced the application."""
    assert run(BESIDE, DD_TRACE_AGENT_URL="http://127.0.0.1:9") == "['theirs']"


async def test_uninstalled_is_untraced(installed: Any, serve: Any, traces: Recorder) -> None:
    """What was made under install() goes untraced after uninstall(), what was traced by hand does not."""
    installed("aiohttp")
    server = await serve(app_with(hello))
    other = await serve(trace_application(app_with(hello), "by hand"))
    uninstall()
    assert (await ask(server))[0] == (await ask(other))[0] == 200
    [request] = await served(traces)
    assert request.service == "by hand"
    assert not hasattr(web.Application.pre_freeze, "__wrapped__")


async def test_a_running_application_is_refused(serve: Any) -> None:
    """It takes no middleware any more, and the error says what to do."""
    app = app_with(hello)
    await serve(app)
    with pytest.raises(UsageError, match="already running"):
        trace_application(app)
