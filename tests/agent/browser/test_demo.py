"""The real demo in the real page: three processes, PostgreSQL and RabbitMQ, watched as it runs."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from demos import launcher, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asynctrace.agent import AgentThread
    from demos.processes import Running
    from demos.services import Service
    from tests.agent.browser.pages import Viewer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def shop(
    agent: AgentThread, postgres: Service, rabbitmq: Service, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    monkeypatch.setenv("ASYNCTRACE_POSTGRES_URL", postgres.url)
    monkeypatch.setenv("ASYNCTRACE_AMQP_URL", rabbitmq.url)
    with ExitStack() as running:
        yield launcher.start_shop(running, agent.url)


async def test_an_order_is_seen_while_it_is_placed(shop: Running, viewer: Viewer) -> None:
    """The page that waits shows the order a moment after it was answered, whole, with its queue and its query."""
    order = launcher.ORDERS[1]
    await asyncio.to_thread(launcher.place, shop, order)
    answered = time.monotonic()
    orders = viewer.lines.filter(has_text="POST /orders")  # beside the services' first connections
    await expect(orders).to_have_count(1)
    print(f"in the list {time.monotonic() - answered:.2f} s after the answer")
    assert time.monotonic() - answered < 4
    await orders.click()
    await viewer.says(viewer.page.locator("h1"), "3 processes · 16 spans")
    for lane in ("shop 9", "pricing 3", "worker 4"):
        await viewer.says(viewer.page.locator(".sub"), lane)
    await viewer.draws("path", 100)
    await viewer.draws("queue", 20)  # the arrow from the publish to the worker
    await viewer.page.get_by_label("find spans in this trace").fill("type:sql service:pricing")
    await expect(viewer.page.get_by_text("1 span", exact=True)).to_be_visible()
    await viewer.page.get_by_label("find spans in this trace").press("Enter")
    await expect(viewer.detail.locator("h3")).to_have_text(re.compile("SELECT coalesce"))


async def test_an_order_that_fails_says_why(shop: Running, viewer: Viewer) -> None:
    """The filter finds it, the finding leads to the query that broke the constraint, the stack to the shop's line."""
    for order in launcher.ORDERS:
        await asyncio.to_thread(launcher.place, shop, order)
    await expect(viewer.lines.filter(has_text="POST /orders")).to_have_count(3)
    await viewer.page.get_by_label("filter of traces").fill("error:*CheckViolation*")
    await expect(viewer.lines).to_have_count(1)
    await viewer.lines.first.click()
    await viewer.page.locator(".finding.errors").click()
    await viewer.says(viewer.detail, "INSERT INTO orders")
    await viewer.says(viewer.detail.locator(".failure"), "within_credit")
    await expect(viewer.detail.locator("pre a.source").first).to_have_attribute(
        "href", re.compile("^vscode://file/")
    )


async def test_the_pictures_of_the_readme_are_taken(
    postgres: Service, rabbitmq: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a script, from the page while the demo runs; they are small."""
    monkeypatch.setenv("ASYNCTRACE_POSTGRES_URL", postgres.url)
    monkeypatch.setenv("ASYNCTRACE_AMQP_URL", rabbitmq.url)
    await asyncio.to_thread(pictures.main, tmp_path)
    taken = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(taken) == {path.name for path in pictures.FOLDER.iterdir()} == {"flame.png", "waterfall.png"}
    assert all(10_000 < size < 250_000 for size in taken.values())
