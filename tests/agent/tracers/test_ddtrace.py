"""ddtrace itself, as it is and as it can be set: its trace is one here, and it has nothing to complain about."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from tests.agent.processes import View, clean_environment, viewing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PROGRAM = """
import sys
from ddtrace.trace import tracer
count = int(sys.argv[1])
with tracer.trace("root", service="shop", resource="GET /") as root:
    root.set_link(trace_id=7, span_id=8)
    root._add_event("cache.miss", {"n": 1})
    for number in range(count - 1):
        with tracer.trace("work", resource=str(number)) as one:
            one.set_tag("number", number)
    print(f"{root.trace_id:032x}")
"""


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    path = tmp_path_factory.mktemp("agent") / "apm.socket"
    with viewing("--socket", str(path)) as running:
        running.socket = path  # type: ignore[attr-defined]
        yield running


OWN_WORDS = "Setting api version to v0.4; DD_TRACE_NATIVE_SPAN_EVENTS is not compatible with v0.5\n"


async def program(url: str, count: int, command: tuple[str, ...] = (sys.executable,), /, **env: str) -> str:
    """What a traced program says on stdout; on stderr it must say nothing but what it says to everybody."""
    process = await asyncio.create_subprocess_exec(
        *command, "-c", PROGRAM, str(count), env=clean_environment(DD_TRACE_AGENT_URL=url, **env),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, complaints = await process.communicate()
    assert (process.returncode, complaints.decode().removeprefix(OWN_WORDS)) == (0, "")
    return out.decode().strip()


def assert_all_there(view: View, trace_id: str, count: int) -> dict[str, Any]:
    """The trace is one, whole, with what its spans carry, and nothing was bad or dropped."""
    view.wait_for(
        lambda traces: any(one["trace_id"] == trace_id and one["span_count"] == count for one in traces)
    )
    found: dict[str, Any] = view.get(f"/traces/{trace_id}")
    assert (found["resource"], found["services"]) == ("GET /", ["shop"])
    (root,) = [span for span in found["spans"] if span["parent_id"] == "0"]
    assert (root["links"][0]["trace_id"], root["links"][0]["span_id"]) == (f"{7:032x}", "8")
    assert "cache.miss" in root["meta"]["events"]
    assert {span["parent_id"] for span in found["spans"]} == {"0", root["span_id"]}
    counted: dict[str, Any] = view.get("/counters")
    assert not any(
        counted[name] for name in ("bad_payloads", "bad_spans", "dropped_payloads", "dropped_spans")
    )
    return counted


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"DD_TRACE_API_VERSION": "v0.4"},
        {"DD_TRACE_API_VERSION": "v0.4", "DD_TRACE_NATIVE_SPAN_EVENTS": "1"},
        {"DD_TRACE_STATS_COMPUTATION_ENABLED": "1"},
        {"DD_TRACE_PARTIAL_FLUSH_ENABLED": "false"},
        {"DD_TRACE_128_BIT_TRACEID_GENERATION_ENABLED": "false"},
        {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "true", "DD_REMOTE_CONFIGURATION_ENABLED": "true"},
    ],
    ids=["defaults", "v0.4", "native events", "stats", "one payload", "64 bits", "telemetry"],
)
async def test_whatever_it_is_set_to(view: View, settings: dict[str, str]) -> None:
    """Encodings, events, stats, ids: the same trace."""
    trace_id = await program(view.url, 10, **settings)
    assert_all_there(view, trace_id, 10)


async def test_ten_thousand_spans_in_chunks_are_one_trace(view: View) -> None:
    """10,001 spans come in 34 chunks, parents after children, and are one trace of one line."""
    before = len(view.get("/traces?limit=1000")["traces"])
    trace_id = await program(view.url, 10_001)
    assert_all_there(view, trace_id, 10_001)
    assert len(view.get("/traces?limit=1000")["traces"]) == before + 1


async def test_by_the_unix_socket(view: View) -> None:
    """DD_TRACE_AGENT_URL=unix:///..."""
    trace_id = await program(f"unix://{view.socket}", 10)  # type: ignore[attr-defined]
    assert_all_there(view, trace_id, 10)


async def test_under_ddtrace_run(view: View) -> None:
    """With all its products looking for an agent that is theirs, it stays quiet."""
    command = (str(Path(sys.executable).parent / "ddtrace-run"), sys.executable)
    trace_id = await program(view.url, 10, command)
    assert_all_there(view, trace_id, 10)


async def test_what_sampling_drops_is_shown_with_a_mark(view: View) -> None:
    """With stats on, and rules that keep nothing, ddtrace would keep its traces to itself if the agent let it."""
    settings = {"DD_TRACE_STATS_COMPUTATION_ENABLED": "1", "DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}]'}
    trace_id = await program(view.url, 3, **settings)
    assert_all_there(view, trace_id, 3)
    (line,) = [one for one in view.get("/traces?limit=1000")["traces"] if one["trace_id"] == trace_id]
    assert line["sampled_out"] is True


async def test_its_own_otlp(view: View) -> None:
    """OTEL_TRACES_EXPORTER=otlp: past the agent's protocol, into the same list."""
    trace_id = await program(
        view.url,
        3,
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=view.url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
    )
    view.wait_for(
        lambda traces: any(one["trace_id"] == trace_id and one["span_count"] == 3 for one in traces)
    )
    found = view.get(f"/traces/{trace_id}")
    assert {(span["name"], span["service"]) for span in found["spans"]} == {
        ("root", "shop"),
        ("work", "shop"),
    }


@asynccontextmanager
async def slow_line(view: View, times: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A line to the agent on which the first answers come when the tracer has given up on them."""
    posts: list[int] = []
    over = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {"Content-Type": request.content_type}
        async with session.request(
            request.method, view.url + request.path, data=body or None, headers=headers
        ) as reply:
            answer = await reply.read()
        if request.path.endswith("/traces"):
            posts.append(len(body))
            if len(posts) <= times:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(over.wait(), 4)
        return web.Response(body=answer, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", take)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", posts
        finally:
            over.set()
            await runner.cleanup()


async def test_what_is_sent_again_is_shown_once(view: View) -> None:
    """A tracer that gives up waiting sends the same payload again: the agent has it already."""
    async with slow_line(view, times=2) as (url, posts):
        trace_id = await program(url, 50)
    assert len(posts) == 3
    assert len(set(posts)) == 1
    counted = assert_all_there(view, trace_id, 50)
    assert counted["duplicate_spans"] == 100
