"""What can be asked of this integration: an argument of `install()` first, else the environment."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from asynctrace._core.naming import integration_service, is_true, service_source
from asynctrace._core.tracer import sql_commenter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("asynctrace")

SERVICE = "postgres"
"""ddtrace's default service for the spans of a PostgreSQL."""

ACQUIRE_MS = 1.0
"""Default of `ASYNCTRACE_ASYNCPG_ACQUIRE_MS`: a wait of so many ms for a pooled connection is a span."""


class Settings:
    """Read when the integration is installed: nothing is looked up while queries run."""

    on = False  # false again after `uninstall`, for patches that somebody else's patch holds in place
    acquire_ms = ACQUIRE_MS
    transactions = False
    arguments = False
    service: str | None = SERVICE
    service_tags: Mapping[str, str] = {}  # who named it
    commented: Callable[[str], str] | None = None  # Database Monitoring's comment, where that is on

    def read(self) -> None:
        """The environment's."""
        self.acquire_ms = _milliseconds("ASYNCTRACE_ASYNCPG_ACQUIRE_MS", ACQUIRE_MS)
        self.transactions = is_true(os.environ.get("ASYNCTRACE_ASYNCPG_TRANSACTIONS", ""))
        self.arguments = is_true(os.environ.get("ASYNCTRACE_ASYNCPG_ARGUMENTS", ""))
        self.service = integration_service("asyncpg", SERVICE)
        self.service_tags = service_source("asyncpg", self.service, SERVICE)
        self.commented = sql_commenter()

    def change(self, acquire_ms: float | None, transactions: bool | None, arguments: bool | None) -> None:
        """Take over what was given."""
        if acquire_ms is not None:
            self.acquire_ms = max(float(acquire_ms), 0.0)
        if transactions is not None:
            self.transactions = transactions
        if arguments is not None:
            self.arguments = arguments


settings = Settings()


def _milliseconds(name: str, default: float) -> float:
    setting = os.environ.get(name, "")
    try:
        return max(float(setting), 0.0) if setting else default
    except ValueError:
        log.warning("%s is not a number: %r; %s ms it is", name, setting, default)
        return default
