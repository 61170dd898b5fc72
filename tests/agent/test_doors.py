"""Where the agent listens and what it passes on: ports, a unix socket, a real agent behind it, a file."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asynctrace.agent.client import AgentError
from asynctrace.agent.embedded import Agent
from asynctrace.agent.forward import MARK, PATIENCE, check_url
from asynctrace.agent.ports import who_holds
from asynctrace.agent.store import TraceStore
from tests.agent.payloads import chunk, span, v04, wire

ACCEPTED = {"rate_by_service": {"service:,env:": 1}}
RATES = {"rate_by_service": {"service:,env:": 0.5}}


async def send(url: str, body: bytes = b"", path: str = "/v0.4/traces", **options: Any) -> Any:
    async with aiohttp.ClientSession() as session, session.post(url + path, data=body, **options) as reply:
        assert reply.status == 200
        return await reply.json()


# -- the unix socket


async def test_a_unix_socket_takes_traces(tmp_path: Path) -> None:
    """Traces come by a socket that is this user's only; its Host header, which is no host, keeps nobody out."""
    path = tmp_path / "apm.socket"
    async with Agent() as agent:
        await agent.listen_at(str(path))
        assert path.stat().st_mode & 0o777 == 0o600
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            headers = {"Host": "2f746d702f61706d"}
            async with session.put("http://any/v0.4/traces", data=v04([wire(1)]), headers=headers) as reply:
                assert await reply.json() == ACCEPTED
        await agent.wait_for(lambda trace: len(trace.spans) == 1, timeout=5)
    assert not path.exists()


