"""SQLAlchemy's asyncpg dialect goes through the same doors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from asynctrace import span
from tests.queries.helpers import CONNECT, queries, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrace.testing import Recorder
    from demos.services import Service


async def test_under_sqlalchemy(installed: Callable[..., None], postgres: Service, traces: Recorder) -> None:
    """Its statements are spans with what came back and where; its connections are ours to see, and nobody's to keep."""
    installed("asyncpg")
    engine = create_async_engine(postgres.url.replace("postgresql://", "postgresql+asyncpg://"))
    table = sa.Table("tea", sa.MetaData(), sa.Column("id", sa.Integer), prefixes=["TEMPORARY"])
    async with engine.connect() as connection:
        await connection.run_sync(table.create)
        traces.clear()
        with span("request"):
            await connection.execute(sa.insert(table), [{"id": 1}, {"id": 2}, {"id": 3}])
            found = await connection.execute(sa.select(table.c.id).where(table.c.id > 1))
            assert [row.id for row in found] == [2, 3]
            streamed = await connection.stream(sa.select(table.c.id))
            assert len([row async for row in streamed]) == 3
            await connection.commit()
        with pytest.raises(ProgrammingError) as caught:
            await connection.execute(sa.text("SELECT * FROM no_such_table"))
        assert isinstance(caught.value.orig.__cause__, asyncpg.UndefinedTableError)  # type: ignore[union-attr]
    await engine.dispose()
    request = traces.one("request")
    inside = [one for one in traces.spans if one.parent_id == request.span_id]
    statements = [
        (
            one.name,
            one.resource.split()[0],
            one.tags.get("db.row_count"),
            one.tags.get("db.operation.batch.size"),
        )
        for one in inside
    ]
    assert ("postgres.query", "INSERT", None, 3) in statements
    assert ("postgres.query", "SELECT", 2, None) in statements
    assert statements[-1][:2] == ("postgres.query", "COMMIT;")
    assert {one.tags["out.host"] for one in inside} == {"127.0.0.1"}
    failed = [one for one in traces.spans if one.error]
    assert [one.tags["db.response.status_code"] for one in failed] == ["42P01"]
    assert rows(traces)
    assert all(one.type == "sql" for one in queries(traces))
    assert CONNECT not in traces.names()  # it was opened before
