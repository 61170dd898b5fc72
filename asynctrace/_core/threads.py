"""Thread pools: work given to one stays in the trace of the one who gave it.

`asyncio.to_thread` copies the context, `loop.run_in_executor` and `executor.submit` don't: what is active crosses here
with the call, and leaves the pool's thread with it. Door: `ThreadPoolExecutor.submit`, which all of them use. Where
ddtrace's own integration is on, both carry the same.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from asynctrace._core.provider import active_entry, top_entry
from asynctrace._core.tracer import tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace._core.provider import Entry


class _Carried:
    """A call with what was active where it was handed in."""

    __slots__ = ("entry", "function")

    def __init__(self, function: Callable[..., Any], entry: Entry) -> None:
        self.function, self.entry = function, entry

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = top_entry.get()
        top_entry.set(self.entry)
        try:
            return self.function(*args, **kwargs)
        finally:
            top_entry.set(before)

    def __repr__(self) -> str:
        return repr(self.function)


def _carrying(submit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(submit)
    def carrying(*args: Any, **kwargs: Any) -> Any:
        """`args`: the pool, the function, and its arguments."""
        if _on and len(args) > 1 and tracer.enabled:
            entry = active_entry()
            if entry is not None:
                pool, function, *others = args
                return submit(pool, _Carried(function, entry), *others, **kwargs)
        return submit(*args, **kwargs)

    return carrying


_on = False
_plain: Any = None
_ours: Any = None


def install() -> None:
    """Carry what is active into every thread pool of this process; done at set-up, and `install("futures")` again."""
    global _on, _plain, _ours
    _on = True
    if _ours is None:
        _plain = ThreadPoolExecutor.submit
        _ours = _carrying(_plain)
        ThreadPoolExecutor.submit = _ours  # type: ignore[method-assign]


def uninstall() -> None:
    """Take the patch off; under a patch of somebody else's it stays, and does nothing."""
    global _on, _plain, _ours
    _on = False
    if _ours is not None and ThreadPoolExecutor.submit is _ours:
        ThreadPoolExecutor.submit = _plain  # type: ignore[method-assign]
        _plain = _ours = None
