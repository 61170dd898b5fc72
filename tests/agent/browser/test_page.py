"""What a person does with the page."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from asynctrace.agent import AgentThread, start_in_thread
from asynctrace.agent.spans import Link, Span
from tests.agent.payloads import TRACE_ID, chunk, span

if TYPE_CHECKING:
    from pathlib import Path

    from tests.agent.browser.pages import Viewer

OTHER = 0x99


def cart() -> list[Span]:
    """A request with everything that can be drawn."""
    client, server, sql = (
        {"span.kind": "client"},
        {"span.kind": "server"},
        {"db.name": "shop", "span.kind": "client"},
    )
    return [
        span(1, name="web.request", resource="GET /cart", ms=100, meta=server, metrics={"process_id": 7.0}),
        span(2, 1, resource="load", at=5, ms=60),
        span(3, 1, resource="prices", at=6, ms=40),
        span(
            4,
            2,
            name="postgres.query",
            resource="SELECT price FROM items WHERE id = $1",
            type="sql",
            at=40,
            ms=20,
            meta=sql,
            metrics={"db.pool.wait_ms": 30.0},
        ),
        span(
            5,
            3,
            resource="GET /quote",
            type="http",
            at=8,
            ms=30,
            meta=client,
            metrics={"http.client.ttfb_ms": 20.0},
        ),
        span(
            6,
            5,
            resource="GET /quote",
            at=12,
            ms=20,
            service="pricing",
            meta=server,
            metrics={"process_id": 8.0},
        ),
        span(7, 1, resource="basic.publish", at=80, ms=2, meta={"span.kind": "producer"}),
        span(
            8,
            7,
            resource="basic.deliver",
            at=110,
            ms=30,
            service="worker",
            error=1,
            metrics={"messaging.queue_ms": 28.0, "process_id": 9.0},
            meta={
                "span.kind": "consumer",
                "error.type": "ValueError",
                "error.message": "no such item",
                "error.stack": 'Traceback:\n  File "/srv/shop/worker.py", line 61, in handle\n    raise',
                "events": json.dumps([{"name": "retry", "time_unix_nano": 1, "attributes": {"n": 1}}]),
            },
            links=(Link(OTHER, 3, {"why": "batch"}),),
        ),
    ]


def fill(agent: AgentThread) -> None:
    agent.store.add([chunk(span(3, resource="GET /health"), low=OTHER, high=None)])
    agent.store.add([chunk(*cart())])


async def test_a_trace_appears_while_you_watch(viewer: Viewer) -> None:
    """The page that waits shows what comes: the line in the list, the trace, and more of it when more comes."""
    await viewer.says(viewer.page.locator("main"), "Waiting for traces")
    await viewer.says(viewer.page.locator("main"), f"DD_TRACE_AGENT_URL={viewer.agent.url}")
    spans = cart()
    viewer.agent.store.add([chunk(*spans[:4])])
    await viewer.painted(TRACE_ID, 4)
    await viewer.says(viewer.lines, "GET /cart")
    viewer.agent.store.add([chunk(*spans[4:])])
    await viewer.painted(TRACE_ID, 8)
    await viewer.says(viewer.page.locator("h1"), "140 ms · 3 processes · 8 spans · 1 error")
    await viewer.says(viewer.lines, "1 error")


async def test_a_click_selects_and_the_address_says_so(viewer: Viewer) -> None:
    """The detail tells the span; a reload, or the copied link in another window, shows the same."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    await viewer.click(4)
    await viewer.says(viewer.detail, "SELECT price FROM items")
    await viewer.says(viewer.detail, "pool wait30.0 ms")
    await viewer.says(viewer.detail, "db.nameshop")
    assert "span=4" in viewer.page.url
    await viewer.page.reload()
    await viewer.says(viewer.detail, "SELECT price FROM items")
    await viewer.page.get_by_role("button", name="copy link").click()
    assert await viewer.page.evaluate("navigator.clipboard.readText()") == viewer.page.url
    await viewer.page.get_by_role("button", name="parent").click()
    await expect(viewer.detail.locator("h3")).to_have_text("load")


