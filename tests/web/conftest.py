"""Servers of every kind, gone at the end of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.web.peer import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.peer import Peer


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A server on a bare socket."""
    async with listening() as listener:
        yield listener
