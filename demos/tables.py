"""The demo's own tables, in a schema of its own that goes when the demo does."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = """
CREATE SCHEMA {schema};
SET search_path TO {schema};
CREATE TABLE items (name text PRIMARY KEY, price int);
CREATE TABLE customers (name text PRIMARY KEY, credit int);
CREATE TABLE orders (customer text, total int, credit int, CONSTRAINT within_credit CHECK (total <= credit));
CREATE TABLE shipments (customer text, state text);
INSERT INTO items VALUES ('tea', 4), ('milk', 1), ('sugar', 2), ('saffron', 90);
INSERT INTO customers VALUES ('ann', 100), ('bob', 20);
"""


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@contextmanager
def demo_tables(url: str) -> Iterator[str]:
    """Make the tables; gives the schema's name."""
    schema = f"asynctrace_demo_{uuid.uuid4().hex[:12]}"
    asyncio.run(_execute(url, TABLES.format(schema=schema)))
    try:
        yield schema
    finally:
        asyncio.run(_execute(url, f"DROP SCHEMA {schema} CASCADE"))
