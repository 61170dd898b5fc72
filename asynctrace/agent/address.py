"""Who may talk to the agent: the rules that keep a web page away from traces, which hold SQL and more.

A page in the user's browser can send requests to 127.0.0.1, and with a name of its own that resolves to it
(DNS rebinding) read the answers too. Both show in headers that a page cannot choose: `Host` has the page's
name, `Origin` and `Sec-Fetch-Site` say where the page is from.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a name or address, without a port, means this machine only."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The name in a `Host` header, without the port: `"[::1]:8126"` gives `"::1"`."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_stranger(headers: Mapping[str, str], *, loopback_only: bool) -> bool:
    """Whether a request comes from a web page that is not the agent's own.

    Args:
        headers: the request's.
        loopback_only: the agent listens on this machine only, so its name must be one of this machine. When
            it listens to others, under names it cannot know, only the origin is looked at.
    """
    host = headers.get("Host", "")
    if loopback_only and not is_loopback(host_of(host)):
        return True
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("Origin")
    return origin is not None and netloc_of(origin) != host.lower()


def is_strange_page(headers: Mapping[str, str], *, loopback_only: bool) -> bool:
    """As `is_stranger`, for what tracers post: they may know the agent by any name, that of a container or a cluster.

    No page can pass for one: whatever a browser posts has an `Origin` (https://fetch.spec.whatwg.org/#origin-header).
    """
    from_page = "Origin" in headers or "Sec-Fetch-Site" in headers
    return from_page and is_stranger(headers, loopback_only=loopback_only)


def netloc_of(origin: str) -> str:
    """Name and port of an origin, `""` for `null` and for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
