"""A message in hand: its span, from delivery to the end of its handling, whichever way it was received."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from time import time_ns
from typing import TYPE_CHECKING, Any

from asynctrace._core.context import ROOT
from asynctrace._core.off import OFF
from asynctrace._core.outcome import DISCONNECTED
from asynctrace._core.span import Span
from asynctrace._core.tracer import tracer
from asynctrace.aio_pika.describe import PROCESS, describe_delivery
from asynctrace.aio_pika.headers import read_context
from asynctrace.aio_pika.switch import LINK, settings

if TYPE_CHECKING:
    from contextvars import Token

    from asynctrace._core.context import SpanContext
    from asynctrace.aio_pika.describe import Place
    from asynctrace.aio_pika.switch import Relation

log = logging.getLogger("asynctrace")

SETTLED = "messaging.settle"
"""How the message was settled: ack, nack or reject."""

SETTLED_MS = "messaging.settle_ms"
"""When, in ms from the beginning of its handling."""

REQUEUED = "messaging.requeue"
"""Whether a nacked or rejected message was to go back to its queue."""

current: ContextVar[Handling | None] = ContextVar("asynctrace_message", default=None)
"""The message that is handled here; tasks started meanwhile inherit it. It is known by its id, and not held."""


class Handling:
    """One message in hand: made current where it is handled, begun when it is there."""

    __slots__ = ("_began_ns", "_key", "_token", "span")

    in_loop = False
    """Whether it is handled by the body of a loop: an exception that leaves that is not seen to do so."""

    def __init__(self) -> None:
        self.span: Span = OFF
        self._key: tuple[object, ...] = ()
        before = current.get()
        if before is not None and not before.is_mine():
            current.set(None)  # the Token is to hold on to nobody else's
        self._token: Token[Handling | None] = current.set(self)

    def begin(self, message: Any, queue: Place | None, relation: Relation, came_ns: int = 0) -> None:
        """Here it is, and was in this process since `came_ns` (ns since the epoch)."""
        try:
            self._key, self._began_ns = _key(message), time_ns()
            if not tracer.enabled:
                return
            context = context_of(message, queue)
            parent = ROOT if relation is LINK else context
            resource, tags = describe_delivery(message, queue, came_ns, self._began_ns)
            span = self.span = Span(PROCESS, parent, resource, None, "worker", tags)
            self._open()
            if relation is LINK:
                span.link(context)
        except Exception:
            log.debug("a message is handled untraced", exc_info=True)

    def _open(self) -> None:
        self.span.open()

    def fail(self, exc: BaseException) -> None:
        """An exception leaves the handling."""
        if not self.is_open:
            return
        if isinstance(exc, asyncio.CancelledError) and _by_the_broker(exc):
            self.span.set_outcome(DISCONNECTED)
        else:
            self.span.set_error(exc)

    def end(self) -> None:
        """It is over. May be called anywhere, and again."""
        self.span.finish()
        self._leave()

    def _leave(self) -> None:
        if current.get() is self:
            try:
                current.reset(self._token)
            except (ValueError, RuntimeError):  # it ends in another context than it began in
                pass

    def settled(self, how: str, requeue: bool | None) -> None:
        """The message was acknowledged, or given back, by whoever."""
        if not self.is_open:
            return
        set_tag = self.span.set_tag
        set_tag(SETTLED, how)
        set_tag(SETTLED_MS, (time_ns() - self._began_ns) / 1e6)
        if requeue is not None:
            set_tag(REQUEUED, "true" if requeue else "false")

    def concerns(self, message: Any) -> bool:
        """Whether it is this message that is in hand."""
        return self._key == _key(message)

    @property
    def is_open(self) -> bool:
        """It has begun, and is not over."""
        return self.span is not OFF and not self.span.ended_ns

    def is_mine(self) -> bool:
        """Whether the context that asks is the one it was made current in, and no copy of that."""
        try:
            current.reset(self._token)
        except (ValueError, RuntimeError):
            return False
        self._token = current.set(self)
        return True


def _key(message: Any) -> tuple[object, ...]:
    """What a message is known by; ids are used again, of messages that are gone."""
    return id(message), message.delivery_tag, message.consumer_tag


def _by_the_broker(exc: asyncio.CancelledError) -> bool:
    """Whether channel or connection went away: aiormq cancels handlers with the error that has closed theirs.

    The one of a channel that was closed on this side has no reply code.
    """
    reason = exc.args[0] if exc.args else None
    return isinstance(reason, Exception) and reason.args[:1] != (None,)


def context_of(message: Any, queue: Place | None) -> SpanContext:
    """Where the message was published; nowhere where propagation is off."""
    if not settings.propagates_from(None if queue is None else queue.name, message.exchange or ""):
        return ROOT
    return read_context(message.headers)


def in_hand(message: Any) -> Handling | None:
    """The handling of this message, if that is what is done here; it may have ended."""
    handling = current.get()
    return handling if handling is not None and handling.concerns(message) else None
