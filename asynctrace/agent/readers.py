"""What people and their tools call: the read API, for requests from this machine's own pages and programs only.

    GET  /traces?limit=100&q=error:true        summaries, the newest first
    GET  /traces/ID, /traces/last              one trace with its spans
    GET  /traces/ID/columns, /analysis         what the page draws
    GET  /traces/ID/spans/SPAN                 one span, with links both ways
    GET  /traces/ID/search?q=...               which spans a filter means
    GET  /traces/ID/export?format=perfetto     a file: json, speedscope, perfetto
    POST /import                               a file of format json, back
    GET  /events?q=...                         the list, live
    GET  /counters, /telemetry                 what arrived; how the last tracer that started is configured

All of it below `/asynctrace/v1`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from asynctrace.agent import feed
from asynctrace.agent.address import is_stranger
from asynctrace.agent.export import FORMATS
from asynctrace.agent.glance import Glances
from asynctrace.agent.page_data import TraceView, Views
from asynctrace.agent.protocol import Chunk
from asynctrace.agent.query import QueryError, parse
from asynctrace.agent.spans import LOW_64, LOW_128, Link, Trace
from asynctrace.agent.store import MIB, TraceNotFoundError, TraceStore
from asynctrace.agent.wire import from_map

API = "/asynctrace/v1"
MAX_IMPORT = 256 * MIB
_NOT_FOUND, _CONFLICT = 404, 409
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Readers:
    """The handlers, by path in `add_routes`.

    Args:
        store: what they read.
        telemetry: gives what the last tracer that started said of itself.
        loopback_only: answer to the names of this machine only, see `asynctrace.agent.address`.
    """

    def __init__(
        self, store: TraceStore, telemetry: Callable[[], dict[str, Any]], *, loopback_only: bool
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._loopback_only = loopback_only
        self._views = Views(store)
        self._glances = Glances(store)
        self.closing = asyncio.Event()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The whole read API."""
        for path, handler in {
            "/traces": self.traces,
            "/traces/{id}": self.trace,
            "/traces/{id}/columns": self.columns,
            "/traces/{id}/analysis": self.analysis,
            "/traces/{id}/spans/{span}": self.span,
            "/traces/{id}/search": self.search,
            "/traces/{id}/export": self.export,
            "/events": self.events,
            "/counters": self.counters,
            "/telemetry": self.telemetry,
        }.items():
            router.add_get(API + path, self._guarded(handler))
        router.add_post(f"{API}/import", self._guarded(self.take_back))
        router.add_route("*", "/asynctrace/{unknown:.*}", self._guarded(self.unknown))

    def _guarded(self, handler: Handler) -> Handler:
        """The handler, for requests from here only, with what is wrong told in JSON."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if is_stranger(request.headers, loopback_only=self._loopback_only):
                return _error("this API answers to pages of its own only", 403)
            try:
                return await handler(request)
            except TraceNotFoundError as error:
                status = _CONFLICT if error.candidates else _NOT_FOUND
                return _error(str(error), status, candidates=error.candidates[:10])
            except (QueryError, ValueError) as error:
                return _error(str(error), 400)

        return answer

    async def traces(self, request: web.Request) -> web.Response:
        """The list, or what a filter leaves of it."""
        text = request.query.get("limit", "100")
        if not (text.isascii() and text.isdecimal()):
            raise ValueError("limit is not a number")
        limit, query = int(text[:9]), parse(request.query.get("q", ""))

        def build() -> dict[str, Any]:
            found = feed.matching(self._store, query, limit)
            return {"traces": [one.to_json() for one in found], "total": len(self._store)}

        return await _answer(build)

    async def trace(self, request: web.Request) -> web.Response:
        """One trace, all of it."""
        return await _answer(lambda: self._find(request).to_json())

    async def columns(self, request: web.Request) -> web.Response:
        """See `TraceView.columns`."""
        return await _answer(lambda: self._view(request).columns())

    async def analysis(self, request: web.Request) -> web.Response:
        """See `TraceView.analysis`."""
        return await _answer(lambda: self._view(request).analysis())

    async def span(self, request: web.Request) -> web.Response:
        """One span; `links` lead from it, `linked_from` to it."""
        text = request.match_info["span"]
        if not (text.isascii() and text.isdecimal()):
            raise ValueError("a span id is a decimal number")

        def build() -> dict[str, Any]:
            view = self._view(request)
            found = view.by_id.get(int(text))
            if found is None:
                raise TraceNotFoundError(f"no span {text} in trace {view.trace.id}")
            back = [
                {"trace_id": f"{one:032x}", "span_id": str(span_id)}
                for one, span_id, to in self._store.links_to(view.trace.trace_id)
                if to == found.span_id
            ]
            return {**found.to_json(), "linked_from": back}

        return await _answer(build)

    async def search(self, request: web.Request) -> web.Response:
        """The ids of the spans that a filter means; every span for an empty one."""
        query = parse(request.query.get("q", ""))
        return await _answer(
            lambda: {"spans": [str(span.span_id) for span in query.find(self._view(request).trace.spans)]}
        )

    async def export(self, request: web.Request) -> web.Response:
        """The trace as a file."""
        name = request.query.get("format", "json")
        if name not in FORMATS:
            raise ValueError(f"format is one of {', '.join(FORMATS)}")

        def build() -> tuple[Trace, str]:
            trace = self._find(request)
            return trace, json.dumps(FORMATS[name](trace))

        trace, text = await asyncio.to_thread(build)
        file = f"trace-{trace.id}{'' if name == 'json' else '.' + name}.json"
        return web.Response(
            text=text,
            content_type="application/json",
            headers={"Content-Disposition": f'attachment; filename="{file}"'},
        )

    async def take_back(self, request: web.Request) -> web.Response:
        """Traces from a file that `export` or `asynctrace show --json` wrote, or a list of such."""
        body = bytearray()
        async for part in request.content.iter_any():
            body += part
            if len(body) > MAX_IMPORT:
                raise ValueError(f"the file is larger than {MAX_IMPORT // MIB} MB")

        def build() -> dict[str, Any]:
            chunks = _chunks_of(bytes(body))
            self._store.add(chunks)
            return {"traces": [f"{(chunk.high or 0) << 64 | chunk.low:032x}" for chunk in chunks]}

        return await _answer(build)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The list as server-sent events; see `feed`."""
        return await feed.stream(
            request, self._store, self._glances, parse(request.query.get("q", "")), self.closing
        )

    async def counters(self, _request: web.Request) -> web.Response:
        """What arrived, what was dropped, and how much is held."""
        return web.json_response(feed.counted(self._store))

    async def telemetry(self, _request: web.Request) -> web.Response:
        """How the last tracer that started is configured."""
        return web.json_response(self._telemetry())

    async def unknown(self, request: web.Request) -> web.Response:
        """Whatever else is asked below our own paths: no tracer asks there."""
        return _error(f"there is no {request.method} {request.path}", _NOT_FOUND)

    def _find(self, request: web.Request) -> Trace:
        return self._store.find(request.match_info["id"])

    def _view(self, request: web.Request) -> TraceView:
        return self._views.find(request.match_info["id"])


def _chunks_of(body: bytes) -> list[Chunk]:
    """What a file holds, each value brought into its form: it may be from anywhere."""
    try:
        found = json.loads(body)
        listed = found if isinstance(found, list) else found.get("traces", [found])
        return [_chunk(one) for one in listed]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise ValueError("this is no trace that asynctrace wrote") from None


def _chunk(data: dict[str, Any]) -> Chunk:
    trace_id = int(data["trace_id"], 16) & LOW_128
    spans = []
    for row in data["spans"]:
        span = from_map({**row, "trace_id": trace_id & LOW_64})
        span.links = tuple(Link.from_json(link) for link in row.get("links") or ())
        spans.append(span)
    return Chunk(trace_id & LOW_64, trace_id >> 64 or None, spans)


def _error(text: str, status: int, **more: Any) -> web.Response:
    return web.json_response({"error": text, **more}, status=status)


async def _answer(build: Callable[[], Any]) -> web.Response:
    """JSON that may be large, made in a thread: a tracer must not wait for a reader."""
    body = await asyncio.to_thread(lambda: msgspec.json.encode(build()))
    return web.Response(body=body, content_type="application/json")
