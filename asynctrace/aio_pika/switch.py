"""Whether messages are traced, and how: the patches, and what the environment says."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

from asynctrace._core.errors import UsageError
from asynctrace._core.naming import is_on
from asynctrace._core.tracer import tracer
from asynctrace._core.values import text
from asynctrace._patching import Patches

log = logging.getLogger("asynctrace")

Relation = Literal["child", "link"]

CHILD: Relation = "child"
LINK: Relation = "link"

RELATION = "ASYNCTRACE_AIO_PIKA_RELATION"
"""How a message's span belongs to the one that published it, where no argument says so: child (the default) or link."""

patches = Patches()


def traces() -> bool:
    """Whether to trace now: not while tracing is off, nor beside an integration of ddtrace's own."""
    return tracer.enabled and not getattr(sys.modules.get("aio_pika"), "_datadog_patch", False)


def installed() -> bool:
    """Whether the patches are on, and trace now."""
    return bool(patches) and traces()


def chosen(relation: str | None) -> Relation:
    """The relation that was asked for, or that of the environment."""
    if relation is None:
        return settings.relation
    if relation == CHILD:
        return CHILD
    if relation == LINK:
        return LINK
    raise UsageError(f"relation= cannot be {relation!r}", hint='"child" or "link"')


class Settings:
    """What the environment says. The names with DD_ are dd-trace-java's (TraceInstrumentationConfig.java)."""

    def __init__(self) -> None:
        said = os.environ.get(RELATION, CHILD).strip().lower()
        if said not in {CHILD, LINK}:
            log.warning("%s is neither child nor link: %r; child it is", RELATION, said)
        self.relation: Relation = LINK if said == LINK else CHILD
        self.propagates = is_on("DD_RABBIT_PROPAGATION_ENABLED")
        self.without_exchanges = _names("DD_RABBIT_PROPAGATION_DISABLED_EXCHANGES")
        self.without_queues = _names("DD_RABBIT_PROPAGATION_DISABLED_QUEUES")
        self._everywhere = self.propagates and not self.without_exchanges and not self.without_queues

    def propagates_to(self, exchange: str, routing_key: object) -> bool:
        """Whether a message published there takes its trace along. The default exchange routes by queue name."""
        if self._everywhere:
            return True
        if exchange:
            return self.propagates and exchange not in self.without_exchanges
        return self.propagates and text(routing_key) not in self.without_queues

    def propagates_from(self, queue: str | None, exchange: str) -> bool:
        """Whether a message from there belongs to the trace in its headers."""
        if self._everywhere:
            return True
        return self.propagates and queue not in self.without_queues and exchange not in self.without_exchanges


def _names(variable: str) -> frozenset[str]:
    return frozenset(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())


settings = Settings()