@pytest.mark.slow
async def test_errors_links_and_events_are_told(viewer: Viewer) -> None:
    """The stack with its places, links to and from other traces, events."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID, span="8")
    await viewer.says(viewer.detail, "ValueError")
    await viewer.says(viewer.detail, "no such item")
    await expect(viewer.detail.locator("a.source")).to_have_attribute(
        "href", "vscode://file/srv/shop/worker.py:61"
    )
    await viewer.says(viewer.detail.locator(".events"), "retry")
    await viewer.detail.get_by_text("trace 00000000…000099").click()
    await viewer.painted(OTHER)
    await viewer.says(viewer.detail.locator(".links"), "← from trace 6b040c33…ceffe2")
    await viewer.detail.locator(".links a").click()
    await viewer.painted(TRACE_ID)


async def test_waits_queue_arrow_and_critical_path_are_drawn(viewer: Viewer) -> None:
    """In their colours: pool and queue, the first byte, the path, which can be switched off; and its shares."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    for kind in ("pool", "queue", "answer", "path", "error"):
        await viewer.draws(kind, 10)
    await viewer.says(
        viewer.page.locator(".legend"), "waiting for a poolin a queuewaiting for the first bytecritical path"
    )
    await viewer.says(viewer.page.locator(".budget"), "in a queue 28.0 ms")
    await viewer.page.get_by_role("button", name="Critical path").click()
    await expect(viewer.page.locator(".legend .path")).to_have_count(0)
    await viewer.repainted()
    assert await viewer.pixels("path") == 0


@pytest.mark.slow
async def test_findings_lead_to_their_span(viewer: Viewer) -> None:
    """Sorted, with what they may be worth; a click selects the span."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    findings = viewer.page.locator("section.findings .finding")
    await expect(findings).to_have_count(3)
    await viewer.says(findings.nth(0), "ValueError: no such item")
    await viewer.says(findings.nth(1), "1 wait for a connection of shop's pool\N{MINUS SIGN}30.0 ms")
    await viewer.says(findings.nth(2), "28.0 ms in the queue\N{MINUS SIGN}28.0 ms")
    await findings.nth(1).click()
    await viewer.says(viewer.detail, "SELECT price FROM items")


async def test_the_filter_narrows_the_list_and_is_in_the_address(viewer: Viewer) -> None:
    """Typed, told when it cannot be understood, live, and there again after a reload."""
    fill(viewer.agent)
    await expect(viewer.lines).to_have_count(2)
    await viewer.page.keyboard.press("/")
    await viewer.page.keyboard.type("service:worker")
    await expect(viewer.lines).to_have_count(1)
    viewer.agent.store.add(
        [chunk(span(1, service="worker", resource="nightly"), low=5), chunk(span(1), low=6)]
    )
    await expect(viewer.lines).to_have_count(2)
    await viewer.says(viewer.lines.first, "nightly")
    await viewer.page.reload()
    await expect(viewer.lines).to_have_count(2)
    box = viewer.page.get_by_label("filter of traces")
    await expect(box).to_have_value("service:worker")
    await box.fill("nonsense:1")
    await viewer.says(viewer.page.get_by_role("alert"), "nonsense: is none of duration:")
    viewer.expected_failures = True  # a refused filter is a 400, which the console tells
    await box.fill("")
    await expect(viewer.lines).to_have_count(4)


@pytest.mark.slow
async def test_spans_are_found_within_a_trace(viewer: Viewer) -> None:
    """The same filters, for spans: the others are dimmed and those that are meant counted."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    await viewer.page.get_by_label("find spans in this trace").fill("@db.name:shop")
    await viewer.says(viewer.page.locator(".bar"), "1 span")


