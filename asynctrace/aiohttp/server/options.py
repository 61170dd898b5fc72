"""What can be asked of the server's side: an argument first, then Datadog's settings, then the environment's.

Read when requests begin to be traced, never while they are served.
"""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from asynctrace._core.naming import entry_service, is_on, is_true
from asynctrace._core.tracer import setting
from asynctrace.aiohttp.header_tags import HeaderTags, header_tags
from asynctrace.aiohttp.statuses import error_statuses
from asynctrace.aiohttp.url import query_teller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TRUST = "ASYNCTRACE_AIOHTTP_TRUST_HEADERS"
"""Whether a request belongs to the trace in its headers (the default), or begins one of its own, linked to that."""

UNTRACED = "ASYNCTRACE_AIOHTTP_UNTRACED"
"""Paths without spans, with a comma between; `*` stands for anything: `/health,/internal/*`."""

MESSAGES = "ASYNCTRACE_AIOHTTP_WEBSOCKET_MESSAGES"
"""Whether each message of a WebSocket has a span; `DD_TRACE_WEBSOCKET_MESSAGES_ENABLED` goes before."""

ERRORS = ("DD_TRACE_HTTP_SERVER_ERROR_STATUSES", "DD_HTTP_SERVER_ERROR_STATUSES")
"""Statuses that are errors: `500-599` (the default), `400,404,500-511`. The second is the other tracers' name."""


@dataclass(frozen=True)
class Options:
    """How an application's requests are traced."""

    service: str
    trusts: bool
    untraced: Callable[[str], object] | None
    messages: bool
    errors: frozenset[int]
    headers: HeaderTags
    query: Callable[[str], str]
    client_ip: bool
    client_ip_header: str | None

    def changed(
        self,
        service: str | None = None,
        trust_headers: bool | None = None,
        untraced: Iterable[str] | None = None,
        websocket_messages: bool | None = None,
    ) -> Options:
        """With what was given."""
        return replace(
            self,
            service=service or self.service,
            trusts=self.trusts if trust_headers is None else trust_headers,
            untraced=self.untraced if untraced is None else matcher(untraced),
            messages=self.messages if websocket_messages is None else websocket_messages,
        )


class Settings:
    """The options in force."""

    def __init__(self) -> None:
        self._options: Options | None = None

    def read(self) -> None:
        """The environment's."""
        self._options = _of_environment()

    def current(self) -> Options:
        """Those of `install()`; where nothing is installed, the environment's at the first look."""
        if self._options is None:
            self.read()
        assert self._options is not None
        return self._options

    def change(
        self, trust_headers: bool | None, untraced: Iterable[str] | None, websocket_messages: bool | None
    ) -> None:
        """Take over what was given, for the applications that start from now on."""
        self._options = self.current().changed(None, trust_headers, untraced, websocket_messages)


settings = Settings()


def _of_environment() -> Options:
    messages = os.environ.get("DD_TRACE_WEBSOCKET_MESSAGES_ENABLED") or os.environ.get(MESSAGES, "")
    return Options(
        service=entry_service("aiohttp-web"),
        trusts=is_on(TRUST),
        untraced=matcher(os.environ.get(UNTRACED, "").split(",")),
        messages=is_true(messages),
        errors=error_statuses(*ERRORS, default=str(setting("_http_server.error_statuses", "500-599"))),
        headers=header_tags(),
        query=query_teller("DD_HTTP_SERVER_TAG_QUERY_STRING"),
        client_ip=is_true(os.environ.get("DD_TRACE_CLIENT_IP_ENABLED", "")),
        client_ip_header=os.environ.get("DD_TRACE_CLIENT_IP_HEADER", "").strip().lower().replace("_", "-")
        or None,
    )


def matcher(patterns: Iterable[str]) -> Callable[[str], object] | None:
    """What tells whether a path is one of these; None where there are none."""
    if isinstance(patterns, str):
        patterns = (patterns,)
    wanted = [fnmatch.translate(pattern.strip()) for pattern in patterns if pattern.strip()]
    return re.compile("|".join(wanted)).match if wanted else None
