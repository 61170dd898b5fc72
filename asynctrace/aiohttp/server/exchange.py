"""A request and its response: one span, from the moment the application has it until the response has gone out.

The middleware begins it. It is over when aiohttp has written the response (`connections.py` sees that), or, where
that is not to be seen, when the middleware ends.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from asynctrace._core.cancel import SERVER_SHUTDOWN, SOURCE_TAG
from asynctrace._core.context import ROOT
from asynctrace._core.off import OFF
from asynctrace._core.outcome import CANCELLED, DISCONNECTED, ERROR
from asynctrace._core.span import Span
from asynctrace._core.tags import tag
from asynctrace.aiohttp.header_tags import tags_from
from asynctrace.aiohttp.server.describe import (
    ROUTE,
    TORN,
    describe_closing,
    describe_request,
    described_status,
)
from asynctrace.aiohttp.server.headers import context_in, known
from asynctrace.aiohttp.switch import SERVE

if TYPE_CHECKING:
    from asynctrace.aiohttp.server.options import Options

SWITCHING_PROTOCOLS = 101

log = logging.getLogger("asynctrace")


@functools.cache
def key() -> Any:
    """Where a request keeps its exchange: its own storage, which its clones share."""
    from aiohttp import web

    typed = getattr(web, "RequestKey", None)  # a plain string before aiohttp 3.14
    return "asynctrace.exchange" if typed is None else typed("asynctrace.exchange", Exchange)


def exchange_of(request: Any) -> Exchange | None:
    """The exchange that a request is part of."""
    try:
        exchange: Exchange = request[key()]
    except KeyError:
        return None
    return exchange


def _is_response(exc: object) -> bool:
    """Whether it is an HTTPException."""
    from aiohttp import web

    return issubclass(type(exc), web.HTTPException)


class Exchange:
    """One request and its response."""

    __slots__ = (
        "bare",
        "begun",
        "client_left",
        "failed",
        "message",
        "options",
        "sent_status",
        "span",
        "watched",
    )

    options: Options

    bare: str | None
    """The resource of a request without a route, which goes on with the status."""

    def __init__(self, *, watched: bool) -> None:
        self.span: Span = OFF
        self.watched = watched  # somebody sees the response out
        self.begun = False  # an application has it: those below leave it alone
        self.failed = False  # an exception has told the outcome
        self.client_left = False
        self.sent_status: int | None = None  # once the headers are out
        self.message: Span | None = None  # of a WebSocket, by option: the one in hand

    def begin(self, request: Any, options: Options) -> None:
        """The application has the request. Never raises."""
        try:
            names = known(tuple(request.headers))
            context = context_in(request.headers, names)
            resource, tags = describe_request(request, options, names)
            self.options, self.bare = options, None if ROUTE in tags else resource
            parent = context if options.trusts else ROOT
            self.span = Span(SERVE, parent, resource, options.service, "web", tags).open()
            if not options.trusts and context:
                self.span.link(context)
        except Exception:
            log.debug("a request is served untraced", exc_info=True)

    def headers_sent(self, response: Any) -> None:
        """They can't be taken back."""
        self.sent_status = response.status

    def raised(self, request: Any, exc: BaseException) -> None:
        """An exception leaves the application; an HTTPException is a response, whose status will tell."""
        if not self.failed and self.span is not OFF:
            try:
                self._judge(request, exc)
            except Exception:  # the user's is on its way
                log.debug("an exception could not be looked at", exc_info=True)

    def _judge(self, request: Any, exc: Any) -> None:
        kind = type(exc)  # an exception may lie about its class
        if _is_response(exc):
            if exc.status in self.options.errors:
                self._failed(exc)
        elif issubclass(kind, (ConnectionError, asyncio.CancelledError)) and self._is_client_gone(request):
            self.failed = True
            self.span.set_outcome(DISCONNECTED)
        else:
            self._failed(exc)
            if issubclass(kind, asyncio.CancelledError) and self._is_server_gone(request):
                self.span.set_tag(SOURCE_TAG, SERVER_SHUTDOWN)

    def _failed(self, exc: BaseException) -> None:
        self.failed = True
        self.span.set_error(exc)
        if self.message is not None:
            self.message.set_error(exc)

    def _is_client_gone(self, request: Any) -> bool:
        """Whether the connection is gone, and not by the server."""
        transport = request.transport
        if transport is None:
            return not self._is_server_gone(request)
        return transport.is_closing() is True  # a mocked one says anything

    def _is_server_gone(self, request: Any) -> bool:
        """Whether it is the server that closes the connection: it takes the transport away itself."""
        return self.watched and not self.client_left and request.transport is None

    def answered(self, request: Any, response: Any, *, cut_short: bool = False) -> None:
        """The response is out, or as much of it as the client has taken: that is the end."""
        if self.span is not OFF:
            try:
                self._say(request, response, cut_short)
            except Exception:
                log.debug("a response could not be described", exc_info=True)
            self._end()

    def _say(self, request: Any, response: Any, cut_short: bool) -> None:
        status: int = response.status
        self._say_status(status)
        if status == SWITCHING_PROTOCOLS and (code := describe_closing(self.span, response)) is not None:
            cut_short = code == TORN and self._is_client_gone(request)
        if not self.failed:
            if cut_short:
                self._cut_short(request)
            elif status in self.options.errors:
                self.span.set_outcome(ERROR)
        if self.options.headers.response:
            for name, value in tags_from(response.headers, self.options.headers.response).items():
                self.span.set_tag(name, value)

    def _cut_short(self, request: Any) -> None:
        if self._is_server_gone(request):
            self.span.set_outcome(CANCELLED)
            self.span.set_tag(SOURCE_TAG, SERVER_SHUTDOWN)
        else:
            self.span.set_outcome(DISCONNECTED)

    def _say_status(self, status: int) -> None:
        tag(self.span, described_status(status))
        if self.bare is not None and self.span.resource == self.bare:
            self.span.resource = f"{self.bare} {status}"

    def abandoned(self, request: Any, exc: BaseException) -> None:
        """There will be no response, or not all of it."""
        if self.span is not OFF:
            self.raised(request, exc)
            if self.sent_status is not None:
                self._say_status(self.sent_status)
            self._end()

    def unwatched(self, request: Any, exc: BaseException) -> None:
        """An exception has left the application, and nobody will see what aiohttp makes of it."""
        if _is_response(exc):
            self.answered(request, exc)
            return
        if self.sent_status is None and issubclass(type(exc), Exception):
            is_timeout = issubclass(type(exc), asyncio.TimeoutError)
            self.sent_status = 504 if is_timeout else 500  # aiohttp/web_protocol.py, _handle_request
        self.abandoned(request, exc)

    def _end(self) -> None:
        if self.message is not None:
            self.let_go_of_message()
        self.span.finish()

    # -- of a WebSocket

    @property
    def traces_messages(self) -> bool:
        """Whether its messages have spans."""
        return self.span is not OFF and self.options.messages

    def let_go_of_message(self) -> None:
        """The message in hand is dealt with."""
        message, self.message = self.message, None
        if message is not None:
            message.finish()
