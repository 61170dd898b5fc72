"""A real browser on the real page. Without a Chromium on this machine these tests are skipped, and say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from asynctrace.agent import start_in_thread
from demos.pictures import FLAGS, chromium
from tests.agent.browser.pages import Viewer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser

    from asynctrace.agent import AgentThread


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them share one browser, and its event loop."""
    found = chromium()
    for item in items:
        if "tests/agent/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.timeout(60))
            if found is None:
                item.add_marker(
                    pytest.mark.skip(
                        reason="no Chromium here: apt-get install chromium, or CHROMIUM=/path/to/it"
                    )
                )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield running
        await running.close()


@pytest.fixture
def agent() -> Iterator[AgentThread]:
    with start_in_thread() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def viewer(browser: Browser, agent: AgentThread) -> AsyncIterator[Viewer]:
    """The page of an agent, open, and at the end looked through for anything it should not have done."""
    context = await browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="dark")
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=agent.url)
    opened = Viewer(await context.new_page(), agent)
    await opened.page.goto(agent.url)
    yield opened
    await context.close()
    opened.assert_well_behaved()
