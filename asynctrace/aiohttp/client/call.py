"""A call: one request as its caller sees it, from its start to the end of the answer's body.

Its span is what is active while aiohttp's own code runs, and middlewares, hooks, resolvers and uploads of the user's
in it. With the answer's headers that is over: what the caller does until it has read the body is the caller's. The
span goes on until the connection is given back: the body has been read, released, or dropped.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrace._core.outcome import ERROR
from asynctrace._core.outgoing import write
from asynctrace._core.provider import provider
from asynctrace._core.tags import tag
from asynctrace._core.tracer import tracer
from asynctrace._core.values import text
from asynctrace.aiohttp.client.body import tell_outcome
from asynctrace.aiohttp.client.describe import ATTEMPTS, REDIRECTS, describe_answer
from asynctrace.aiohttp.client.settings import settings
from asynctrace.aiohttp.client.waits import BODY, Waits
from asynctrace.aiohttp.header_tags import tags_from

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asynctrace._core.span import Span
    from asynctrace._core.values import Fit
    from asynctrace.aiohttp.header_tags import Wanted

    Response = TypeVar("Response")

log = logging.getLogger("asynctrace")

SWITCHED = 101
"""The status of an answer after which the connection is a WebSocket: what follows is no body."""


class Call:
    """One call, or (`attempts.py`) one request of those that its middlewares send."""

    __slots__ = ("_answer", "_content", "over", "sent", "span", "waits")

    def __init__(self, span: Span) -> None:
        self.span = span.open(activate=tracer.context_provider is provider)
        self.waits = Waits()
        self.sent = 0
        self.over = False
        self._answer: Fit | None = None  # its tags, once it is there
        self._content: Any = None

    def goes_out(self, headers: Any) -> None:
        """A request is about to be sent: its headers, which are aiohttp's own copy, name this call."""
        if self.sent:
            self.waits.enter(None)
        self.sent += 1
        self.write(headers)
        if settings.headers.request:
            self._tag_headers(headers, settings.headers.request)

    def write(self, headers: Any) -> None:
        """Put the trace headers of this call into these, which are nobody's."""
        if settings.propagates:
            write(self.span, headers)

    def answered(self, response: Any) -> None:
        """The answer's headers are there, and the caller has them."""
        status: int = response.status
        self.waits.enter(None if status == SWITCHED else BODY)
        self.span.step_aside()
        try:
            self._record_status(status, response.reason, response.history)
            if settings.headers.response:
                self._tag_headers(response.headers, settings.headers.response)
            if status == SWITCHED:
                self.end()
                return
            connection = response.connection
            if connection is None:  # the body has come with the headers
                self.end()
                return
            # not the response itself: it holds the connection, and is to be freed when its caller lets go of it
            self._content = response.content
            connection.add_callback(self._body_over)
        except Exception:
            log.debug("the end of a body can't be told", exc_info=True)
            self.end()

    def failed(self, exc: BaseException) -> None:
        """There is no answer: `exc` says why."""
        self.span.step_aside()
        try:
            status = getattr(exc, "status", None)  # of an answer that aiohttp was asked to raise
            if isinstance(status, int) and status:
                message = getattr(exc, "message", None)  # of an exception of the user's anything
                self._record_status(int(status), message and text(message), getattr(exc, "history", ()))
            self.span.set_error(exc)
        except Exception:
            log.debug("the outcome of a call could not be told", exc_info=True)
        self.end()

    def _record_status(self, status: int, reason: str | None, history: Any) -> None:
        self._answer = describe_answer(status, reason)
        if history:
            self.span.set_tag(REDIRECTS, len(history))
        if status in settings.errors:
            self.span.set_outcome(ERROR)

    def _tag_headers(self, headers: Any, wanted: Wanted) -> None:
        for key, value in tags_from(headers, wanted).items():
            self.span.set_tag(key, value)

    def _body_over(self) -> None:
        content, self._content = self._content, None
        try:
            tell_outcome(self.span, content)
        except Exception:
            log.debug("the outcome of a body could not be told", exc_info=True)
        self.end()

    def end(self) -> None:
        """Nothing more comes."""
        self.over = True
        self.waits.enter(None)
        tags = self.waits.figures
        if self._answer is not None:
            tags.update(self._answer)
        tag(self.span, tags)
        if self.sent > 1:
            self.span.set_tag(ATTEMPTS, self.sent)
        self.span.finish()


calling: ContextVar[Call | None] = ContextVar("asynctrace.aiohttp.call", default=None)
"""The call whose requests are being sent here: `connections.py` writes its headers, and tells it of its waits."""


async def made(call: Call, running: Awaitable[Response]) -> Response:
    """What aiohttp does for this call."""
    before = calling.get()
    calling.set(call)
    try:
        response = await running
    except BaseException as exc:
        calling.set(before)
        call.failed(exc)
        raise
    calling.set(before)
    call.answered(response)
    return response
