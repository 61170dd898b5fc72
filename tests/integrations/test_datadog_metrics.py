"""What Datadog computes its trace metrics from, for every kind of span we make, read from the bytes at the agent.

- `_dd.top_level` marks a service's entry spans; hits, errors and latency of a service are theirs.
- `_dd.measured` asks for the same of a span that is not an entry.
- `_dd.base_service` names the service that made a span which carries another service's name.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import aio_pika
import aiohttp
import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from asynctrace import atraced, span, traced_app

if TYPE_CHECKING:
    from demos.services import Service
    from tests.sink import Sink

TABLE = {
    # span:     service,    type,     kind,       measured, top level, base service
    "served": ("tests", "web", "server", 1, 1, None),
    "called": ("tests", "http", "client", None, None, None),
    "connected": ("postgres", "sql", "client", None, 1, "tests"),
    "queried": ("postgres", "sql", "client", 1, 1, "tests"),
    "published": ("tests", "worker", "producer", 1, None, None),
    "processed": ("tests", "worker", "consumer", 1, 1, None),
    "decorated": ("tests", "", None, None, None, None),
    "of another service": ("billing", "", "internal", None, 1, "tests"),
    "root": ("tests", "", None, None, 1, None),
}


def which(sent: dict[str, Any]) -> str:
    """The row of the table a span belongs in."""
    by_component = {"aiohttp": "served", "aiohttp_client": "called"}
    component = sent["meta"].get("component")
    if component == "asyncpg":
        return {"postgres.connect": "connected", "postgres.query": "queried"}[sent["name"]]
    if component == "aio_pika":
        return {"producer": "published", "consumer": "processed"}[sent["meta"]["span.kind"]]
    return by_component.get(component) or sent["name"].rpartition(".")[2]


@atraced
async def decorated() -> None:
    with span("of another service", service="billing", kind="internal"):
        await asyncio.sleep(0)


@pytest.fixture
async def arrived(
    installed: Any, sink: Sink, postgres: Service, rabbitmq: Service
) -> dict[str, dict[str, Any]]:
    """One span of every kind, by its row."""
    installed()
    handled = asyncio.Event()

    async def handle(message: Any) -> None:
        await message.ack()
        handled.set()

    async with (
        await aio_pika.connect(rabbitmq.url) as connection,
        asyncpg.create_pool(postgres.url, min_size=1) as pool,
    ):
        channel = await connection.channel()
        queue = await channel.declare_queue(f"asynctrace-{uuid.uuid4().hex}", exclusive=True)
        tag = await queue.consume(handle)

        async def serve(_: web.Request) -> web.Response:
            await decorated()
            await pool.fetchval("SELECT 1")
            await channel.default_exchange.publish(aio_pika.Message(b""), queue.name)
            return web.Response()

        app = traced_app(web.Application())
        app.router.add_get("/", serve)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            with span("root"):
                async with session.get(server.make_url("/")) as reply:
                    assert reply.status == 200
        await handled.wait()
        await queue.cancel(tag)
    return {which(sent): sent for sent in await asyncio.to_thread(sink.wait_for, len(TABLE))}


async def test_every_kind_of_span_carries_what_datadog_needs(arrived: dict[str, dict[str, Any]]) -> None:
    """Service, type, kind, measured, top level and base service of every kind of span are as the table says."""
    found = {
        row: (
            sent["service"],
            sent["type"],
            sent["meta"].get("span.kind"),
            sent["metrics"].get("_dd.measured"),
            sent["metrics"].get("_dd.top_level"),
            sent["meta"].get("_dd.base_service"),
        )
        for row, sent in arrived.items()
    }
    assert found == TABLE


async def test_they_are_one_trace_with_128_bits(arrived: dict[str, dict[str, Any]]) -> None:
    """All of a request's share a trace, whose upper half comes once a chunk. The pool was opened before it."""
    requests = [sent for row, sent in arrived.items() if row != "connected"]
    assert len({sent["trace_id"] for sent in requests}) == 1
    assert len({sent["meta"]["_dd.p.tid"] for sent in requests if "_dd.p.tid" in sent["meta"]}) == 1
