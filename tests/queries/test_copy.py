"""COPY, in and out, in all forms."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

from asynctrace import span
from tests.queries.helpers import resources, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asynctrace.testing import Recorder


async def test_copy_in_every_form(connection: Any, traces: Recorder, tmp_path: Path) -> None:
    """COPY is a span with the rows it moved: records, files, paths, bytes, generators; to sinks of all kinds."""

    async def records() -> AsyncIterator[tuple[int, str]]:
        for number in range(3):
            yield 10 + number, "async"

    async def chunks() -> AsyncIterator[bytes]:
        yield b"40\tgenerated\n"

    path = tmp_path / "tea.txt"
    path.write_bytes(b"50\tpath\n")
    got: list[bytes] = []

    async def sink(data: bytes) -> None:
        got.append(data)

    await connection.copy_records_to_table("tea", records=[(1, "a"), (2, "b")])
    await connection.copy_records_to_table("tea", records=records())
    await connection.copy_to_table("tea", source=io.BytesIO(b"30\tfile\n"))
    await connection.copy_to_table("tea", source=chunks())
    await connection.copy_to_table("tea", source=path)
    await connection.copy_to_table("tea", source=bytearray(b"60\tbytes\n"))
    await connection.copy_from_table("tea", output=sink)
    await connection.copy_from_table("tea", columns=["id"], output=io.BytesIO())
    await connection.copy_from_query("SELECT 1", output=tmp_path / "out.txt")
    assert b"generated" in b"".join(got)
    copied = [(one.split('"')[0], count) for one, count in rows(traces)]
    assert copied == [
        ("COPY ", 2),
        ("COPY ", 3),
        ("COPY ", 1),
        ("COPY ", 1),
        ("COPY ", 1),
        ("COPY ", 1),
        ("COPY ", 9),
        ("COPY ", 9),
        ("COPY (SELECT 1) TO STDOUT ", 1),
    ]


async def test_what_runs_during_a_copy_is_below_it(connection: Any, traces: Recorder) -> None:
    """The user's sink and source work for the COPY: their spans are its children."""

    async def sink(_: bytes) -> None:
        with span("sink"):
            await asyncio.sleep(0)

    async def source() -> AsyncIterator[bytes]:
        with span("source"):
            pass
        yield b"1\ttea\n"

    with span("request"):
        await connection.copy_to_table("tea", source=source())
        await connection.copy_from_table("tea", output=sink)
    assert traces.tree().splitlines()[-5:] == [
        "request",
        "  postgres.query",
        "    source",
        "  postgres.query",
        "    sink",
    ]


async def test_arguments_that_asyncpg_writes_into_a_copy_are_not_shown(
    connection: Any, traces: Recorder
) -> None:
    """COPY takes no arguments, so asyncpg puts them into its text; and asks the server how to: neither is seen."""
    out = io.BytesIO()
    await connection.copy_from_query("SELECT $1::text, $2::int", "my secret", 7, output=out)
    assert out.getvalue() == b"my secret\t7\n"
    assert [one.strip() for one in resources(traces)] == ["COPY (SELECT $1::text, $2::int) TO STDOUT"]
