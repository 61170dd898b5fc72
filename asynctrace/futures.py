"""concurrent.futures: work given to a thread pool stays in the trace of the one who gave it.

`asyncio.to_thread` copies the context, `loop.run_in_executor` and `executor.submit` don't: what is active crosses here
with the call, and leaves the pool's thread with it. Door: `ThreadPoolExecutor.submit`, which all of them use.

    from asynctrace import install, span

    install("futures")
    with span("request"):
        await loop.run_in_executor(None, render)     # spans in render() are children of request
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

from asynctrace._core.provider import active_entry, top_entry
from asynctrace._core.tracer import tracer
from asynctrace._patching import Patches

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace._core.provider import Entry

SUPPORTED = ("0", "999")
"""Part of Python."""

_patches = Patches()


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


def _carrying(submit: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not _patches or not args or not tracer.enabled or getattr(concurrent.futures, "_datadog_patch", False):
        return submit(*args, **kwargs)
    entry = active_entry()
    if entry is None:
        return submit(*args, **kwargs)
    return submit(_Carried(args[0], entry), *args[1:], **kwargs)


def install() -> None:
    """Carry what is active into every thread pool of this process."""
    if not _patches:
        _patches.wrap(concurrent.futures.ThreadPoolExecutor, "submit", _carrying)


def uninstall() -> None:
    """Take the patch off."""
    _patches.undo()
