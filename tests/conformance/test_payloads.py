"""Datadog's test agent accepts what we send: its decoder is strict, its trace checks are on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from demos import launcher
from tests.conformance.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


OF_POOLS = frozenset({"postgres.connect", "asyncpg.pool.acquire"})
"""Spans of a pool that grows, or is waited for, as it happens to be used."""


def free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        return [
            open_sockets.enter_context(closing(socket.create_server(("127.0.0.1", 0)))).getsockname()[1]
            for _ in range(count)
        ]


@pytest.fixture
def judge() -> Iterator[Judge]:
    with closing(Judge(free_ports(4))) as running:
        yield running


def assert_nothing_wrong(judge: Judge) -> None:
    assert judge.get("/test/trace_check/failures") == (200, "200: OK")


def test_the_demos_traffic_passes(judge: Judge) -> None:
    """Three services, errors, parents across processes: every check of the test agent passes."""
    with ExitStack() as running:
        shop = launcher.start_shop(running, judge.url)
        for order in launcher.ORDERS:
            launcher.place(shop, order)
        spans = judge.spans(45, beside=OF_POOLS)
    assert_nothing_wrong(judge)
    ids = {span["span_id"] for span in spans}
    assert len(spans) == len(ids)
    assert len([span for span in spans if span["name"] not in OF_POOLS]) == 45
    roots = [span for span in spans if not span.get("parent_id")]
    at_start = [root for root in roots if root["name"] == "postgres.connect"]
    assert len(at_start) == 3, "each service opens its pool before there is a request"
    assert [root["resource"] for root in roots if root not in at_start] == ["POST /orders"] * 3
    assert all(span["parent_id"] in ids for span in spans if span not in roots)


PROGRAM = """
import asyncio
from asynctrace import ROOT, SpanContext, atraced, shutdown, span, start_span

@atraced
async def items():
    for item in range(3):
        yield item

async def main():
    other = start_span("other", parent=ROOT)
    other.finish()
    tags = {"text": "caf\\u00e9 \\ud800", "int": 7, "float": 0.5, "big": 2**80, "none": None, "list": [1]}
    with span("root", tags=tags) as s:
        s.link(other.context, {"why": "it caused this"})
        async for item in items():
            break
        try:
            with span("failing", kind="internal"):
                raise ValueError("\\x00 " + "x" * 40_000)
        except ValueError:
            pass
    with span("remote", parent=SpanContext.extract({"traceparent": f"00-{1:032x}-{2:016x}-01", "baggage": "a=b"})):
        pass
    await shutdown()

asyncio.run(main())
"""


@pytest.mark.parametrize("version", ["v0.4", "v0.5"])
def test_everything_a_span_can_carry_passes(judge: Judge, version: str) -> None:
    """Tags of every type, links, errors of any length, early ends, remote parents: in both formats of payload."""
    environment = {**os.environ, "DD_TRACE_AGENT_URL": judge.url, "DD_TRACE_API_VERSION": version}
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(judge.spans(5)) == 5
    assert_nothing_wrong(judge)
