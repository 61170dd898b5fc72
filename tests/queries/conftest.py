"""A real PostgreSQL, traced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests.queries.helpers import connected, quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from demos.services import Service


@pytest.fixture
async def pool(installed: Callable[..., None], postgres: Service) -> AsyncIterator[Any]:
    """A pool of three connections, opened under install()."""
    installed("asyncpg")
    opened = await asyncpg.create_pool(postgres.url, min_size=3, max_size=3)
    yield opened
    await asyncio.wait_for(opened.close(), 5)


@pytest.fixture
async def connection(installed: Callable[..., None], postgres: Service) -> AsyncIterator[Any]:
    """A connection, opened under install(), with a table `tea` of its own."""
    installed("asyncpg")
    async with connected(postgres.url) as opened:
        await opened.execute("CREATE TEMP TABLE tea (id int PRIMARY KEY, name text)")
        yield opened


@pytest.fixture
async def watcher(postgres: Service) -> AsyncIterator[Any]:
    """A connection that is not traced."""
    async with connected(postgres.url) as opened:
        yield quiet(opened)