@pytest.mark.slow
async def test_everything_can_be_done_with_keys(viewer: Viewer) -> None:
    """Traces, spans, views, zoom, help; in the filter a key is a letter."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    press, heading = viewer.page.keyboard.press, viewer.detail.locator("h3")
    await press("ArrowDown")
    await expect(heading).to_have_text("GET /cart")
    await press("ArrowDown")
    await expect(heading).to_have_text("load")
    await press("ArrowRight")
    await expect(heading).to_have_text("prices")
    await press("ArrowLeft")
    await press("ArrowUp")
    await expect(heading).to_have_text("GET /cart")
    await press("e")
    await expect(heading).to_have_text("basic.deliver")
    await press("Enter")
    assert re.search(r"at=\d+-\d+", viewer.page.url)
    await press("0")
    assert "at=" not in viewer.page.url
    await press("w")
    assert "view=waterfall" in viewer.page.url
    await press("ArrowDown")
    await press("Escape")
    await expect(heading).to_have_count(0)
    await press("j")
    await viewer.painted(OTHER)
    await press("k")
    await viewer.painted(TRACE_ID)
    await press("?")
    await expect(viewer.page.get_by_role("dialog")).to_be_visible()
    await press("Escape")
    await expect(viewer.page.get_by_role("dialog")).to_have_count(0)
    await press("/")
    await press("w")
    await expect(viewer.page.get_by_label("filter of traces")).to_have_value("w")


@pytest.mark.slow
async def test_subtrees_fold_in_the_waterfall(viewer: Viewer) -> None:
    """A row's triangle, or a key, folds what is below it."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID, view="waterfall", span="1")
    height = "document.querySelector('.chart-extent').clientHeight"
    before = await viewer.page.evaluate(height)
    await viewer.page.keyboard.press("ArrowLeft")
    await viewer.page.wait_for_function(f"() => {height} < {before}")
    await viewer.page.keyboard.press("ArrowRight")
    await viewer.page.wait_for_function(f"() => {height} === {before}")


@pytest.mark.slow
async def test_the_mouse_zooms_and_moves(viewer: Viewer) -> None:
    """A double click fills the width with a span, Ctrl+wheel zooms, Shift+wheel moves; a tooltip tells of a bar."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    x, y = await viewer.place(4)
    await viewer.page.mouse.move(x, y)
    await viewer.says(viewer.page.locator(".tooltip"), "SELECT price FROM items")
    await viewer.page.mouse.dblclick(x, y)
    await viewer.page.wait_for_url(re.compile("at="))
    zoomed = viewer.page.url
    await viewer.page.keyboard.down("Control")
    await viewer.page.mouse.wheel(0, -200)
    await viewer.page.keyboard.up("Control")
    await viewer.page.wait_for_function("before => location.href !== before", arg=zoomed)
    closer = viewer.page.url
    await viewer.page.keyboard.down("Shift")
    await viewer.page.mouse.wheel(0, 100)
    await viewer.page.keyboard.up("Shift")
    await viewer.page.wait_for_function("before => location.href !== before", arg=closer)
    await viewer.page.get_by_role("button", name="Whole trace").click()
    assert "at=" not in viewer.page.url


@pytest.mark.slow
async def test_dark_and_light(viewer: Viewer) -> None:
    """As the system prefers, until somebody chooses; the choice is kept."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    shade = "getComputedStyle(document.body).backgroundColor"
    dark, light = f"() => {shade} === 'rgb(18, 21, 28)'", f"() => {shade} === 'rgb(255, 255, 255)'"
    await viewer.page.wait_for_function(dark)
    await viewer.page.emulate_media(color_scheme="light")
    await viewer.page.wait_for_function(light)
    await viewer.page.keyboard.press("t")
    await viewer.page.wait_for_function(dark)
    await viewer.page.reload()
    await viewer.page.wait_for_function(dark)


