"""`python3 -m demos.pictures`: the pictures of the README, taken from the real page while the real demo runs.

Needs Playwright (in the extra `test`) and a Chromium (`CHROMIUM` names one). An optional argument names the folder to
write to.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from asynctrace.agent import start_in_thread
from demos import launcher

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1280, 620
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The browser of this machine: `CHROMIUM` names another."""
    names = (os.environ.get("CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def main(folder: Path = FOLDER) -> None:
    """Run the demo, look at it, and write what is seen."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as running:
        agent = running.enter_context(start_in_thread())
        shop = launcher.start_shop(running, agent.url)
        for order in launcher.ORDERS:  # the first of each kind opens connections: nobody's usual trace
            launcher.send(agent, shop, order)
        _, slow, failing = [launcher.send(agent, shop, order)[2] for order in launcher.ORDERS]
        browser = running.enter_context(sync_playwright()).chromium.launch(
            executable_path=chromium(), args=FLAGS
        )
        running.callback(browser.close)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark")
        look(page, f"{agent.url}/#/t/{slow.id}", "basic.deliver")
        page.screenshot(path=folder / "flame.png")
        page.emulate_media(color_scheme="light")
        look(page, f"{agent.url}/#/t/{failing.id}?view=waterfall", "INSERT INTO orders")
        page.screenshot(path=folder / "waterfall.png")


def look(page: Page, address: str, span: str) -> None:
    """Go to a trace, choose a span by what it is called, and wait until all of it is there."""
    page.goto(address)
    page.get_by_label("find spans in this trace").fill(f'resource:"{span}*"')
    page.get_by_text("1 span", exact=True).wait_for()
    page.get_by_label("find spans in this trace").press("Enter")
    page.get_by_label("selected span").wait_for()
    page.get_by_label("find spans in this trace").fill("")
    page.get_by_text("1 span", exact=True).wait_for(state="detached")
    page.get_by_label("find spans in this trace").blur()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
