"""The main demo: three processes, real servers, one trace."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from asynctrace.agent import start_in_thread
from demos import launcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctrace.agent import AgentThread, Span, Trace

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


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[AgentThread, str]]:
    """The demo's three services, and the agent they send to."""
    with ExitStack() as running:
        agent = running.enter_context(start_in_thread())
        yield agent, launcher.start_shop(running, agent.url)


def order(shop: tuple[AgentThread, str], customer: str, *items: str) -> tuple[int, Trace]:
    """Send one; gives its status and its whole trace."""
    agent, url = shop
    status, _, trace = launcher.send(agent, url, launcher.Order(customer, items, "", ""))
    return status, trace


def label(span: Span) -> str:
    """Service and what a person calls it: the first words of a query, the function, the route."""
    text = span.resource.rpartition(".")[2] if span.resource == span.name else span.resource
    words = text.split()
    return f"{span.service} {' '.join(words[:1] if words[0] == 'basic.deliver' else words[:2])}"


@pytest.mark.timeout(60)
def test_an_order_is_one_trace_of_three_processes(shop: tuple[AgentThread, str]) -> None:
    """From HTTP through SQL and a second service over RabbitMQ to the worker: names, parents, services."""
    status, trace = order(shop, "ann", "tea", "milk")
    assert status == 201
    by_id = {span.span_id: span for span in trace.spans}
    tree: dict[str, list[str]] = {}
    for span in sorted(trace.spans, key=lambda one: one.start):
        if span.parent_id:
            tree.setdefault(label(by_id[span.parent_id]), []).append(label(span))
    tree = {parent: sorted(children) for parent, children in tree.items()}
    expected = {parent: sorted(children) for parent, children in TREE.items()}
    expected["shop price_cart"][0] = "shop GET /quote"
    assert tree == expected
    assert trace.services == ["pricing", "shop", "worker"]
    assert not any(span.error for span in trace.spans)


@pytest.mark.timeout(60)
def test_a_sleep_is_as_long_as_it_was(shop: tuple[AgentThread, str]) -> None:
    """A sleep of 60 ms shows at least 60 ms and no more than its parent."""
    _, trace = order(shop, "ann", "saffron")
    [slow] = [span for span in trace.spans if span.name == "demos.shop.price_item"]
    [cart] = [span for span in trace.spans if span.span_id == slow.parent_id]
    assert 60 * MS <= slow.duration <= cart.duration
    assert slow.meta["item"] == "saffron"


@pytest.mark.timeout(60)
def test_an_order_that_fails_in_sql_shows_where(shop: tuple[AgentThread, str]) -> None:
    """The query and the request are errors, nothing else is; the worker's part is in the same trace."""
    status, trace = order(shop, "bob", "saffron")
    assert status == 500
    assert sorted(label(span) for span in trace.spans if span.error) == [
        "shop INSERT INTO",
        "shop POST /orders",
    ]
    [query] = [span for span in trace.spans if span.error and span.type == "sql"]
    assert query.meta["error.type"].endswith("CheckViolationError")
    assert trace.services == ["pricing", "shop", "worker"]


@pytest.mark.timeout(60)
def test_the_command_draws_every_trace_and_ends_well() -> None:
    """`python3 -m demos`: each trace with its last line, exit code 0, nothing on stderr."""
    ran = subprocess.run([sys.executable, "-m", "demos"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    closing = r"^trace [0-9a-f]{32}: \d+ spans, 3 services \(pricing, shop, worker\)$"
    assert len(re.findall(closing, ran.stdout, re.MULTILINE)) == len(launcher.ORDERS)


@pytest.mark.timeout(60)
def test_keep_leaves_everything_running_until_it_is_told() -> None:
    """`--keep` prints the addresses and ends at Ctrl-C with everything it started."""
    command = [sys.executable, "-m", "demos", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout.readline, "Ctrl-C ends it.\n")
        addresses = [line.split()[1] for line in lines if line.startswith(("agent  http", "shop   http"))]
        os.kill(demo.pid, signal.SIGINT)
        assert demo.wait() == 0
    assert len(addresses) == 2
    command = [sys.executable, "-m", "asynctrace", "show", "last", "--url", addresses[0]]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.mark.timeout(60)
def test_a_service_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear message with the service's own words, and nothing left running."""
    monkeypatch.setitem(os.environ, "ASYNCTRACE_AMQP_URL", "amqp://guest:wrong@127.0.0.1:1/")
    ran = subprocess.run([sys.executable, "-m", "demos"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "ASYNCTRACE_AMQP_URL" in ran.stderr
    assert "Traceback" not in ran.stderr
