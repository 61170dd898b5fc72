"""The main demo: three processes, real servers, one trace."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import aio_pika
import asyncpg
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity

from asynctrace.agent import start_in_thread
from demos import launcher
from demos.tables import demo_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctrace.agent import AgentThread, Span, Trace
    from demos.processes import Running
    from demos.services import Service

MS = 1_000_000

TREE = {
    "shop POST /orders": [
        "shop SELECT credit",
        "shop price_cart",
        "shop INSERT INTO",
        "shop basic.publish <default>",
    ],
    "shop price_cart": ["shop price_item", "shop price_item", "shop GET /quote"],
    "shop GET /quote": ["pricing GET /quote"],
    "pricing GET /quote": ["pricing quote"],
    "pricing quote": ["pricing SELECT coalesce(sum(price),"],
    "shop basic.publish <default>": ["worker basic.deliver"],
    "worker basic.deliver": ["worker reserve_stock", "worker write_invoice", "worker INSERT INTO"],
}
"""Who stands below whom, in the order of their starts, for an order of two items."""

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(60)]
"""Processes of their own take a second or two to start, more on a busy machine."""


@pytest.fixture(scope="module")
def running(servers: None) -> Iterator[tuple[AgentThread, Running]]:
    """The demo's three services, and the agent they send to."""
    with ExitStack() as stack:
        agent = stack.enter_context(start_in_thread())
        yield agent, launcher.start_shop(stack, agent.url)


def order(running: tuple[AgentThread, Running], customer: str, *items: str) -> tuple[int, Trace]:
    """Send one; gives its status and its whole trace."""
    status, _, trace = launcher.send(*running, launcher.Order(customer, items, "", ""))
    return status, trace


def label(span: Span) -> str:
    """Service and what a person calls it: the first words of a query, the function, the route."""
    text = span.resource.rpartition(".")[2] if span.resource == span.name else span.resource
    words = text.split()
    return f"{span.service} {' '.join(words[:1] if words[0] == 'basic.deliver' else words[:2])}"


def test_an_order_is_one_trace_of_three_processes(running: tuple[AgentThread, Running]) -> None:
    """From HTTP through SQL and a second service over RabbitMQ to the worker: names, parents, services."""
    status, trace = order(running, "ann", "tea", "milk")
    assert status == 201
    by_id = {span.span_id: span for span in trace.spans}
    tree: dict[str, list[str]] = {}
    for span in sorted(trace.spans, key=lambda one: one.start):
        if span.parent_id:
            tree.setdefault(label(by_id[span.parent_id]), []).append(label(span))
    assert tree == TREE
    assert trace.services == ["pricing", "shop", "worker"]
    assert not any(span.error for span in trace.spans)


def test_a_sleep_is_as_long_as_it_was(running: tuple[AgentThread, Running]) -> None:
    """A sleep of 60 ms shows at least 60 ms and no more than its parent."""
    _, trace = order(running, "ann", "saffron")
    [slow] = [span for span in trace.spans if span.name == "demos.shop.price_item"]
    [cart] = [span for span in trace.spans if span.span_id == slow.parent_id]
    assert 60 * MS <= slow.duration <= cart.duration
    assert slow.meta["item"] == "saffron"


def test_an_order_that_fails_in_sql_shows_where(running: tuple[AgentThread, Running]) -> None:
    """The query and the request are errors, nothing else is; the worker's part is in the same trace."""
    status, trace = order(running, "bob", "saffron")
    assert status == 500
    assert sorted(label(span) for span in trace.spans if span.error) == [
        "shop INSERT INTO",
        "shop POST /orders",
    ]
    [query] = [span for span in trace.spans if span.error and span.type == "sql"]
    assert query.meta["error.type"].endswith("CheckViolationError")
    assert trace.services == ["pricing", "shop", "worker"]


def query(url: str, sql: str, *arguments: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(sql, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_the_tables_go_with_the_demo(postgres: Service) -> None:
    """They are in a schema of their own name, which is dropped."""
    count = "SELECT count(*) FROM information_schema.schemata WHERE schema_name = $1"
    with demo_tables(postgres.url) as schema:
        assert query(postgres.url, count, schema) == 1
    assert query(postgres.url, count, schema) == 0


def test_the_queue_goes_with_the_demo(rabbitmq: Service) -> None:
    """The worker's queue is deleted when the worker ends."""
    with ExitStack() as stack:
        agent = stack.enter_context(start_in_thread())
        _, trace = order((agent, launcher.start_shop(stack, agent.url)), "ann", "tea")
        [queue] = [span.meta["amqp.queue"] for span in trace.spans if "amqp.queue" in span.meta]

    async def look() -> None:
        async with await aio_pika.connect(rabbitmq.url) as connection:
            channel = await connection.channel()
            with pytest.raises(ChannelNotFoundEntity):
                await channel.declare_queue(queue, passive=True)

    asyncio.run(look())
