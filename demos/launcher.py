"""`python3 -m demos`: one trace from HTTP through SQL and RabbitMQ to a worker, in three processes.

Starts the shop, sends it a handful of requests and draws what the embedded agent was sent.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import signal
import sys
import textwrap
import time
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctrace.agent import agent_environment, draw_trace, start_in_thread
from asynctrace.agent.client import address_of, find_viewer
from asynctrace.agent.terminal import terminal_width
from asynctrace.agent.text import glyphs_for, wants_color
from demos.processes import DemoError, ServiceProcess, plain_environment
from demos.services import ServiceUnavailable, postgres, rabbitmq
from demos.tables import demo_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynctrace.agent import AgentThread, Trace

SERVICES = {"shop", "pricing", "worker"}
TRACE_SECONDS = 10.0
READER_SECONDS = 600.0
READING_WIDTH = 100


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

Each trace has an address in the viewer; an `asynctrace view` that runs beside
gets them, too. Each ends with a line for scripts:
  trace <32 hex digits>: <n> spans, 3 services (pricing, shop, worker)

PostgreSQL and RabbitMQ are found on this machine, or started for the demo;
ASYNCTRACE_POSTGRES_URL and ASYNCTRACE_AMQP_URL name servers of yours. In them
the demo works in a schema and a queue of its own, and removes both.
"""


def main(argv: Sequence[str]) -> int:
    """The demo's exit code: 0, 1 with a message, or 128 and the signal that ended it."""
    options = _parser().parse_args(argv)
    try:
        if options.demo == "flamegraphs":
            from demos.flamegraphs import main as flamegraphs

            return flamegraphs()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, lambda number, _: sys.exit(128 + number))
        with ExitStack() as running:
            try:
                _run(running, keep=options.keep)
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
        description="Run a small shop of three services, send it orders, and draw their traces.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "demo", nargs="?", choices=("shop", "flamegraphs"), default="shop", help="default: %(default)s"
    )
    parser.add_argument("--keep", action="store_true", help="leave the shop running; Ctrl-C ends it")
    return parser


def _run(running: ExitStack, *, keep: bool) -> None:
    viewer = find_viewer(os.environ)
    agent = running.enter_context(start_in_thread(forward=viewer))
    shop = start_shop(running, agent.url)
    _say("shop, pricing and worker are up: three processes; sending orders\n")
    for order in ORDERS:
        _show(agent, order, shop, viewer or agent.url)
    if keep:
        _keep(agent, shop)
    elif viewer is None:
        _wait_for_reader()


@dataclass(frozen=True)
class Shop:
    """The running demo: where orders go, and who works on them."""

    address: str
    services: tuple[ServiceProcess, ...]

    def check(self) -> None:
        """Raises `DemoError`, with what it said, when a service has ended."""
        for service in self.services:
            service.check()


def start_shop(running: ExitStack, agent_url: str) -> Shop:
    """The servers, the tables and the three services, all of which end with `running`."""
    database, broker = running.enter_context(postgres()), running.enter_context(rabbitmq())
    _say(f"PostgreSQL {database.how}; RabbitMQ {broker.how}")
    environment = {
        **agent_environment(agent_url, plain_environment()),
        "DEMO_POSTGRES_URL": database.url,
        "DEMO_SCHEMA": running.enter_context(demo_tables(database.url)),
        "DEMO_AMQP_URL": broker.url,
        "DEMO_QUEUE": f"asynctrace-demo-{uuid.uuid4().hex[:12]}",
        # a query belongs to the service that asks; without this, ddtrace's older naming has a service `postgres` more
        "DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED": "true",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
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
    return Shop(shop.wait_until_ready().address, (pricing, worker, shop))


def send(agent: AgentThread, shop: Shop, order: Order) -> tuple[int, str, Trace]:
    """Send an order; gives status, answer and, once all of it has arrived, its trace."""
    before = {trace.trace_id for trace in agent.store.traces()}
    status, answer = place(shop, order)
    try:
        trace = agent.wait_for(lambda one: one.trace_id not in before and _is_whole(one), TRACE_SECONDS)
    except TimeoutError as late:
        shop.check()
        raise DemoError(f"the order's trace is not complete: {late}") from None
    return status, answer, trace


def place(shop: Shop, order: Order) -> tuple[int, str]:
    """Place an order at the shop; gives the status and what it answered."""
    body = json.dumps({"customer": order.customer, "items": order.items}).encode()
    request = urllib.request.Request(f"{shop.address}/orders", body, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=TRACE_SECONDS) as reply:
            return reply.status, f"total {json.load(reply)['total']}"
    except urllib.error.HTTPError as failed:
        with failed:
            return failed.code, failed.reason
    except OSError as failed:
        shop.check()
        raise DemoError(f"the shop at {shop.address} does not answer: {failed}") from None


def _is_whole(trace: Trace) -> bool:
    """All three have sent, and nobody's parent is missing: each process sends a part when all of it has ended."""
    parents = {span.parent_id for span in trace.spans}
    return set(trace.services) == SERVICES and parents <= {0, *(span.span_id for span in trace.spans)}


def _show(agent: AgentThread, order: Order, shop: Shop, page: str) -> None:
    status, answer, trace = send(agent, shop, order)
    width = terminal_width()
    print(f"{order.title}: POST /orders {' '.join(order.items)} -> {status} {answer}")
    print(textwrap.fill(order.reading, min(width, READING_WIDTH)))
    print(f"In the browser: {address_of(page, trace.id)}", end="\n\n")
    color, glyphs = wants_color(sys.stdout), glyphs_for(sys.stdout.encoding)
    print(draw_trace(trace, width=width, color=color, glyphs=glyphs), end="\n\n", flush=True)


def _wait_for_reader() -> None:
    """The page is gone when we are: whoever sits at the terminal is given time to look at it."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        _say("The traces stay in the browser until you press Enter.")
        with suppress(OSError):  # where only sockets can be waited for
            select.select([sys.stdin], [], [], READER_SECONDS)


def _keep(agent: AgentThread, shop: Shop) -> None:
    order = json.dumps({"customer": "ann", "items": ["tea"]})
    print(f"agent  {agent.url}\nshop   {shop.address}\n\nOpen {agent.url} in a browser, and send orders:\n")
    print(f"  curl -d '{order}' {shop.address}/orders")
    print(f"  {shlex.quote(_shortest(sys.executable))} -m asynctrace show last --url {agent.url}\n")
    _say("Ctrl-C ends it.")
    while True:  # not signal.pause(): it would sleep through a signal that comes a moment before it
        shop.check()
        time.sleep(0.2)


def _shortest(path: str) -> str:
    """A path below the current folder without the folder."""
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here


def _say(line: str) -> None:
    print(line, flush=True)
