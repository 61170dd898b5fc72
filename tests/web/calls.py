"""What tests of the client ask of a recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrace.testing import RecordedSpan, Recorder

CALL = "aiohttp.request"
ATTEMPT = "aiohttp.attempt"


async def calls(traces: Recorder, count: int = 1, name: str = CALL) -> list[RecordedSpan]:
    """The client's spans of that name, in the order of their beginnings, once there are `count`; no more of them."""

    def found() -> list[RecordedSpan]:
        return [one for one in traces.spans if one.name == name and one.tags["component"] == "aiohttp_client"]

    await traces.wait_for(lambda _: len(found()) >= count)
    assert len(found()) == count
    return sorted(found(), key=lambda one: one.start_ns)


async def call(traces: Recorder) -> RecordedSpan:
    """The one call there was."""
    [one] = await calls(traces)
    return one