async def test_a_socket_left_behind_is_taken_over(tmp_path: Path) -> None:
    """The file of an agent that was killed is no obstacle; one that somebody listens at, or that is none, is."""
    path = tmp_path / "apm.socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with Agent() as agent, Agent() as second:
        await agent.listen_at(str(path))
        with pytest.raises(OSError, match="somebody listens there"):
            await second.listen_at(str(path))
        (tmp_path / "file").write_text("precious")
        with pytest.raises(FileExistsError):
            await second.listen_at(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


# -- who has a port


async def test_the_holder_of_a_port_is_named() -> None:
    """With what answers there, and on Linux with its process."""
    async with Agent() as agent:
        told = await asyncio.to_thread(who_holds, agent.url, agent.port)
    assert told.startswith("asynctrace ")
    if sys.platform == "linux":
        assert told.endswith(f", pid {os.getpid()})")


# -- forwarding


class Upstream:
    """A real agent, as far as it matters here."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Any = RATES
        self.status = 200
        self.release = asyncio.Event()
        self.release.set()

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        self.taken.append((request.method, request.path_qs, await request.read()))
        await self.release.wait()
        return web.json_response(self.answer, status=self.status)


@asynccontextmanager
async def upstream(path: Path | None = None) -> AsyncIterator[tuple[Upstream, str]]:
    app, other = web.Application(), Upstream()
    app.router.add_route("*", "/{any:.*}", other.take)
    runner = web.AppRunner(app)
    await runner.setup()
    if path is None:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    else:
        await web.UnixSite(runner, str(path)).start()
        url = f"unix://{path}"
    try:
        yield other, url
    finally:
        other.release.set()
        await runner.cleanup()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_everything_is_passed_on(tmp_path: Path, unix: bool) -> None:
    """Bodies and headers arrive unchanged at the other agent, whose answer is the tracer's; the traces are here."""
    body = v04([wire(1)])
    async with (
        upstream(tmp_path / "up.socket" if unix else None) as (other, url),
        Agent(forward=url) as agent,
    ):
        sent = {
            "Datadog-Meta-Lang": "python",
            "X-Datadog-Trace-Count": "1",
            "Content-Type": "application/msgpack",
        }
        assert await send(agent.url, body, headers=sent) == RATES
        other.answer = {}
        await send(agent.url, b"stats", path="/v0.6/stats?a=b")
        assert other.taken == [("POST", "/v0.4/traces", body), ("POST", "/v0.6/stats?a=b", b"stats")]
        assert {key: other.headers[0][key] for key in sent} == sent
        assert await agent.drain()
        assert len(agent.store) == 1
        assert agent.store.counters.snapshot()["forwarded_payloads"] == 2


async def test_a_slow_agent_keeps_no_tracer_waiting() -> None:
    """After a second the tracer has our answer; what is under way goes on, and is ended with the agent."""
    async with upstream() as (other, url), Agent(forward=url) as agent:
        other.release.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await send(agent.url, v04([wire(1)])) == ACCEPTED
        assert PATIENCE * 0.9 <= loop.time() - began < PATIENCE * 4
        assert await agent.drain()
        assert len(agent.store) == 1


@pytest.mark.parametrize("status", [404, 429, 500])
async def test_what_the_other_agent_refuses_is_counted_not_told(status: int) -> None:
    """A tracer is never told off, whatever the agent behind says, or when there is none."""
    async with upstream() as (other, url), Agent(forward=url) as agent:
        other.status = status
        assert await send(agent.url, v04([wire(1)])) == ACCEPTED
        assert agent.store.counters.snapshot()["failed_forwards"] == 1
    async with Agent(forward=url) as agent:  # nothing listens there any more
        assert await send(agent.url, v04([wire(1)])) == ACCEPTED
        assert agent.store.counters.snapshot()["failed_forwards"] == 1


async def test_two_agents_do_not_play_ball() -> None:
    """What was forwarded once is not forwarded again."""
    async with upstream() as (other, url), Agent(forward=url) as agent:
        assert await send(agent.url, v04([wire(1)]), headers={MARK: "1"}) == ACCEPTED
        assert other.taken == []


@pytest.mark.parametrize(
    "url", ["agent:8126", "ftp://agent", "http://", "unix://", "http://a:b", "http://a:99999999"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Before anything is sent there."""
    with pytest.raises(AgentError, match="no agent's address"):
        check_url(url)


# -- the file


def test_a_file_keeps_traces(tmp_path: Path) -> None:
    """What was stored is there in the next process: found, filtered, joined with what comes later, not doubled."""
    path = tmp_path / "traces.db"
    store = TraceStore(path=path)
    store.add([chunk(span(1, meta={"a": "b"}), span(2, 1, service="worker", error=1)), chunk(span(1), low=9)])
    told = [one.to_json() for one in store.summaries()]
    store.close()
    again = TraceStore(path=path)
    assert [one.to_json() for one in again.summaries()] == told
    again.add([chunk(span(2, 1)), chunk(span(3, 1), high=None)])
    assert sorted(one.span_id for one in again.find("last").spans) == [1, 2, 3]
    assert again.counters.snapshot()["duplicate_spans"] == 1
    again.close()


def test_a_file_stays_within_its_bound(tmp_path: Path) -> None:
    """Also a file that is larger than the new bound: the oldest make room."""
    path = tmp_path / "traces.db"
    store = TraceStore(path=path)
    for low in range(1, 200):
        store.add([chunk(span(1, resource="x" * 500), low=low)])
    held = store.stored_bytes
    store.close()
    smaller = TraceStore(held // 4, path)
    smaller.add([chunk(span(1), low=1000)])
    assert smaller.stored_bytes <= held // 4
    assert smaller.find("last").trace_id & 0xFFFF == 1000
    smaller.close()


def test_another_program_s_file_is_left_alone(tmp_path: Path) -> None:
    """A database of something else, a file that is none, and one that is in use are refused with a hint."""
    path = tmp_path / "other.db"
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE t (x)')",
            path,
        ],
        check=True,
    )
    with pytest.raises(AgentError, match="of something else"):
        TraceStore(path=path)
    (tmp_path / "text").write_text("no database, though long enough to be looked at" * 50)
    with pytest.raises(AgentError, match="cannot use"):
        TraceStore(path=tmp_path / "text")
    store = TraceStore(path=tmp_path / "traces.db")
    with pytest.raises(AgentError, match="locked") as told:
        TraceStore(path=tmp_path / "traces.db")
    assert "another" in told.value.hint
    store.close()
    with pytest.raises(AgentError):
        TraceStore(path=tmp_path / "no" / "such" / "folder.db")
