"""The HTTP face of the agent: what tracers send comes in, and the read API under `/asynctrace/v1`.

    PUT, POST /v0.3/traces, /v0.4/traces, /v0.5/traces     taken, decoded later
    GET /info                                              what this agent can do
    anything else                                          200 and {}: a tracer must never be told off
    GET /asynctrace/v1/traces?limit=100                    summaries, the newest first
    GET /asynctrace/v1/traces/ID, .../traces/last          one trace with its spans
    GET /asynctrace/v1/counters                            what arrived, and what was dropped
    GET /asynctrace/v1/telemetry                           how the last tracer that started is configured

ddtrace retries an answer of 4xx or 5xx six times over three seconds and then loses the trace, and reports an
empty body as an error: so traces are always answered with 200 and JSON, and what cannot be used is counted.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from asynctrace.agent.address import is_stranger
from asynctrace.agent.intake import Intake, Payload
from asynctrace.agent.store import MIB, TraceNotFoundError, TraceStore

API = "/asynctrace/v1"
MAX_BODY = 32 * MIB  # ddtrace's own cap is 20 MiB
_MAX_TELEMETRY = MIB
_VERSIONS = ("v0.3", "v0.4", "v0.5")
_KEEP_EVERYTHING = {"rate_by_service": {"service:,env:": 1}}
log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(
    store: TraceStore, intake: Intake, *, version: str, loopback_only: bool = True
) -> web.Application:
    """The agent's application.

    Args:
        store: what the read API reads.
        intake: where bodies of traces go.
        version: asynctrace's, for `/info`.
        loopback_only: answer to the names of this machine only, see `asynctrace.agent.address`.
    """
    tracers = _Tracers(store, intake, version, loopback_only=loopback_only)
    readers = _Readers(store, tracers, loopback_only=loopback_only)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_never_fail])
    for protocol in _VERSIONS:
        app.router.add_route("PUT", f"/{protocol}/traces", tracers.traces)
        app.router.add_route("POST", f"/{protocol}/traces", tracers.traces)
    app.router.add_route("POST", "/telemetry/proxy/api/v2/apmtelemetry", tracers.telemetry)
    app.router.add_route("*", "/info", tracers.info)
    for path, handler in {
        "/traces": readers.traces,
        "/traces/{id}": readers.trace,
        "/counters": readers.counters,
        "/telemetry": readers.telemetry,
        "/{unknown:.*}": readers.unknown,
    }.items():
        app.router.add_get(API + path, readers.guarded(handler))
    app.router.add_route("*", "/{anything:.*}", tracers.anything)
    return app


@web.middleware
async def _never_fail(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        return web.json_response({})
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return web.json_response({})


async def _read(request: web.Request) -> bytes | None:
    """The body, inflated; None when it is too large, or not what its headers say."""
    try:
        return await request.read()
    except (web.HTTPException, web.RequestPayloadError, OSError):
        return None


class _Tracers:
    """What tracers call."""

    def __init__(self, store: TraceStore, intake: Intake, version: str, *, loopback_only: bool) -> None:
        self._store = store
        self._intake = intake
        self._loopback_only = loopback_only
        self._version = version
        self.last_start: dict[str, Any] = {}

    async def traces(self, request: web.Request) -> web.Response:
        if is_stranger(request.headers, loopback_only=self._loopback_only):
            # A tracer that knows us by another name must not be troubled; a page must not write here.
            self._store.counters.add(payloads=1, dropped_payloads=1)
            return web.json_response(_KEEP_EVERYTHING)
        body = await _read(request)
        if body is None:
            self._store.counters.add(payloads=1, bad_payloads=1)
        else:
            version = request.path.split("/", 2)[1]
            self._intake.put(Payload(version, body, is_json="json" in request.content_type))
        return web.json_response(_KEEP_EVERYTHING)

    async def info(self, _request: web.Request) -> web.Response:
        # Without a debugger endpoint ddtrace-run complains on stderr; with /v0.7/config it would poll.
        # client_drop_p0s makes a tracer keep sampled-out traces to itself: here they are shown, with a mark.
        traces = [f"/{version}/traces" for version in _VERSIONS]
        return web.json_response(
            {
                "version": f"asynctrace {self._version}",
                "endpoints": [*traces, "/v0.6/stats", "/telemetry/proxy/", "/debugger/v2/input"],
                "client_drop_p0s": False,
                "span_events": True,
                "span_meta_structs": True,
                "asynctrace": {"version": self._version, "api": API},
            }
        )

    async def telemetry(self, request: web.Request) -> web.Response:
        body = await _read(request)
        if body is not None and len(body) <= _MAX_TELEMETRY:
            started = _app_started(body)
            if started is not None and not is_stranger(request.headers, loopback_only=self._loopback_only):
                self.last_start = started
        return web.json_response({})

    async def anything(self, request: web.Request) -> web.Response:
        await _read(request)
        if request.path.endswith("/traces") and request.method in ("PUT", "POST"):
            self._store.counters.add(payloads=1, bad_payloads=1)  # a version of the protocol we do not know
        return web.json_response({})


def _app_started(body: bytes) -> dict[str, Any] | None:
    """The app-started message in a telemetry body, alone or in a batch."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    if message.get("request_type") == "app-started":
        return message
    parts = message.get("payload")
    if message.get("request_type") == "message-batch" and isinstance(parts, list):
        for part in parts:
            if isinstance(part, dict) and part.get("request_type") == "app-started":
                return {**message, **part}
    return None


class _Readers:
    """What people and their tools call: the read API."""

    def __init__(self, store: TraceStore, tracers: _Tracers, *, loopback_only: bool) -> None:
        self._store = store
        self._tracers = tracers
        self._loopback_only = loopback_only

    def guarded(self, handler: Handler) -> Handler:
        """The handler, for requests from here only."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if is_stranger(request.headers, loopback_only=self._loopback_only):
                return web.json_response({"error": "this API answers to pages of its own only"}, status=403)
            return await handler(request)

        return answer

    async def traces(self, request: web.Request) -> web.Response:
        text = request.query.get("limit", "100")
        if not (text.isascii() and text.isdecimal()):
            return web.json_response({"error": "limit is not a number"}, status=400)
        limit = int(text[:9])
        return await _answer(
            lambda: {
                "traces": [trace.summary() for trace in self._store.traces(limit)],
                "total": len(self._store),
            }
        )

    async def trace(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        try:
            trace = self._store.last() if wanted == "last" else self._store.find(wanted)
        except TraceNotFoundError as error:
            found = {"error": str(error), "candidates": error.candidates[:10]}
            return web.json_response(found, status=409 if error.candidates else 404)
        if trace is None:
            return web.json_response({"error": "no trace has arrived yet", "candidates": []}, status=404)
        return await _answer(trace.to_json)

    async def counters(self, _request: web.Request) -> web.Response:
        counted = self._store.counters.snapshot()
        held = {
            "traces": len(self._store),
            "bytes": self._store.estimated_bytes,
            "max_bytes": self._store.max_bytes,
        }
        return web.json_response({**counted, "held": held})

    async def telemetry(self, _request: web.Request) -> web.Response:
        return web.json_response(self._tracers.last_start)

    async def unknown(self, request: web.Request) -> web.Response:
        return web.json_response({"error": f"there is no {request.path}"}, status=404)


async def _answer(build: Callable[[], Any]) -> web.Response:
    """JSON that may be large, made in a thread: a tracer must not wait for a reader."""
    text = await asyncio.to_thread(lambda: json.dumps(build()))
    return web.Response(text=text, content_type="application/json")
