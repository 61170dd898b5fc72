"""A request sent: name, resource, tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrace.aiohttp.switch import SEND

if TYPE_CHECKING:
    from asynctrace._core.api import Description


def describe_call(method: str, url: Any) -> Description:
    """A request sent."""
    tags: dict[str, Any] = {
        "component": "aiohttp_client",
        "http.method": method,
        "http.url": str(url.with_query(None).with_fragment(None).with_user(None)),
        "out.host": url.host or "",
        "server.address": url.host or "",
    }
    if url.port is not None:
        tags["network.destination.port"] = url.port
    return {"name": SEND, "resource": f"{method} {url.path}", "type": "http", "kind": "client", "tags": tags}