@pytest.mark.parametrize("width", [360, 700, 1000])
@pytest.mark.slow
async def test_a_narrow_window(viewer: Viewer, width: int) -> None:
    """Nothing is cut off sideways; where there is no room for the list beside the trace, a key and a button show it."""
    await viewer.page.set_viewport_size({"width": width, "height": 800})
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    assert await viewer.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await viewer.page.evaluate("document.querySelector('.chart').clientHeight") > 150
    if width < 860:
        await expect(viewer.lines.first).to_be_hidden()
        await viewer.page.keyboard.press("l")
        await viewer.lines.nth(1).click()
        await viewer.painted(OTHER)
        await expect(viewer.lines.first).to_be_hidden()


async def test_what_is_in_a_trace_is_text(viewer: Viewer) -> None:
    """Markup in names, tags and errors is shown as it is, and does nothing."""
    evil = '"><img src=x onerror=alert(1)><script>alert(2)</script><a href="javascript:alert(3)">'
    viewer.agent.store.add(
        [
            chunk(
                span(
                    1,
                    name=evil,
                    resource=evil,
                    service=evil,
                    error=1,
                    ms=9,
                    meta={
                        evil: evil,
                        "error.type": evil,
                        "error.message": evil,
                        "error.stack": evil,
                        "events": evil,
                        "code.filepath": evil,
                    },
                )
            )
        ]
    )
    odd = {
        "events": '[null, 5, {"name": 7, "attributes": [1]}, {"name": "late", "attributes": {"a": {"b": [1]}}}]'
    }
    viewer.agent.store.add([chunk(span(2, 1, ms=5, meta=odd))])
    await viewer.open(TRACE_ID, span="2")
    await viewer.says(viewer.detail.locator(".events"), "late")
    await viewer.open(TRACE_ID, span="1")
    await viewer.says(viewer.detail, evil)
    await viewer.says(viewer.lines, evil)
    assert await viewer.page.locator("img, script:not([src]), a[href^=javascript]").count() == 0


@pytest.mark.slow
async def test_export_and_import(viewer: Viewer, tmp_path: Path) -> None:
    """A trace saved as JSON opens in another viewer; other files are refused with a word."""
    fill(viewer.agent)
    await viewer.open(TRACE_ID)
    async with viewer.page.expect_download() as started:
        await viewer.page.get_by_text("export .json").click()
    saved = tmp_path / "trace.json"
    await (await started.value).save_as(saved)
    (tmp_path / "junk.json").write_text("{}")
    with start_in_thread() as other:
        await viewer.page.goto(other.url)
        await viewer.page.get_by_label("import a trace").set_input_files(saved)
        await viewer.painted(TRACE_ID, 8)
        await viewer.page.get_by_label("import a trace").set_input_files(tmp_path / "junk.json")
        await viewer.says(viewer.page.locator(".said"), "no trace that asynctrace wrote")
        viewer.expected_failures = True  # a refused file is a 400, which the console tells
        viewer.forget_requests(other.url)


@pytest.mark.slow
async def test_an_agent_that_goes_away_is_told(viewer: Viewer) -> None:
    """And that it is back, with what came meanwhile."""
    fill(viewer.agent)
    await expect(viewer.lines).to_have_count(2)
    await viewer.says(viewer.page.get_by_role("status"), "live")
    viewer.expected_failures = True
    port = viewer.agent.port
    await asyncio.to_thread(viewer.agent.stop)
    await viewer.says(viewer.page.get_by_role("status"), "not reachable")
    with start_in_thread(port=port) as again:
        again.store.add([chunk(span(1, resource="back"), low=7)])
        await viewer.says(viewer.page.get_by_role("status"), "live")
        await viewer.says(viewer.lines, "back")


@pytest.mark.slow
async def test_a_trace_that_is_gone_is_told(viewer: Viewer) -> None:
    """The address of one that made room for others says so."""
    viewer.expected_failures = True  # a 404, which the console tells
    await viewer.page.goto(f"{viewer.agent.url}/#/t/{0xABC:032x}")
    await viewer.says(viewer.page.get_by_role("alert"), "may have made room for newer ones")
