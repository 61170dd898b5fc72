"""A server on a bare socket, for tests of the client: sees every byte, says what it is told to, and traces nothing."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[["Asked"], Awaitable[None]]


@dataclass
class Asked:
    """One request, as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    writer: asyncio.StreamWriter

    def all(self, name: str) -> list[str]:
        """The values of every header of that name."""
        return [value for key, value in self.headers if key.lower() == name]

    async def say(self, *lines: str) -> None:
        """A status line and headers, as they are given."""
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self.writer.drain()

    async def answer(self, status: str = "200 OK", body: bytes = b"", *headers: str) -> None:
        """A whole answer, in one piece."""
        head = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
        self.writer.write(
            ("\r\n".join(head) + "\r\n\r\n").encode() + (b"" if self.method == "HEAD" else body)
        )
        await self.writer.drain()


async def hello(asked: Asked) -> None:
    """What a peer answers where it is told nothing else."""
    await asked.answer(body=b"hello")


@dataclass
class Peer:
    """What it answers, by path; what it was asked."""

    port: int = 0
    routes: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self.connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = await self._read(reader, writer)
                self.asked.append(asked)
                await self.routes.get(urlsplit(asked.target).path, hello)(asked)
        self.connections.discard(writer)
        writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines)]
        asked = Asked(method, target, headers, b"", writer)
        if length := asked.all("content-length"):
            asked.body = await reader.readexactly(int(length[0]))
        return asked


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[Peer]:
    """A peer, until the end of the block; whoever is still connected then is cut off."""
    peer = Peer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await peer.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for writer in peer.connections:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
