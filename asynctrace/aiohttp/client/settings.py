"""What the environment says of requests sent: ddtrace's settings, read once, as ddtrace does."""

from __future__ import annotations

import os

from asynctrace._core.naming import integration_service, is_on, is_true
from asynctrace.aiohttp.header_tags import header_tags
from asynctrace.aiohttp.statuses import error_statuses
from asynctrace.aiohttp.url import query_teller

ERROR_STATUSES = "400-599"
"""The statuses of an answer that make its call an error.

The default of `DD_TRACE_HTTP_CLIENT_ERROR_STATUSES`, which other Datadog tracers have: 4xx, as there, and 5xx, as
ddtrace's clients have it.
"""


class Settings:
    """ddtrace/contrib/internal/aiohttp/patch.py, and the statuses that are errors."""

    def __init__(self) -> None:
        self.service = integration_service("aiohttp_client", None)
        self.split_by_domain = is_true(os.environ.get("DD_AIOHTTP_CLIENT_SPLIT_BY_DOMAIN", ""))
        self.propagates = is_on("DD_AIOHTTP_CLIENT_DISTRIBUTED_TRACING")
        self.errors = error_statuses("DD_TRACE_HTTP_CLIENT_ERROR_STATUSES", default=ERROR_STATUSES)
        self.tell_query = query_teller("DD_HTTP_CLIENT_TAG_QUERY_STRING")
        self.headers = header_tags()


settings = Settings()
