"""A request served: name, resource, tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrace._core.naming import entry_service
from asynctrace._core.values import MEASURED
from asynctrace.aiohttp.switch import SERVE

if TYPE_CHECKING:
    from asynctrace._core.api import Description


def describe_request(request: Any, service: str | None) -> Description:
    """A request served. Resource: method and route, so that there are as many as there are routes."""
    route = getattr(getattr(request.match_info, "route", None), "resource", None)
    template = getattr(route, "canonical", None)
    tags: dict[str, Any] = {
        "component": "aiohttp",
        MEASURED: 1,
        "http.method": request.method,
        "http.url": str(request.url.with_query(None).with_fragment(None).with_user(None)),
    }
    if template is not None:
        tags["http.route"] = template
    if agent := request.headers.get("User-Agent"):
        tags["http.useragent"] = agent
    return {
        "name": SERVE,
        "resource": f"{request.method} {template}" if template is not None else request.method,
        "service": service or entry_service("aiohttp-web"),
        "type": "web",
        "kind": "server",
        "tags": tags,
    }
