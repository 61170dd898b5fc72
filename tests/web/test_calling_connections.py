"""Connections, timers and sockets of a session belong to nobody: neither trace nor variables of who opened them."""

from __future__ import annotations

import asyncio
import gc
import shutil
import ssl
import subprocess
import tracemalloc
import types
import weakref
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.test_utils import TestServer

from asynctrace import current_span, span, uninstall
from asynctrace._core.handover import handover
from asynctrace._core.provider import top_entry
from asynctrace.aiohttp import traced_session
from asynctrace.aiohttp.client import connections
from asynctrace.testing import Recorder
from tests.web.calls import call, calls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.web.peer import Peer

mine: ContextVar[Any] = ContextVar("mine", default=None)


class Value:
    """Something that a request holds in its context."""


@pytest.fixture(autouse=True)
def _on(installed: Callable[..., None]) -> None:
    installed("aiohttp")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What a connection's own code sees, whenever something arrives."""
    found: list[tuple[Any, Any]] = []
    received = ResponseHandler.data_received

    def data_received(self: Any, data: bytes) -> None:
        found.append((current_span(), mine.get()))
        received(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", data_received)
    return found


async def test_a_connection_runs_in_an_empty_context(peer: Peer, traces: Recorder, seen: Any) -> None:
    """Over TCP: what arrives is handled in nobody's span, with nobody's variables."""
    mine.set(Value())
    async with aiohttp.ClientSession() as session:
        with span("opener"):
            (await session.get(peer.url())).release()
        (await session.get(peer.url())).release()
    assert set(seen) == {(None, None)}
    await calls(traces, 2)


async def test_over_a_unix_socket(tmp_path: Path, traces: Recorder, seen: Any) -> None:
    """The same there."""

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    mine.set(Value())
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, path := str(tmp_path / "socket")).start()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
        with span("opener"):
            (await session.get("http://here/")).release()
    await runner.cleanup()
    assert seen
    assert set(seen) == {(None, None)}
    assert any(one.tags.get("out.host") == "here" for one in traces.spans)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with key and certificate of 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    made = tmp_path / "tls.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", made, "-out", made], check=True, capture_output=True)
    return made


async def test_over_tls(certificate: Path, traces: Recorder, seen: Any) -> None:
    """The same there, and the handshake is done by nobody: two protocols are between the socket and aiohttp's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    mine.set(Value())
    shaken: list[Any] = []

    class Shaken(ssl.SSLObject):
        def do_handshake(self) -> None:
            shaken.append((current_span(), mine.get()))
            super().do_handshake()

    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.sslobject_class = Shaken

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session:
        with span("opener"):
            (await session.get(url, ssl=trusting)).release()
        (await session.get(url, ssl=trusting)).release()
    await runner.cleanup()
    assert seen
    assert set(seen) == set(shaken) == {(None, None)}
    await calls(traces, 2)


async def test_a_name_resolved_in_a_task_of_aiohttps(traces: Recorder, peer: Peer) -> None:
    """A call that is cancelled while its address is looked up: over at once, nothing hangs on."""
    looking, goes_on = asyncio.Event(), asyncio.Event()

    class Resolver(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
            looking.set()
            await goes_on.wait()
            return [
                {
                    "hostname": host,
                    "host": "127.0.0.1",
                    "port": port,
                    "family": family,
                    "proto": 0,
                    "flags": 0,
                }
            ]

        async def close(self) -> None: ...

    connector = aiohttp.TCPConnector(resolver=Resolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        first = asyncio.ensure_future(session.get(peer.url(host="tea.example")))
        await looking.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await call(traces)).outcome == "cancelled"
        second = asyncio.ensure_future(session.get(peer.url(host="tea.example")))
        await asyncio.sleep(0)
        goes_on.set()
        (await second).release()
    await calls(traces, 2)


async def test_nothing_of_a_request_is_kept(peer: Peer, traces: Recorder) -> None:
    """After a call its caller's variables, span and response are free, though connection and timers are still there."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300, sock_read=60)) as session:

        async def request() -> list[weakref.ref[Any]]:
            value = Value()
            mine.set(value)
            with span("caller") as caller:
                async with session.get(peer.url()) as reply:
                    await reply.read()
                return [weakref.ref(value), weakref.ref(caller), weakref.ref(reply)]

        held = await asyncio.ensure_future(request())
        await asyncio.sleep(0)
        assert len(session.connector._conns) == 1  # type: ignore[union-attr]
        handover.finish()  # the trace has left
        gc.collect()
        assert [reference() for reference in held] == [None] * 3
    await call(traces)


