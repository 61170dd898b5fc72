"""What the page asks: columns, filters, a live list, exports, and nobody else gets an answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings, strategies as st

from asynctrace.agent.embedded import Agent
from asynctrace.agent.export import as_perfetto, as_speedscope
from asynctrace.agent.page_data import TraceView
from asynctrace.agent.readers import API, _chunks_of
from asynctrace.agent.server import PAGE
from asynctrace.agent.spans import Link, Trace
from asynctrace.agent.store import TraceStore
from asynctrace.agent.terminal import draw_trace
from tests.agent.payloads import MS, TRACE_ID, chunk, span

ID = f"{TRACE_ID:032x}"


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with Agent() as running:
        running.store.add(
            [
                chunk(
                    span(1, resource="GET /cart", ms=40, metrics={"process_id": 7.0}),
                    span(
                        2,
                        1,
                        service="pricing",
                        at=5,
                        ms=9,
                        error=1,
                        meta={"db.name": "shop"},
                        links=(Link(0x99, 3),),
                    ),
                ),
                chunk(span(3, resource="GET /health"), low=0x99, high=None),
            ]
        )
        yield running


@pytest.fixture
async def session(agent: Agent) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(agent.url) as opened:
        yield opened


async def get(session: aiohttp.ClientSession, path: str, **options: Any) -> tuple[int, Any]:
    async with session.get(API + path, **options) as reply:
        return reply.status, await reply.json()


async def test_the_page_and_its_files_are_served_under_a_strict_policy(
    session: aiohttp.ClientSession,
) -> None:
    """Page and modules come from the package; the policy lets nothing run or load that does not."""
    for path, kind in (
        ("/", "text/html"),
        (f"{PAGE}/main.js", "text/javascript"),
        (f"{PAGE}/style.css", "text/css"),
    ):
        async with session.get(path) as reply:
            assert (reply.status, reply.content_type) == (200, kind)
            policy = reply.headers["Content-Security-Policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
            assert "unsafe" not in policy
            assert reply.headers["X-Content-Type-Options"] == "nosniff"


async def ask(agent: Agent, path: str) -> bytes:
    """What is answered to a path as it is, which clients would have made straight."""
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "path", ["../server.py", "%2e%2e/server.py", "..%2fserver.py", "/etc/passwd", "none.js", ""]
)
async def test_only_the_page_s_own_files_are_served(agent: Agent, path: str) -> None:
    """No path leads out of its folder."""
    answer = await ask(agent, f"{PAGE}/{path}")
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 404")), answer[:200]


async def test_the_list_is_filtered(session: aiohttp.ClientSession) -> None:
    """`q` keeps out what does not pass, and says what is wrong with it."""
    _, found = await get(session, "/traces", params={"q": "@db.name:shop"})
    assert ([one["trace_id"] for one in found["traces"]], found["total"]) == ([ID], 2)
    status, answer = await get(session, "/traces", params={"q": "nonsense:1"})
    assert (status, answer["error"][:8]) == (400, "nonsense")


async def test_a_span_has_its_links_both_ways(session: aiohttp.ClientSession) -> None:
    """Who links to a span is told with it, whatever trace that is in."""
    _, there = await get(session, f"/traces/{ID}/spans/2")
    assert there["links"] == [{"trace_id": f"{0x99:032x}", "span_id": "3", "attributes": {}}]
    _, back = await get(session, "/traces/99/spans/3")
    assert back["linked_from"] == [{"trace_id": ID, "span_id": "2"}]
    assert (await get(session, f"/traces/{ID}/spans/77"))[0] == 404
    assert (await get(session, f"/traces/{ID}/spans/x"))[0] == 400


async def test_columns_analysis_and_search_of_a_trace(session: aiohttp.ClientSession) -> None:
    """What is drawn, what is found, and which spans a filter means."""
    _, columns = await get(session, f"/traces/{ID}/columns")
    assert (columns["columns"]["id"], columns["lanes"][0]) == (
        ["1", "2"],
        {"service": "shop", "process": "7"},
    )
    _, analysis = await get(session, f"/traces/{ID}/analysis")
    assert [one["kind"] for one in analysis["findings"]] == ["errors"]
    assert (await get(session, f"/traces/{ID}/search", params={"q": "error:true"}))[1] == {"spans": ["2"]}
    assert (await get(session, f"/traces/{ID}/search", params={"q": "x:"}))[0] == 400


async def test_a_trace_that_grows_is_taken_apart_anew(agent: Agent, session: aiohttp.ClientSession) -> None:
    """What was kept of a trace is not shown when there is more of it."""
    assert len((await get(session, f"/traces/{ID}/columns"))[1]["columns"]["id"]) == 2
    agent.store.add([chunk(span(9, 1))])
    assert len((await get(session, f"/traces/{ID}/columns"))[1]["columns"]["id"]) == 3


async def events(reply: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in reply.content:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


async def test_the_list_is_live(agent: Agent, session: aiohttp.ClientSession) -> None:
    """First the list, then what changed: what passes the filter with its line, what passes no more by its id."""
    async with session.get(f"{API}/events", params={"q": "spans:<3"}) as reply:
        assert reply.content_type == "text/event-stream"
        told = events(reply)
        name, first = await anext(told)
        assert (name, len(first["traces"]), first["counters"]["spans"]) == ("list", 2, 3)
        assert [one["findings"] for one in first["traces"]] == [0, 1]
        assert first["traces"][0]["shares"] == [
            {"kind": "code", "label": "shop", "service": "shop", "time": MS}
        ]
        agent.store.add([chunk(span(1), low=5), chunk(span(9, 1))])
        news = [await anext(told)]
        while not news[-1][1]["traces"]:
            news.append(await anext(told))
        name, changed = news[-1]
        assert name == "changed"
        assert [one["trace_id"][-1] for one in changed["traces"]] == ["5"]
        assert changed["gone"] == [ID]


async def test_an_agent_ends_with_pages_watching(agent: Agent, session: aiohttp.ClientSession) -> None:
    """A page that watches keeps neither `drain` nor `stop` waiting."""
    async with session.get(f"{API}/events") as reply:
        await anext(events(reply))
        assert await asyncio.wait_for(agent.drain(), 5)
        await asyncio.wait_for(agent.stop(), 5)


@pytest.mark.parametrize("kind", ["json", "speedscope", "perfetto"])
async def test_an_export_is_a_file(session: aiohttp.ClientSession, kind: str) -> None:
    """Each format comes as a download with a name of its own."""
    async with session.get(f"{API}/traces/{ID}/export", params={"format": kind}) as reply:
        assert reply.headers["Content-Disposition"].startswith(f'attachment; filename="trace-{ID}')
        assert json.loads(await reply.read())
    assert (await get(session, f"/traces/{ID}/export", params={"format": "x"}))[0] == 400


async def test_what_was_exported_can_be_imported(session: aiohttp.ClientSession) -> None:
    """Into another agent, where it is the same; a file of something else is refused with a word."""
    _, exported = await get(session, f"/traces/{ID}")
    async with Agent() as other, aiohttp.ClientSession(other.url) as there:
        for body in (exported, [exported], {"traces": [exported]}):
            async with there.post(f"{API}/import", json=body) as reply:
                assert await reply.json() == {"traces": [ID]}
        assert (await get(there, f"/traces/{ID}"))[1] == exported
        for junk in (
            b"",
            b"[1]",
            b'{"spans": 3}',
            b"[" * 100_000,
            json.dumps({**exported, "spans": [{}]}).encode(),
        ):
            async with there.post(f"{API}/import", data=junk) as reply:
                assert (reply.status, (await reply.json())["error"]) == (
                    400,
                    "this is no trace that asynctrace wrote",
                )
        assert len(other.store) == 1


EXPORTED = Trace(
    TRACE_ID, [span(1, metrics={"a": 1.0}, meta={"b": "c"}, links=(Link(1, 2, {"d": "e"}),)), span(2, 1)]
).to_json()
WRITTEN = [
    "null",
    "true",
    "-1",
    "1e400",
    "5.5",
    "1" * 30,
    '"x"',
    "[]",
    "{}",
    "[{}]",
    '{"a": 1}',
]
values = st.sampled_from(WRITTEN).map(json.loads)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_file_stops_the_import(data: st.DataObject) -> None:
    """Whatever stands where in a file: it is refused, or what is kept of it can be listed, drawn and told again."""
    file = json.loads(json.dumps(EXPORTED))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = file
        while isinstance(place, (dict, list)) and place and data.draw(st.booleans()):
            inner = place[
                data.draw(
                    st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place))))
                )
            ]
            if not isinstance(inner, (dict, list)) or not inner:
                break
            place = inner
        if isinstance(place, dict):
            place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
        else:
            place[0] = data.draw(values)
    try:
        chunks = _chunks_of(json.dumps(file).encode())
    except ValueError as refused:
        assert str(refused) == "this is no trace that asynctrace wrote"  # noqa: PT017 - it may also be taken
        return
    store = TraceStore()
    store.add(chunks)
    for trace in store.traces():
        json.dumps(trace.to_json(), allow_nan=False)
        view = TraceView(trace)
        json.dumps([view.columns(), view.analysis()], allow_nan=False)
        draw_trace(trace)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}], ids=str)
async def test_a_foreign_page_gets_nothing(session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    """Not the list, not a trace, not the live list; and it can put nothing in."""
    for path in (
        "/events",
        f"/traces/{ID}/columns",
        f"/traces/{ID}/export",
        f"/traces/{ID}/spans/1",
        "/nothing",
    ):
        assert (await get(session, path, headers=headers))[0] == 403
    async with session.post(f"{API}/import", json={}, headers=headers) as reply:
        assert reply.status == 403


traces = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 30), st.integers(0, 30), st.sampled_from("ab")), max_size=25
).map(
    lambda rows: Trace(
        TRACE_ID,
        [
            span(number, parent, at=at, ms=ms, service=service)
            for number, (parent, at, ms, service) in enumerate(rows, 1)
        ],
    )
)


@given(traces)
@settings(max_examples=100, deadline=None)
def test_other_viewers_get_strictly_nested_spans(trace: Trace) -> None:
    """Speedscope and Perfetto cannot draw spans that overlap: every span is there once, and each row is nested."""
    told = as_speedscope(trace)
    opened = 0
    for profile in told["profiles"]:
        stack: list[int] = []
        last = 0
        for event in profile["events"]:
            assert event["at"] >= last
            last = event["at"]
            if event["type"] == "O":
                stack.append(event["frame"])
                opened += 1
            else:
                assert stack.pop() == event["frame"]
        assert stack == []
    assert opened == len(trace.spans)
    rows: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in as_perfetto(trace)["traceEvents"]:
        if event["ph"] == "X":
            rows.setdefault((event["pid"], event["tid"]), []).append(
                (event["ts"], event["ts"] + event["dur"])
            )
    assert sum(map(len, rows.values())) == len(trace.spans)
    for placed in rows.values():
        for index, (start, end) in enumerate(placed):
            for other_start, other_end in placed[index + 1 :]:
                assert other_start >= end or other_end <= end, (start, end, other_start, other_end)


def test_perfetto_has_an_arrow_for_every_hop() -> None:
    """From the span that called to the one in the other process."""
    told = as_perfetto(
        Trace(TRACE_ID, [span(1, ms=9), span(2, 1, at=2, service="pricing"), span(3, 1, at=4)])
    )
    arrows = [(event["ph"], event["ts"]) for event in told["traceEvents"] if event["ph"] in "sf"]
    assert arrows == [("s", 2 * MS / 1000), ("f", 2 * MS / 1000)]
