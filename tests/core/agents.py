"""Agents that are no help."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_500 = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def agent(kind: str) -> Iterator[str]:
    """The URL of one that is `dead` (nobody listens), answers `500`, or `hangs` (reads, and never answers)."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        if kind == "dead":
            server.close()
            yield url
            return
        held: list[socket.socket] = []

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(ANSWER_500)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    if kind == "500":
                        threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield url
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()
