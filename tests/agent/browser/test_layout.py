"""Where bars are put: asked of the page's own modules, in the browser."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.payloads import chunk, span

if TYPE_CHECKING:
    from tests.agent.browser.pages import Viewer

LAYOUT = """async id => {
    const from = name => import(`/asynctrace/page/${name}.js`);
    const [api, { model, drawnStart }, { flame }] = await Promise.all(["api", "model", "layout_flame"].map(from));
    const trace = model(await api.columns(id));
    const layout = flame(trace);
    return [...trace.id].map((id, i) => ({
        id: +id, parent: trace.parent[i] < 0 ? 0 : +trace.id[trace.parent[i]], lane: trace.lane[i], y: layout.y[i],
        start: drawnStart(trace, i), end: trace.end[i],
    }));
}"""


async def layout(viewer: Viewer, *spans: Any) -> dict[int, dict[str, Any]]:
    low = random.getrandbits(60)
    viewer.agent.store.add([chunk(*spans, low=low, high=None)])
    return {one["id"]: one for one in await viewer.page.evaluate(LAYOUT, f"{low:032x}")}


async def test_parallel_siblings_stand_beside_each_other(viewer: Viewer) -> None:
    """Those that overlap have rows of their own, with all that is below them; those one after the other share one."""
    found = await layout(
        viewer,
        span(1, ms=100),
        span(2, 1, at=0, ms=50),
        span(3, 1, at=10, ms=50),
        span(4, 1, at=70, ms=20),
        span(5, 2, at=5, ms=10),
    )
    row = {one: found[one]["y"] for one in found}
    assert row[1] < row[2] == row[4]
    assert row[2] < row[5] < row[3]


@pytest.mark.slow
async def test_no_two_bars_of_a_row_overlap(viewer: Viewer) -> None:
    """In any trace: children are below their parents, lanes below each other, and nothing is drawn over another bar."""
    chance = random.Random(8)
    for size in (1, 5, 40, 300, 300, 300):
        spans = [span(1, ms=1000)]
        for number in range(2, size + 2):
            waits = {"db.pool.wait_ms": chance.choice([0.0, 15.0])}
            spans.append(
                span(number, chance.randrange(1, number), at=chance.randrange(1000), ms=chance.randrange(1, 120),
                     service=chance.choice("abbb"), metrics=waits)
            )  # fmt: skip
        found = await layout(viewer, *spans)
        rows: dict[float, list[dict[str, Any]]] = {}
        for one in found.values():
            rows.setdefault(one["y"], []).append(one)
            if one["parent"] and found[one["parent"]]["lane"] == one["lane"]:
                assert found[one["parent"]]["y"] < one["y"]
        for placed in rows.values():
            placed.sort(key=lambda one: one["start"])
            assert len({one["lane"] for one in placed}) == 1
            for one, following in pairwise(placed):
                assert one["end"] <= following["start"]


@pytest.mark.slow
@pytest.mark.alone
async def test_huge_shapes_are_laid_out_in_time(viewer: Viewer) -> None:
    """Ten thousand spans side by side, below each other, or one after the other: each well below a second."""
    for parent, at in (
        (lambda _: 1, lambda _: 0),
        (lambda n: n - 1, lambda _: 0),
        (lambda _: 1, lambda n: n),
    ):
        low = random.getrandbits(60)
        spans = [span(1, ms=20_000), *(span(n, parent(n), at=at(n), ms=0.9) for n in range(2, 10_001))]
        viewer.agent.store.add([chunk(*spans, low=low, high=None)])
        spent: float = await viewer.page.evaluate(
            """async id => {
                const from = name => import(`/asynctrace/page/${name}.js`);
                const [api, { model }, { flame }] = await Promise.all(["api", "model", "layout_flame"].map(from));
                const trace = model(await api.columns(id));
                const began = performance.now();
                flame(trace);
                return performance.now() - began;
            }""",
            f"{low:032x}",
        )
        print(f"10,000 spans laid out in {spent:.0f} ms")
        assert spent < 1000
