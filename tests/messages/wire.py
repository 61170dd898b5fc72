"""AMQP by hand: what other languages' clients put on the wire, and what they find there, byte for byte."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pamqp import commands, frame, header

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

HEADERS = 1 << 13
"""The flag of the property `headers` in a content header."""

FRAME_END = b"\xce"


def short(text: str) -> bytes:
    return struct.pack("B", len(text)) + text.encode()


def long(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def table(*fields: bytes) -> bytes:
    return long(b"".join(fields))


class Wire:
    """A connection with one channel. Blocks: its messages are few."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._socket = socket.create_connection((where.hostname, where.port or 5672), timeout=5)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._await("Connection.Start")
        login = f"\0{where.username}\0{where.password}"
        self._send(commands.Connection.StartOk(client_properties={}, response=login), 0)
        self._await("Connection.Tune")
        self._send(commands.Connection.TuneOk(channel_max=1, frame_max=131072, heartbeat=0), 0)
        self._send(commands.Connection.Open(), 0)
        self._await("Connection.OpenOk")
        self._send(commands.Channel.Open(), 1)
        self._await("Channel.OpenOk")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def publish(self, queue: str, headers: bytes) -> None:
        """A message without a body, with this header table."""
        self._send(commands.Basic.Publish(exchange="", routing_key=queue), 1)
        payload = struct.pack(">HHQH", 60, 0, 0, HEADERS) + headers
        self._socket.sendall(struct.pack(">BHI", 2, 1, len(payload)) + payload + FRAME_END)

    def get(self, queue: str) -> bytes:
        """The header table of the next message in the queue; its other properties are absent or skipped."""
        self._send(commands.Basic.Get(queue=queue, no_ack=True), 1)
        assert self._await("Basic.GetOk")
        payload = self._frame()[1]
        flags, rest = struct.unpack(">H", payload[12:14])[0], payload[14:]
        for bit, size in ((15, None), (14, None)):  # content type and encoding come before the headers
            if flags & 1 << bit:
                assert size is None
                rest = rest[1 + rest[0] :]
        assert flags & HEADERS
        return rest[: 4 + struct.unpack(">I", rest[:4])[0]]

    def _send(self, method: object, channel: int) -> None:
        self._socket.sendall(frame.marshal(method, channel))  # type: ignore[arg-type]

    def _await(self, name: str) -> object:
        while True:
            kind, payload = self._frame()
            if kind == 1:
                raw = struct.pack(">BHI", kind, 1, len(payload)) + payload + FRAME_END
                method = frame.unmarshal(raw)[2]
                if method.name == name:
                    return method

    def _frame(self) -> tuple[int, bytes]:
        kind, _, size = struct.unpack(">BHI", self._file.read(7))
        payload = self._file.read(size)
        assert self._file.read(1) == FRAME_END
        return kind, payload


def entries(raw: bytes) -> dict[str, tuple[str, bytes]]:
    """The fields of a header table, by name: type and what follows it. Only of types that have a length, or 8 bytes."""
    found, rest = {}, raw[4:]
    while rest:
        name, rest = rest[1 : 1 + rest[0]].decode(), rest[1 + rest[0] :]
        kind, rest = rest[:1].decode(), rest[1:]
        size = 8 if kind in "lT" else 4 + struct.unpack(">I", rest[:4])[0]
        found[name], rest = (kind, rest[:size]), rest[size:]
    return found


def as_dotnet(raw: bytes) -> dict[str, str]:
    """What dd-trace-dotnet sees: only fields of type S, which its client gives as bytes (ContextPropagation.cs)."""
    return {name: value[4:].decode() for name, (kind, value) in entries(raw).items() if kind == "S"}


def as_java(raw: bytes) -> dict[str, str]:
    """What dd-trace-java sees: everything's `toString()`; a byte array's is an address (TextMapExtractAdapter.java)."""
    read: dict[str, Callable[[bytes], str]] = {
        "S": lambda value: value[4:].decode(),
        "l": lambda value: str(struct.unpack(">q", value)[0]),
        "x": lambda _: "[B@1b6d3586",
    }
    return {name: read[kind](value) for name, (kind, value) in entries(raw).items() if kind in read}


__all__ = ["Wire", "as_dotnet", "as_java", "entries", "header", "long", "short", "table"]
