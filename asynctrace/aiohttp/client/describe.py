"""What a span of the client says: names and tags of ddtrace's own integration."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarl import URL

from asynctrace._core.span import Span
from asynctrace._core.values import PORT, Fit, fit, text
from asynctrace.aiohttp.client.settings import settings
from asynctrace.aiohttp.switch import SEND
from asynctrace.aiohttp.url import told

ATTEMPT = "aiohttp.attempt"
"""One request of a call that has client middlewares, which may send several."""

STATUS = "http.status_code"
REASON = "http.status_msg"

REDIRECTS = "http.client.redirects"
"""How many redirects a call has followed."""

ATTEMPTS = "http.client.attempts"
"""How many requests a call has sent, where that is not one: redirects and whatever was sent again."""

RESEND = "http.request.resend_count"
"""Which request of a call this is, counted from 0; OpenTelemetry's name."""


@lru_cache(maxsize=1000)
def _towards(method: str, host: str | None, port: int | None) -> Fit:
    """The tags of every request of this kind that goes there."""
    tags: dict[str, Any] = {
        "component": "aiohttp_client",
        "span.kind": "client",
        "http.method": method,
        "out.host": host or "",
        "server.address": host or "",
    }
    if port is not None:
        tags[PORT] = port
    return Fit(fit(*one) for one in tags.items())


Described = tuple[str, "str | None", Fit]
"""Resource, host and tags."""


@lru_cache(maxsize=500)
def _described(method: str, url: URL) -> Described:
    """Programs ask the same of the same again and again. Resource: as ddtrace has it for other clients."""
    tags = Fit(_towards(method, url.host, url.port))
    tags["http.url"] = text(told(str(url), settings.tell_query))
    return text(f"{method} {url.path}"), url.host, tags


@lru_cache(maxsize=500)
def _asked(method: str, url: str, base: URL | None) -> Described:
    """The same, found without a URL being made."""
    return _described(method.upper(), _joined(URL(url), base))


def _joined(url: URL, base: URL | None) -> URL:
    return url if base is None or url.absolute else base.join(url)


def describe_request(name: str, method: str, url: URL) -> Span:
    """The (unopened) span of a request sent."""
    return _span(name, *_described(method, url))


def _span(name: str, resource: str, host: str | None, tags: Fit) -> Span:
    return Span(name, None, resource, host if settings.split_by_domain else settings.service, "http", tags)


def describe_call(session: Any, method: str, url: Any, params: Any) -> Span:
    """The (unopened) span of a call: what `session.request(method, url, params=params)` was asked."""
    base = getattr(session, "_base_url", None)
    if type(url) is str and not params:
        return _span(SEND, *_asked(method, url, base))
    url = _joined(URL(url), base)
    return describe_request(SEND, method.upper(), url.update_query(params) if params else url)


@lru_cache(maxsize=100)
def describe_answer(status: int, reason: str | None) -> Fit:
    """The tags of an answer with this status line."""
    tags = Fit({STATUS: str(status)})  # text, as Datadog's search wants it
    if reason:
        tags[REASON] = text(reason)
    return tags
