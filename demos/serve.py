"""Run one of the demo's services: `python -m demos.serve shop`.

Its own module, so that the services are imported by name and their functions' spans are called after them. Ends when
its standard input does: that is the launcher, gone.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
import threading

from demos.environment import ready


def end_with_launcher() -> None:
    """Also when it was killed and could not tell us to stop."""

    def watch() -> None:
        os.read(
            0, 1
        )  # sys.stdin.buffer.read() would hold a lock that the interpreter's end waits a second for
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def serve(name: str) -> None:
    service = importlib.import_module(f"demos.{name}")
    if hasattr(service, "main"):
        asyncio.run(service.main())
        return
    from aiohttp import web

    listening = socket.create_server(("127.0.0.1", 0))
    app = service.make_app()

    async def tell(_: web.Application) -> None:
        ready(f"http://127.0.0.1:{listening.getsockname()[1]}")

    app.on_startup.append(tell)
    web.run_app(app, sock=listening, print=None, shutdown_timeout=1)


if __name__ == "__main__":
    end_with_launcher()
    serve(sys.argv[1])
