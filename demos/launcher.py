"""`python3 -m demos`: one trace from HTTP through SQL and RabbitMQ to a worker, in three processes.

Starts the shop, sends it a handful of requests and draws what the embedded agent was sent.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctrace.agent import agent_environment, draw_trace, start_in_thread
from asynctrace.agent.text import wants_color
from demos.processes import DemoError, ServiceProcess
from demos.services import ServiceUnavailable, postgres, rabbitmq
from demos.tables import demo_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynctrace.agent import AgentThread, Trace

SERVICES = {"shop", "pricing", "worker"}
TRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Order:
    """One request of the demo, and what to read in its trace."""

    customer: str
    items: tuple[str, ...]
    title: str
    reading: str


ORDERS = (
    Order(
        "ann",
        ("tea", "milk"),
        "An order",
        "shop prices both items at once (two bars over each other), then asks pricing over HTTP, which runs its own\n"
        "query. The message waits for the worker: its part stands below the publish, after the request has ended.",
    ),
    Order(
        "ann",
        ("tea", "saffron", "sugar"),
        "A slow order",
        "Three price_item side by side: the longest of them, saffron's 60 ms, is what the request waited for.",
    ),
    Order(
        "bob",
        ("saffron",),
        "An order that fails in SQL",
        "bob may not spend that much: the INSERT breaks a constraint, which makes the request a 500. The refusal was\n"
        "published all the same, and the worker handled it: one trace, the error where it happened.",
    ),
)


def main(argv: Sequence[str]) -> int:
    """The demo; exit code 0, or 1 with a message."""
    if argv[:1] == ["flamegraphs"]:
        from demos.flamegraphs import main as flamegraphs

        return flamegraphs()
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with ExitStack() as running:
            _run(running, keep=options.keep)
    except (DemoError, ServiceUnavailable, TimeoutError) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m demos",
        description="Run a small shop of three services, send it some orders, and draw their traces as flame graphs.",
        epilog="`python3 -m demos flamegraphs` draws the three shapes every tracing tutorial begins with. PostgreSQL "
        "and RabbitMQ are found or started; ASYNCTRACE_POSTGRES_URL and ASYNCTRACE_AMQP_URL name your own.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running, to be played with; Ctrl-C ends it"
    )
    return parser


def _run(running: ExitStack, *, keep: bool) -> None:
    agent = running.enter_context(start_in_thread())
    shop = start_shop(running, agent.url)
    _say("shop, pricing and worker are up: three processes; sending orders\n")
    for order in ORDERS:
        _show(agent, order, shop)
    if keep:
        _keep(agent, shop)


def start_shop(running: ExitStack, agent_url: str) -> str:
    """The servers, the tables, the three services, all of which end with `running`; gives the shop's address."""
    database, broker = running.enter_context(postgres()), running.enter_context(rabbitmq())
    _say(f"PostgreSQL {database.how}; RabbitMQ {broker.how}")
    environment = {
        **agent_environment(agent_url),
        "DEMO_POSTGRES_URL": database.url,
        "DEMO_SCHEMA": running.enter_context(demo_tables(database.url)),
        "DEMO_AMQP_URL": broker.url,
        "DEMO_QUEUE": f"asynctrace-demo-{uuid.uuid4().hex[:12]}",
        # Datadog's newer naming: a query belongs to the service that asks, not to a service named `postgres`
        "DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED": "true",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }

    services: list[ServiceProcess] = []

    def start(name: str) -> ServiceProcess:
        services.append(ServiceProcess(name, environment))
        running.callback(services[-1].stop)
        return services[-1]

    pricing, worker = start("pricing"), start("worker")
    environment["DEMO_PRICING_URL"] = pricing.wait_until_ready().address
    shop = start("shop")
    worker.wait_until_ready()
    running.callback(
        lambda: [service.end() for service in services]
    )  # all at once, then one is waited for by one
    return shop.wait_until_ready().address


def send(agent: AgentThread, shop: str, order: Order) -> tuple[int, str, Trace]:
    """Send an order; gives status, answer and, once all of it has arrived, its trace."""
    before = {trace.trace_id for trace in agent.store.traces()}
    status, answer = place(shop, order)
    return (
        status,
        answer,
        agent.wait_for(lambda one: one.trace_id not in before and _is_whole(one), TRACE_SECONDS),
    )


def _show(agent: AgentThread, order: Order, shop: str) -> None:
    status, answer, trace = send(agent, shop, order)
    print(f"{order.title}: POST /orders {' '.join(order.items)} -> {status} {answer}")
    print(order.reading)
    print()
    print(draw_trace(trace, color=wants_color(sys.stdout)))
    print(flush=True)


def _is_whole(trace: Trace) -> bool:
    """The request has ended, and what the three services did for it has arrived."""
    return set(trace.services) >= SERVICES and any(span.parent_id == 0 for span in trace.spans)


def place(shop: str, order: Order) -> tuple[int, str]:
    """Place an order at the shop; gives the status and what it answered."""
    body = json.dumps({"customer": order.customer, "items": order.items}).encode()
    request = urllib.request.Request(f"{shop}/orders", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=TRACE_SECONDS
        ) as reply:
            return reply.status, f"total {json.load(reply)['total']}"
    except urllib.error.HTTPError as failed:
        with failed:
            return failed.code, failed.reason


def _keep(agent: AgentThread, shop: str) -> None:
    order = json.dumps({"customer": "ann", "items": ["tea"]})
    print(f"agent  {agent.url}\nshop   {shop}\n")
    print(f"  curl -d '{order}' {shop}/orders")
    print(f"  asynctrace show last --url {agent.url}\n\nCtrl-C ends it.", flush=True)
    signal.pause()


def _say(line: str) -> None:
    print(line, flush=True)
