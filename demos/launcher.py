"""`python3 -m demos`: one trace from HTTP through SQL and RabbitMQ to a worker, in three processes.

Starts the shop, sends it a handful of requests and draws what the embedded agent was sent.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from asynctrace.agent import start_in_thread
from asynctrace.agent.client import find_viewer
from demos import envoy
from demos.processes import DemoError, Running, ServiceProcess, service_environment
from demos.services import ServiceUnavailable, postgres, rabbitmq
from demos.tables import demo_tables
from demos.traces import known, new_trace, say, show, wait_for_reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynctrace.agent import AgentThread, Trace

SERVICES = {"shop", "pricing", "worker"}


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
        "shop prices both items at once (two bars over each other), then calls pricing, another process with a query "
        "of its own. The worker takes the order from its queue: its part stands below the publish, and goes on when "
        "the request has long been answered.",
    ),
    Order(
        "ann",
        ("tea", "saffron", "sugar"),
        "A slow order",
        "Three price_item side by side. The longest, saffron's 60 ms, is what the request waited for; making the "
        "other two faster would win nothing.",
    ),
    Order(
        "bob",
        ("saffron",),
        "An order that fails in SQL",
        "bob may not spend that much: the INSERT breaks a constraint, and the request ends as a 500. The refusal was "
        "published all the same and the worker handled it: one trace, the error where it happened.",
    ),
)

EXAMPLES = """\
examples:
  python3 -m demos              three processes, three orders, three traces
  python3 -m demos --keep       the same, and the shop stays open: curl it
  python3 -m demos flamegraphs  the shapes every tracing tutorial begins with
  python3 -m demos envoy        a proxy that traces, too, between two services

Each trace has an address in the viewer; an `asynctrace view` that runs beside
gets them, too. Each ends with a line for scripts:
  trace <32 hex digits>: <n> spans, 3 services (pricing, shop, worker)

PostgreSQL and RabbitMQ are found on this machine, or started for the demo;
ASYNCTRACE_POSTGRES_URL and ASYNCTRACE_AMQP_URL name servers of yours. In them
the demo works in a schema and a queue of its own, and removes both. Envoy is
the one on PATH, or fetched once; nothing is installed.
"""


def main(argv: Sequence[str]) -> int:
    """The demo's exit code: 0, 1 with a message, or 128 and the signal that ended it."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.keep and options.demo == "flamegraphs":
        parser.error("--keep is for services, and flamegraphs has none")
    try:
        if options.demo == "flamegraphs":
            from demos.flamegraphs import main as flamegraphs

            return flamegraphs()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, lambda number, _: sys.exit(128 + number))
        with ExitStack() as running:
            try:
                _run(running, options.demo, keep=options.keep)
            finally:  # what follows is short, and half of it would leave tables behind
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
    except (DemoError, ServiceUnavailable) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 0 if options.keep else 128 + signal.SIGINT
    except BrokenPipeError:  # `python3 -m demos | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m demos",
        description="Run a few small services, send them requests, and draw the traces.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "demo",
        nargs="?",
        choices=("shop", "flamegraphs", "envoy"),
        default="shop",
        help="which one to run; %(default)s when left out",
    )
    parser.add_argument("--keep", action="store_true", help="leave the services running; Ctrl-C ends them")
    return parser


def _run(running: ExitStack, demo: str, *, keep: bool) -> None:
    viewer = find_viewer(os.environ)
    agent = running.enter_context(start_in_thread(forward=viewer))
    run = envoy.run if demo == "envoy" else _orders
    services, command = run(running, agent, viewer or agent.url)
    if keep:
        _keep(agent, services, command)
    elif viewer is None:
        wait_for_reader()


def _orders(running: ExitStack, agent: AgentThread, page: str) -> tuple[Running, str]:
    """Show the traces of all orders; gives what runs, and a command that sends one more."""
    shop = start_shop(running, agent.url)
    say("shop, pricing and worker are up: three processes; sending orders\n")
    for order in ORDERS:
        status, answer, trace = send(agent, shop, order)
        title = f"{order.title}: POST /orders {' '.join(order.items)} -> {status} {answer}"
        show(trace, title, order.reading, page)
    order_line = json.dumps({"customer": "ann", "items": ["tea"]})
    return shop, f"curl -d '{order_line}' {shop.address}/orders"


def start_shop(running: ExitStack, agent_url: str) -> Running:
    """The servers, the tables and the three services, all of which end with `running`."""
    database, broker = running.enter_context(postgres()), running.enter_context(rabbitmq())
    say(f"PostgreSQL {database.how}; RabbitMQ {broker.how}")
    environment = {
        **service_environment(agent_url),
        "DEMO_POSTGRES_URL": database.url,
        "DEMO_SCHEMA": running.enter_context(demo_tables(database.url)),
        "DEMO_AMQP_URL": broker.url,
        "DEMO_QUEUE": f"asynctrace-demo-{uuid.uuid4().hex[:12]}",
    }

    def start(name: str) -> ServiceProcess:
        service = ServiceProcess(name, environment)
        running.callback(service.stop)
        return service

    pricing, worker = start("pricing"), start("worker")
    environment["DEMO_PRICING_URL"] = pricing.wait_until_ready().address
    shop = start("shop")
    worker.wait_until_ready()
    for service in (pricing, worker, shop):  # all are told to end before the first is waited for
        running.callback(service.end)
    return Running(shop.wait_until_ready().address, (pricing, worker, shop))


def send(agent: AgentThread, shop: Running, order: Order) -> tuple[int, str, Trace]:
    """Send an order; gives status, answer and, once all of it has arrived, its trace."""
    before = known(agent)
    status, answer = place(shop, order)
    return status, answer, new_trace(agent, before, SERVICES, shop)


def place(shop: Running, order: Order) -> tuple[int, str]:
    """Place an order at the shop; gives the status and what it answered."""
    order_line = {"customer": order.customer, "items": order.items}
    status, reason, answer = shop.ask("/orders", json.dumps(order_line).encode())
    return status, f"total {json.loads(answer)['total']}" if status == HTTPStatus.CREATED else reason


def _keep(agent: AgentThread, services: Running, command: str) -> None:
    entry = services.services[-1].name
    print(f"agent  {agent.url}\n{entry:5}  {services.address}\n")
    print(f"Open {agent.url} in a browser, and send requests:\n")
    print(f"  {command}")
    print(f"  {shlex.quote(_shortest(sys.executable))} -m asynctrace show last --url {agent.url}\n")
    say("Ctrl-C ends it.")
    while True:  # not signal.pause(): it would sleep through a signal that comes a moment before it
        services.check()
        time.sleep(0.2)


def _shortest(path: str) -> str:
    """A path below the current folder without the folder."""
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here
