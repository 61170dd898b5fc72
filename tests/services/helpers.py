"""What several tests of the services ask: who still runs, who listens, does the data survive."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
import asyncpg

from demos.services import postgres, rabbitmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from demos.services import Service

ROOT = Path(__file__).resolve().parents[2]
MAKERS: dict[str, Callable[..., Service]] = {"postgres": postgres, "rabbitmq": rabbitmq}


def port_of(service: Service) -> int:
    return int(service.url.rpartition(":")[2].partition("/")[0])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def processes_of(folder: str) -> list[str]:
    """The command lines of all processes that name the folder, or work in it."""
    if sys.platform != "linux":
        listing = subprocess.run(["ps", "-Awwo", "pid=,command="], capture_output=True, text=True, check=True)
        return [line for line in listing.stdout.splitlines() if folder in line]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = Path(process, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = Path(process, "environ").read_bytes().decode(errors="replace")
            if folder in command + environment + str(Path(process, "cwd").readlink()):
                found.append(f"{process.name} {command}")
        except OSError:
            continue
    return found


def wait_for_the_end_of(pid: int, seconds: float) -> bool:
    """Waits for the end of a process that is not our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


async def put(service: Service, text: str) -> None:
    """Leaves something durable on the server."""
    if service.url.startswith("amqp"):
        async with await aio_pika.connect(service.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("kept", durable=True)
            message = aio_pika.Message(text.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, queue.name)
        return
    database = await asyncpg.connect(service.url)
    try:
        await database.execute("CREATE TABLE kept (text text)")
        await database.execute("INSERT INTO kept VALUES ($1)", text)
    finally:
        await database.close()


async def get(service: Service) -> str:
    """What `put` left."""
    if service.url.startswith("amqp"):
        async with await aio_pika.connect(service.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("kept", durable=True)
            message = await queue.get(timeout=10)
            await message.ack()
            return bytes(message.body).decode()
    database = await asyncpg.connect(service.url)
    try:
        return str(await database.fetchval("SELECT text FROM kept"))
    finally:
        await database.close()


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A port that answers every connection with these bytes and closes it; with None it says nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()
