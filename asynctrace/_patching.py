"""Patches that come off again."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import wrapt

from asynctrace._core.naming import is_true
from asynctrace._core.tracer import integration

if TYPE_CHECKING:
    from collections.abc import Callable


class Patches:
    """The patches of one integration."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self.are_on = False
        """What `bool()` says, for those who ask at every request."""

    def wrap(
        self,
        owner: Any,
        name: str,
        wrapper: Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any],
    ) -> None:
        """Wrap the method `name` of class `owner`, as wrapt does: signature and binding stay what they were."""
        original = vars(owner)[name]
        self.replace(owner, name, wrapt.FunctionWrapper(original, wrapper))

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute; what was there, or that nothing was, comes back with `undo`."""
        missing = object()
        before = vars(owner).get(name, missing)
        setattr(owner, name, value)

        def undo() -> None:
            if (
                vars(owner).get(name) is not value
            ):  # somebody patched over ours: taking it off would take theirs, too
                return
            if before is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

        self._undo.append(undo)
        self.are_on = True

    def undo(self) -> None:
        """Take them off, last one first."""
        while self._undo:
            self._undo.pop()()
        self.are_on = False

    def __bool__(self) -> bool:
        return self.are_on


class LogIntegration:
    """One of ddtrace's own integrations with a library that logs, put on where it is not on already.

    `ddtrace-run` has put it on, and then it stays. `DD_LOGS_INJECTION=false` keeps it off, as it does there.
    """

    def __init__(self, library: str) -> None:
        self.library, self.is_on = library, False

    def install(self) -> None:
        """Trace and span id on every line from now on."""
        wanted = os.environ.get("DD_LOGS_INJECTION", "true").strip().lower()
        if (is_true(wanted) or wanted == "structured") and not _is_patched(self.library):
            integration(self.library).patch()
            self.is_on = True

    def uninstall(self) -> None:
        """Take it off, if it was put on here."""
        if self.is_on:
            integration(self.library).unpatch()
            self.is_on = False


def _is_patched(library: str) -> bool:
    return bool(getattr(sys.modules[library], "_datadog_patch", False))
