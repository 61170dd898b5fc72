"""`queue.consume(callback)`: a span for each message, from its delivery to the end of the callback."""

from __future__ import annotations

import functools
import inspect
import weakref
from time import time_ns
from typing import TYPE_CHECKING, Any, TypeVar, cast

import wrapt

from asynctrace._core.errors import UsageError
from asynctrace._core.tracer import tracer
from asynctrace.aio_pika.describe import place_of
from asynctrace.aio_pika.getting import Got
from asynctrace.aio_pika.handling import Handling
from asynctrace.aio_pika.iterating import is_of_iterator, noting
from asynctrace.aio_pika.message import TracedMessage, is_in_hand
from asynctrace.aio_pika.switch import chosen, patches, settings, traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Self

    from asynctrace.aio_pika.describe import Place
    from asynctrace.aio_pika.switch import Relation

    Wrapper = wrapt.FunctionWrapper[Any, Any]
else:
    Wrapper = wrapt.FunctionWrapper

C = TypeVar("C", bound="Callable[..., Any]")

_consumers: weakref.WeakValueDictionary[tuple[object, ...], Consumer | _Delivery] = (
    weakref.WeakValueDictionary()
)
"""The wrapper of a callback for a queue, while it is in use. A wrapper holds its callback, so the ids stay true."""


class Consumer(Wrapper):
    """By hand: a callback that is given messages, of whatever kind it is."""

    def __init__(self, callback: Callable[..., Any], relation: Relation) -> None:
        from aio_pika.tools import ensure_awaitable

        super().__init__(ensure_awaitable(callback), _delivering(None, relation))
        self._self_callback = callback
        self._self_relation: Relation = relation


class _Delivery(functools.partial[Any]):
    """What a queue calls as soon as a message is there, and nobody else sees.

    aio-pika asks for each message whether this is a coroutine function: every partial of one is, and a proxy is not
    told to be in less than four times as long.
    """

    _run: Callable[..., Awaitable[Any]]
    _deliver: Callable[..., Awaitable[Any]]

    def __new__(cls, callback: Callable[..., Any], queue: Place, relation: Relation) -> Self:
        from aio_pika.tools import ensure_awaitable

        self = super().__new__(cls, run := ensure_awaitable(callback))
        self._run = run  # where that is a partial, `func` is what is in it
        self._deliver = _delivering(queue, relation)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return self._deliver(self._run, None, args, kwargs)


def _delivering(queue: Place | None, relation: Relation) -> Callable[..., Awaitable[Any]]:
    """Gives messages to a callback; a closure, since to ask a proxy for anything takes long."""

    def deliver(
        run: Callable[..., Awaitable[Any]], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[Any]:
        if not args or not traces():
            return run(*args, **kwargs)
        return handle(run, args, kwargs, time_ns())

    async def handle(
        run: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any], came_ns: int
    ) -> Any:
        message = args[0]
        if is_in_hand(message):
            return await run(*args, **kwargs)
        handling = Handling()
        handling.begin(message, queue, relation, came_ns)
        if queue is None and not patches:  # nothing else would see how it is settled
            args = (TracedMessage(message, Got(None, came_ns), relation), *args[1:])
        try:
            return await run(*args, **kwargs)
        except BaseException as exc:
            handling.fail(exc)
            raise
        finally:
            handling.end()

    return deliver


def traced_consumer(callback: C, *, relation: Relation | None = None) -> C:
    """The callback, with every message handled in a span of its own, child of the span that published it.

    Functions, bound methods, partials, callable objects. The same callback gives the same wrapper while it is in use.
    What the callback raises goes on unchanged. With `relation="link"` a message starts a trace of its own, with a link
    to its publisher's. Raises `UsageError` for what can't be called.

    Example:
        >>> async def handle(message):
        ...     await message.ack()
        >>> async def work(queue):
        ...     await queue.consume(traced_consumer(handle))
    """
    if not callable(callback):
        raise UsageError(
            f"traced_consumer() needs a callback, got {type(callback).__name__}",
            hint="the function you would give to queue.consume()",
        )
    how = chosen(relation)
    if not tracer.enabled or type(callback) is Consumer:
        return callback
    return cast("C", consumer(callback, None, how))


def consumer(callback: Callable[..., Any], queue: Place | None, relation: Relation) -> Consumer | _Delivery:
    """The wrapper of a callback, for a queue or by hand."""
    # a bound method is a new object at every look: its object and function are what is the same
    identity = (callback.__self__, callback.__func__) if inspect.ismethod(callback) else (callback,)
    key = (queue, relation, *map(id, identity))
    wrapper = _consumers.get(key)
    if wrapper is None:
        wrapper = Consumer(callback, relation) if queue is None else _Delivery(callback, queue, relation)
        _consumers[key] = wrapper
    return wrapper


def traced(consume: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """`Queue.consume`, traced while the patches are on. Robust queues call it again with the user's own callback."""

    @functools.wraps(consume)
    async def method(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        if patches and traces() and callable(callback):
            callback = _for_queue(callback, self)
        return await consume(self, callback, *args, **kwargs)

    return method


def _for_queue(callback: Any, queue: Any) -> Any:
    if is_of_iterator(callback):
        return noting(callback)
    if isinstance(callback, Consumer):  # wrapped by hand: it learns the queue's name
        return consumer(callback._self_callback, place_of(queue), callback._self_relation)
    return consumer(callback, place_of(queue), settings.relation)
