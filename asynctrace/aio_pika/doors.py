"""install and uninstall: the methods of aio-pika that are replaced."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from asynctrace._core.context import detached
from asynctrace.aio_pika import consuming, getting, iterating, publishing, settling
from asynctrace.aio_pika.switch import patches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SUPPORTED = ("9.4", "11")
"""From this version on, below that one."""


def install() -> None:
    """Trace every message of this process; `asynctrace.install("aio_pika")` checks the version first."""
    from aio_pika.channel import Channel
    from aio_pika.connection import Connection
    from aio_pika.exchange import Exchange
    from aio_pika.message import IncomingMessage, ProcessContext
    from aio_pika.queue import Queue, QueueIterator
    from aio_pika.robust_connection import RobustConnection
    from aio_pika.robust_queue import RobustQueueIterator

    if patches:
        return
    _replace(Exchange, publish=publishing.traced)
    _replace(Queue, consume=consuming.traced, __aiter__=iterating.looping)
    patches.wrap(Queue, "get", getting.traced)
    _replace(
        QueueIterator,
        __aiter__=iterating.looping,
        __aenter__=iterating.entering,
        __aexit__=iterating.leaving,
    )
    if "_on_close" in vars(
        QueueIterator
    ):  # before, it registers `close` itself somewhere, and must find it again
        _replace(QueueIterator, close=iterating.leaving)
    for iterator in (QueueIterator, RobustQueueIterator):
        if "__anext__" in vars(iterator):  # that of a robust one calls no other, where it has its own
            _replace(iterator, __anext__=iterating.asking)
    _replace(IncomingMessage, ack=settling.acking, nack=settling.nacking, reject=settling.rejecting)
    _replace(ProcessContext, __aenter__=settling.entering, __aexit__=settling.leaving)
    for opener, name in ((Connection, "connect"), (RobustConnection, "connect"), (Channel, "initialize")):
        _replace(opener, **{name: nobodys})


def _replace(owner: type, **doors: Callable[[Any], Callable[..., Any]]) -> None:
    for name, door in doors.items():
        patches.replace(owner, name, door(vars(owner)[name]))


def nobodys(opening: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """What opens a connection or a channel, and with it tasks that live as long: they belong to nobody's request."""

    @functools.wraps(opening)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches:
            return await opening(self, *args, **kwargs)
        with detached():
            return await opening(self, *args, **kwargs)

    return method


def uninstall() -> None:
    """Take the patches off. Consumers that were registered under them stay traced until they are cancelled."""
    patches.undo()
