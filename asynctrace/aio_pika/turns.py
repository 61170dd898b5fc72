"""A loop over messages: each turn's span is active in its body, and over when the body is, however it is left."""

from __future__ import annotations

import asyncio
import sys
from time import time_ns
from typing import TYPE_CHECKING, Any

import wrapt

from asynctrace._core.awaited import Awaited
from asynctrace._core.frames import is_left_by_exception
from asynctrace._core.off import OFF
from asynctrace._core.outcome import CANCELLED, ERROR
from asynctrace.aio_pika.describe import place_of
from asynctrace.aio_pika.getting import Got
from asynctrace.aio_pika.handling import Handling, current
from asynctrace.aio_pika.message import TracedMessage
from asynctrace.aio_pika.switch import patches, settings, traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import CodeType, TracebackType

    from typing_extensions import Self

    from asynctrace.aio_pika.switch import Relation

    Proxy = wrapt.ObjectProxy[Any]
else:
    Proxy = wrapt.ObjectProxy


class Turn(Handling):
    """The message that a loop's body has in hand. Made at the call of `__anext__`, begun when there is one."""

    __slots__ = ("_place", "iteration", "supposed")

    in_loop = True

    def __init__(self, iteration: Iteration) -> None:
        super().__init__()
        self.iteration = iteration
        self.supposed: str | None = None  # its outcome, as long as nobody has the exception
        self._place = Awaited.here()

    def _open(self) -> None:
        self._place.open(self.span)

    def fail(self, exc: BaseException) -> None:
        """Somebody has the exception."""
        self.supposed = None
        super().fail(exc)

    def end(self) -> None:
        """Its place is free again."""
        if self.supposed is not None and self.is_open:
            self.span.set_outcome(self.supposed)
        self._place.close()
        self._leave()

    def __del__(self) -> None:
        """Whoever asked by hand, and never asked again, is gone."""
        if self.is_open:
            self._place.close()


class Iteration:
    """What is known of one iterator of aio-pika's."""

    def __init__(self, iterator: Any, relation: Relation) -> None:
        self.relation: Relation = relation
        self.is_block = False  # `async with`: will be told what exception the loop is left with
        self.came_ns: dict[int, int] = {}  # when the messages in its buffer came, by their ids
        self.queue = place_of(iterator._amqp_queue)

    def ask(self, anext: Callable[[], Awaitable[Any]], *, by_hand: bool = False) -> Awaitable[Any]:
        """The next message, please; the turn before it is over."""
        self.leave()
        if not traces():
            return anext()
        return self._next(anext, Turn(self), by_hand=by_hand)

    async def _next(self, anext: Callable[[], Awaitable[Any]], turn: Turn, *, by_hand: bool) -> Any:
        try:
            message = await anext()
        except BaseException:
            turn.end()
            raise
        came_ns = self.came_ns.pop(id(message), 0) or time_ns()
        turn.begin(message, self.queue, self.relation, came_ns)
        if turn.span is OFF:
            turn.end()
        return TracedMessage(message, Got(self.queue, came_ns), self.relation) if by_hand else message

    def leave(self, exc: BaseException | None = None) -> None:
        """The turn of the one who asks is over."""
        turn = current.get()
        if isinstance(turn, Turn) and turn.iteration is self and turn.is_mine():
            if exc is not None:
                turn.fail(exc)
            turn.end()


def iteration_of(iterator: Any, relation: Relation | None = None) -> Iteration:
    """What is known of this iterator, from now on."""
    known: Iteration | None = vars(iterator).get("_asynctrace")
    if known is None:
        known = iterator._asynctrace = Iteration(iterator, relation or settings.relation)
    elif relation is not None:
        known.relation = relation
    return known


class Loop(Proxy):
    """What `async for` holds on to, and nobody else: an iterator of aio-pika's, let go of however the loop is left."""

    def __init__(self, iterator: Any, iteration: Iteration, *, by_hand: bool = False) -> None:
        super().__init__(iterator)
        self._self_iteration, self._self_by_hand = iteration, by_hand
        self._self_turn: Turn | None = None
        self._self_code: CodeType | None = None

    def __aiter__(self) -> Loop:
        return Loop(self.__wrapped__, self._self_iteration, by_hand=self._self_by_hand)

    def __anext__(self) -> Awaitable[Any]:
        self._self_code = sys._getframe(1).f_code
        ask: Callable[[], Awaitable[Any]] = self.__wrapped__.__anext__
        if patches:
            asked = ask()
        elif self._self_by_hand:
            asked = self._self_iteration.ask(ask, by_hand=True)
        else:  # they came off meanwhile
            self._self_iteration.leave()
            asked = ask()
        turn = current.get()
        self._self_turn = turn if isinstance(turn, Turn) and turn.iteration is self._self_iteration else None
        return asked

    async def __aenter__(self) -> Self:
        self._self_iteration.is_block = True
        await self.__wrapped__.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> Any:
        self._self_iteration.leave(exc)
        return await self.__wrapped__.__aexit__(kind, exc, tb)

    async def close(self, *args: Any) -> Any:
        """As the iterator's own; the turn is over."""
        self._self_iteration.leave()
        return await self.__wrapped__.close(*args)

    def __del__(self) -> None:
        turn = self._self_turn
        if turn is None or not turn.is_open:
            return
        frame = sys._getframe(1)
        if frame.f_code is self._self_code and is_left_by_exception(frame):
            turn.supposed = _supposed()
            if self._self_iteration.is_block:
                return  # its `__aexit__` comes next, and has the exception
        turn.end()


def _supposed() -> str | None:
    """The outcome of a turn that is left by an exception which nobody shows us."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    cancelling = getattr(task, "cancelling", None)  # Python 3.11
    if cancelling is None:
        return None
    return CANCELLED if cancelling() else ERROR
