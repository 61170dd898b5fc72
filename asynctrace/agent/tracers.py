"""What tracers call: every answer is a success, and comes before anything is decoded.

ddtrace retries an answer of 4xx or 5xx six times over three seconds and then loses the trace, and reports an
empty body as an error: so traces are always answered with 200 and JSON, and what cannot be used is counted.
"""

import json
import zlib
from typing import Any

from aiohttp import web

from asynctrace.agent.address import is_strange_page
from asynctrace.agent.forward import Forwarder
from asynctrace.agent.inflate import inflater
from asynctrace.agent.intake import OTLP, Intake, Payload
from asynctrace.agent.store import MIB, Counters

MAX_BODY = 32 * MIB  # ddtrace's own cap is 20 MiB
_MAX_READING = 128 * MIB  # bytes of bodies that are still arriving, all of them together
_MAX_TELEMETRY = MIB
_VERSIONS = ("v0.3", "v0.4", "v0.5")
_KEEP_EVERYTHING = json.dumps({"rate_by_service": {"service:,env:": 1}}).encode()
_OTLP_PATH = "/v1/traces"


class Tracers:
    """The handlers, by path in `add_routes`.

    Args:
        intake: where bodies of traces go.
        counters: what happened to them.
        version: asynctrace's, for `/info`.
        api: the path of the read API, for `/info`.
        loopback_only: take nothing from pages of other names, see `asynctrace.agent.address`.
        forwarder: what else gets the bodies.
    """

    def __init__(
        self, intake: Intake, counters: Counters, *, version: str, api: str, loopback_only: bool,
        forwarder: Forwarder | None = None,
    ) -> None:  # fmt: skip
        self._intake = intake
        self._counters = counters
        self._version = version
        self._api = api
        self._loopback_only = loopback_only
        self._forwarder = forwarder
        self._reading = 0
        self.last_start: dict[str, Any] = {}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Everything a tracer may ask; the last route takes what no other does."""
        for protocol in _VERSIONS:
            router.add_route("PUT", f"/{protocol}/traces", self.traces)
            router.add_route("POST", f"/{protocol}/traces", self.traces)
        router.add_route("POST", _OTLP_PATH, self.otlp)
        router.add_route("POST", "/telemetry/proxy/api/v2/apmtelemetry", self.telemetry)
        router.add_route("*", "/info", self.info)
        router.add_route("*", "/{anything:.*}", self.anything)

    async def traces(self, request: web.Request) -> web.Response:
        """Traces in Datadog's protocol."""
        body = await self._take(request, request.path.split("/", 2)[1])
        answer = await self._forward(request, body)
        return web.Response(body=answer or _KEEP_EVERYTHING, content_type="application/json")

    async def otlp(self, request: web.Request) -> web.Response:
        """OpenTelemetry's. An empty protobuf is its success, `{}` that of JSON."""
        await self._take(request, OTLP)
        if "json" in request.content_type:
            return web.json_response({})
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def info(self, _request: web.Request) -> web.Response:
        """What this agent can do."""
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
                "asynctrace": {"version": self._version, "api": self._api},
            }
        )

    async def telemetry(self, request: web.Request) -> web.Response:
        """A tracer's word on itself; the last one that started is kept."""
        body = await self._read(request)
        if body is not None and len(body) <= _MAX_TELEMETRY and not self._is_stranger(request):
            self.last_start = _app_started(body) or self.last_start
        await self._forward(request, body)
        return web.json_response({})

    async def anything(self, request: web.Request) -> web.Response:
        """Whatever else: stats, remote configuration, versions of the protocol to come."""
        body = await self._read(request)
        if request.path.endswith("/traces") and request.method in ("PUT", "POST"):
            self._counters.add(payloads=1, bad_payloads=1)  # a version of the protocol we do not know
        await self._forward(request, body)
        return web.json_response({})

    async def _take(self, request: web.Request, version: str) -> bytes | None:
        """Hands a body of traces on to be decoded; None when there is nothing to be handed on."""
        if self._is_stranger(request):
            self._counters.add(payloads=1, dropped_payloads=1)
            return None
        body = await self._read(request)
        if body is None:
            self._counters.add(payloads=1, bad_payloads=1)
        else:
            self._intake.put(Payload(version, body, is_json="json" in request.content_type))
        return body

    async def _forward(self, request: web.Request, body: bytes | None) -> bytes | None:
        if self._forwarder is None or body is None or self._is_stranger(request):
            return None
        return await self._forwarder.send(request.method, request.path_qs, request.headers, body)

    async def _read(self, request: web.Request) -> bytes | None:
        """The body, inflated; None when it is too large, or not what its headers say, or too many arrive at once."""
        parts: list[bytes] = []
        size = 0
        inflate = inflater(request.headers.get("Content-Encoding", ""))
        try:
            async for piece in request.content.iter_any():
                part = inflate(piece, MAX_BODY - size + 1)
                size += len(part)
                self._reading += len(part)
                if size > MAX_BODY or self._reading > _MAX_READING:
                    return None
                parts.append(part)
        except (web.HTTPException, web.RequestPayloadError, OSError, zlib.error):
            return None
        finally:
            self._reading -= size
        return b"".join(parts)

    def _is_stranger(self, request: web.Request) -> bool:
        return is_strange_page(request.headers, loopback_only=self._loopback_only)


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
