"""The integrations the laws are put to: a file each, with a class `Subject`. To add one, write it and name it here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractAsyncContextManager

    from demos.services import Service

NAMES = ("messages", "queries", "calling", "serving")


class Base(ABC):
    """One integration at work. The laws install it, use it, and look at the spans it makes."""

    integration: ClassVar[str]
    """What `install()` calls it."""

    component: ClassVar[str]
    """The tag `component` of its spans."""

    service: ClassVar[str | None] = None
    """The fixture of the server it needs, given to `open()`."""

    spans: ClassVar[int]
    """So many spans with that tag come from one `operate()`."""

    @abstractmethod
    def open(self, service: Service | None) -> AbstractAsyncContextManager[None]:
        """Connections, pools, servers: opened after the integration is installed, gone at the end of the block."""

    @abstractmethod
    async def operate(self, number: int) -> object:
        """What a request does: its result, told apart by the number. Spans of the user's own are tagged with it."""

    @abstractmethod
    async def fail(self, exc: Exception) -> None:
        """An operation with a span that raises `exc`, this object: from a callback, a codec, a stream of the user's."""

    @abstractmethod
    async def hang(self, hanging: asyncio.Event) -> None:
        """An operation with a span that goes on until it is cancelled; sets `hanging` when nothing else will come."""

    @abstractmethod
    def doors(self) -> dict[str, Any]:
        """What `install()` replaces, as it is now, by name."""

    def by_hand(self) -> list[tuple[object, object]]:
        """Pairs of what was given to a `traced_*` helper, and what came back."""
        return []
