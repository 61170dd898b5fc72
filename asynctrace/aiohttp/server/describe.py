"""A request served: name, resource, tags, as ddtrace's aiohttp integration has them (trace_utils.py, set_http_meta)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asynctrace._core.values import MEASURED, Fit, text
from asynctrace.aiohttp.header_tags import tags_from
from asynctrace.aiohttp.server.client_ip import client_ip
from asynctrace.aiohttp.server.headers import REFERRER
from asynctrace.aiohttp.url import told

if TYPE_CHECKING:
    from asynctrace._core.span import Span
    from asynctrace.aiohttp.server.headers import Known
    from asynctrace.aiohttp.server.options import Options

STATUS = "http.status_code"
ROUTE = "http.route"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"})
"""Methods that resources name; a scanner makes up others."""

OTHER = "_OTHER"
"""Those others, by OpenTelemetry's name for them."""

TORN = 1006
"""The close code of a WebSocket that ended without being closed."""


def route_of(request: Any) -> str | None:
    """The route's template; None where none matched, or a router of the user's own has no such thing."""
    route = getattr(request.match_info, "route", None)
    template = getattr(getattr(route, "resource", None), "canonical", None)
    return template if isinstance(template, str) else None


@lru_cache(maxsize=1000)
def described_route(method: str, template: str | None) -> tuple[str, Fit]:
    """Resource and tags of every such request. Of those without a route, the resource goes on with the status."""
    name = method if method in METHODS else OTHER
    tags = Fit({"component": "aiohttp", "span.kind": "server", MEASURED: 1, "http.method": text(method)})
    if template is None:
        return name, tags
    tags[ROUTE] = text(template)
    return text(f"{name} {template}"), tags


def describe_request(request: Any, options: Options, known: Known) -> tuple[str, Fit]:
    """Resource and tags of this one."""
    resource, common = described_route(request.method, route_of(request))
    tags, headers = Fit(common), request.headers
    tags["http.url"] = text(told(url_of(request), options.query))
    for name, tag in known.tags:
        tags[tag] = text(headers[name])
    if known.refers and (host := _host_in(headers[REFERRER])):
        tags["http.referrer_hostname"] = text(host)
    if options.headers.request:
        tags.update(tags_from(headers, options.headers.request))
    if options.client_ip:
        _say_client(tags, request, options)
    return resource, tags


@lru_cache(maxsize=100)
def described_status(status: int) -> Fit:
    """The tag of a response's status: text, as Datadog's search wants it."""
    return Fit({STATUS: str(int(status))})


def url_of(request: Any) -> str:
    """What was asked for. Without a Host header by the socket's name: aiohttp would ask the resolver, and wait."""
    path: str = request.raw_path
    if not path.startswith("/") and "://" in path:
        return path
    host = request.headers.get("Host")
    if host is None:
        name = request.transport and request.transport.get_extra_info("sockname")
        host = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
    return f"{request.scheme}://{host}{path}"


def _host_in(referrer: str) -> str | None:
    try:
        return urlsplit(referrer).hostname
    except ValueError:
        return None


def _say_client(tags: Fit, request: Any, options: Options) -> None:
    peer = request.remote
    if (address := client_ip(request.headers, peer, options.client_ip_header)) is not None:
        tags["http.client_ip"] = text(address)
    if peer:
        tags["network.client.ip"] = text(peer)


def describe_closing(span: Span, response: Any) -> int | None:
    """A WebSocket, over: its close code; None of what is no WebSocket of aiohttp's."""
    if not hasattr(response, "close_code"):
        return None
    code = int(response.close_code or TORN)
    span.set_tag("http.upgraded", "websocket")
    span.set_tag("websocket.close.code", code)
    return code
