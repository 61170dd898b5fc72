"""Waiting until something is so, told by those who may have made it so, in whatever loop or thread they are."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Waiting:
    """Those who wait. `wake()` never blocks and may be called by the garbage collector or a signal handler."""

    def __init__(self) -> None:
        self._wakers: list[Callable[[], object]] = []

    def wake(self) -> None:
        """Have everybody who waits look again."""
        for waker in self._wakers.copy():
            waker()

    async def until(self, met: Callable[[], object], timeout: float) -> bool:
        """Wait for `met()` to be true; false after `timeout` seconds. It is asked in the caller's loop only."""
        loop, woken, late = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def waker() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(woken.set)

        def expire() -> None:
            late.set()
            woken.set()

        timer = loop.call_later(timeout, expire)
        try:
            with self._told(waker):
                while not met():
                    if late.is_set():
                        return False
                    woken.clear()
                    await woken.wait()
        finally:
            timer.cancel()
        return True

    def until_sync(self, met: Callable[[], object], timeout: float) -> bool:
        """The same for code that is not async: blocks the thread."""
        deadline = time.monotonic() + timeout
        woken: SimpleQueue[None] = SimpleQueue()
        with self._told(lambda: woken.put(None)):
            while not met():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                with contextlib.suppress(Empty):
                    woken.get(timeout=left)
        return True

    @contextmanager
    def _told(self, waker: Callable[[], object]) -> Iterator[None]:
        self._wakers.append(waker)
        try:
            yield
        finally:
            self._wakers.remove(waker)
