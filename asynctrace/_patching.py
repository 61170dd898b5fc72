"""Patches that come off again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from collections.abc import Callable


class Patches:
    """The patches of one integration."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

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

    def undo(self) -> None:
        """Take them off, last one first."""
        while self._undo:
            self._undo.pop()()

    def __bool__(self) -> bool:
        return bool(self._undo)