async def test_a_websocket_with_a_heartbeat_keeps_nobody(traces: Recorder) -> None:
    """Its timers go on for as long as it lives."""
    contexts: list[Any] = []

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/", echo)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        loop = asyncio.get_running_loop()
        with span("opener"):
            at = loop.call_at

            def call_at(*args: Any, **kwargs: Any) -> Any:
                if args[1].__name__ == "_send_heartbeat":
                    contexts.append(copy_context().get(top_entry))
                return at(*args, **kwargs)

            loop.call_at = call_at  # type: ignore[method-assign,assignment]
            try:
                async with session.ws_connect(server.make_url("/"), heartbeat=30):
                    pass
            finally:
                loop.call_at = at  # type: ignore[method-assign]
    assert contexts
    assert set(contexts) == {None}
    assert traces.spans


async def test_cancelled_while_it_connects(traces: Recorder) -> None:
    """No connection, socket or task is left; the cancellation is the caller's own."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Semaphore(0)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.release()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    context = ssl.create_default_context()
    async with aiohttp.ClientSession() as session:
        task = asyncio.ensure_future(session.get(f"https://{host}:{port}/", ssl=context))
        await traces.wait_for(lambda _: traces.open)
        loop.call_later(0.05, task.cancel)  # the peer never shakes hands
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.TimeoutError):
            await session.get(
                f"https://{host}:{port}/", ssl=context, timeout=aiohttp.ClientTimeout(connect=0.05)
            )
    await gone.acquire()
    await gone.acquire()
    silent.close()
    assert [one.outcome for one in await calls(traces, 2)] == ["cancelled", "timeout"]


async def test_a_coroutine_in_another_context() -> None:
    """Results, exceptions, cancellation and closing go through; it is the same task."""

    @types.coroutine
    def ask(question: str) -> Any:
        return (yield question)

    async def talk() -> str:
        first = await ask(f"{mine.get()}")
        try:
            await ask(first)
        except KeyError:
            return "caught"
        return "not thrown"

    mine.set("outside")
    running = connections._in_context(copy_context().__class__(), talk())
    assert running.send(None) == "None"
    assert running.send("answer") == "answer"
    with pytest.raises(StopIteration) as end:
        running.throw(KeyError())
    assert end.value.value == "caught"
    closing = connections._in_context(copy_context().__class__(), talk())
    closing.send(None)
    closing.close()


async def test_sessions_traced_by_hand_keep_the_doors_open(peer: Peer) -> None:
    """And let them shut when they are gone."""
    own = vars(aiohttp.BaseConnector)["connect"]
    session = traced_session(aiohttp.ClientSession())
    uninstall()
    assert vars(aiohttp.BaseConnector)["connect"] is own
    await session.close()
    del session
    assert not hasattr(vars(aiohttp.BaseConnector)["connect"], "__wrapped__")
    assert peer.asked == []


async def _many(peer: Peer, traces: Recorder, count: int) -> None:
    """So many calls at concurrency 50, bodies read, left, and dropped in turn: none is lost.

    Memory stays flat in the last fifth of them: to trace it makes them four times as slow.
    """

    async def work(session: aiohttp.ClientSession, number: int) -> None:
        for turn in range(number):
            with span("caller"):
                reply = await session.get(peer.url())
                if turn % 3 == 0:
                    await reply.read()
                elif turn % 3 == 1:
                    reply.release()

    async def lot(size: int) -> int:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(work(session, size // 50) for _ in range(50)))
        peer.asked.clear()
        await traces.wait_for(lambda _: not traces.open)
        spans = [one for one in traces.spans if one.name == "aiohttp.request"]
        callers = {one.span_id: one.trace_id for one in traces.spans if one.name == "caller"}
        assert all(callers.pop(one.parent_id or 0) == one.trace_id for one in spans)
        assert callers == {}
        done.append(len(spans))
        traces.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    done: list[int] = []
    for _ in range(4):
        await lot(count // 5)
    tracemalloc.start()
    try:
        first, *_, last = [await lot(count // 20) for _ in range(4)]
    finally:
        tracemalloc.stop()
    assert done == [count // 5] * 4 + [count // 20] * 4
    assert last - first < 2 * count


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_memory_of_many_calls(peer: Peer) -> None:
    """20,000 calls, fifty at once: none lost, none in another's trace, and nothing kept."""
    with Recorder(send=False) as traces:
        await _many(peer, traces, 20_000)
