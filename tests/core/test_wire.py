"""What is in the bytes that reach the agent: chunks, ids, links; of programs of their own, under Datadog's settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.process import run

if TYPE_CHECKING:
    from tests.sink import Sink


def sent(sink: Sink, program: str, count: int, **settings: str) -> dict[str, dict[str, Any]]:
    """The spans of a program that arrived, by name; each once."""
    run(program, DD_TRACE_AGENT_URL=sink.url, **settings)
    spans = sink.wait_for(count)
    assert len(spans) == len({one["span_id"] for one in spans}) == count
    return {one["name"]: one for one in spans}


# -- chunks

MANY = """
    from asynctrace import span
    from asynctrace.testing import Recorder
    from ddtrace.trace import tracer
    with Recorder() as traces:
        with span("root"):
            gone = []
            for number in range(CHILDREN):
                with OPENED("child"):
                    pass
                gone.append(len(traces.spans))
    print(*gone)
"""


def left_while_open(children: int, opened: str = "span", **settings: str) -> list[int]:
    """How many spans had left after each child, the root still open."""
    program = MANY.replace("CHILDREN", str(children)).replace("OPENED", opened)
    return [int(number) for number in run(program, ASYNCTRACE_PARTIAL_FLUSH_MS="0", **settings).split()]


@pytest.mark.parametrize("opened", ["span", "tracer.trace"])
def test_so_many_spans_leave_at_once(opened: str) -> None:
    """`DD_TRACE_PARTIAL_FLUSH_MIN_SPANS`: as soon as that many have ended, of ours, or of ddtrace's."""
    assert left_while_open(7, opened, DD_TRACE_PARTIAL_FLUSH_MIN_SPANS="3") == [0, 0, 3, 3, 3, 6, 6]


def test_three_hundred_by_default() -> None:
    """The setting left alone; records, of which that many would take the loop longer, leave before."""
    assert left_while_open(301, "tracer.trace") == [*[0] * 299, 300, 300]
    ours = left_while_open(301)
    assert all(number - left <= 300 for number, left in enumerate(ours, 1))
    assert ours[-1] == 300


@pytest.mark.parametrize("opened", ["span", "tracer.trace"])
def test_no_span_leaves_before_its_trace(opened: str) -> None:
    """`DD_TRACE_PARTIAL_FLUSH_ENABLED=false`, whatever the number says."""
    off = {"DD_TRACE_PARTIAL_FLUSH_ENABLED": "false", "DD_TRACE_PARTIAL_FLUSH_MIN_SPANS": "3"}
    assert left_while_open(7, opened, **off) == [0] * 7


def test_chunks_of_a_trace(sink: Sink) -> None:
    """Whatever a trace leaves in: chunks of many, early ones, the rest, late ones: each span once, one trace."""
    program = """
        import asyncio
        from asynctrace import shutdown, span
        from asynctrace._core.early import watch
        from asynctrace._core.handover import handover
        async def late(go):
            await go.wait()
            with span("late"):
                pass
        async def main():
            go = asyncio.Event()
            with span("root"):
                for number in range(4):
                    with span(f"many {number}"):
                        pass
                handover.finish()
                with span("early"):
                    pass
                watch.look(quiet_ns=0)
                with span("rest"):
                    task = asyncio.create_task(late(go))
            await shutdown()
            go.set()
            await task
        asyncio.run(main())
    """
    spans = sent(sink, program, 8, DD_TRACE_PARTIAL_FLUSH_MIN_SPANS="4")
    assert len({one["trace_id"] for one in spans.values()}) == 1
    assert spans["late"]["parent_id"] == spans["rest"]["span_id"]
    heads = [one for one in spans.values() if "_dd.p.tid" in one["meta"]]
    assert {one["metrics"]["_sampling_priority_v1"] for one in heads} == {1}
    assert len(heads) == 4, "a chunk's first span says the upper half of the id, and the decision"


# -- ids


def test_ids_of_128_bits(sink: Sink) -> None:
    """The upper half is the second the trace began in, and comes as a tag; `trace_id()` has both."""
    program = """
        import time
        from asynctrace import span, trace_id
        before = int(time.time())
        with span("a") as a:
            print(trace_id(), before, int(time.time()), a.trace_id)
    """
    printed = run(program, DD_TRACE_AGENT_URL=sink.url)
    (one,) = sink.wait_for(1)
    shown, before, after, number = printed.split()
    assert shown == f"{one['meta']['_dd.p.tid']}{one['trace_id']:016x}" == f"{int(number):032x}"
    assert int(before) <= int(shown[:8], 16) <= int(after)


# -- links

LINKS = """
    import asyncio
    from asynctrace import SpanContext, span, spawn
    from asynctrace._core import provider
    from asynctrace.queues import TracedQueue

    async def work():
        with span("too late"):
            pass

    async def main():
        queue = TracedQueue()
        for name in ("first", "second"):
            with span(name):
                queue.put_nowait(name)
        items = [await queue.get(), await queue.get()]
        async with queue.batch(items, "batch"):
            pass
        with span("by hand") as one:
            one.link(SpanContext.extract(HEADERS), {"why": "asked", "number": 7})
        with span("request"):
            task = spawn(asyncio.sleep(0), name="spawned", relation="link")
            late = asyncio.create_task(work())
        provider.LATE_NS = -1
        await asyncio.gather(task, late)

    HEADERS = {"traceparent": "00-640cfd8d00000000000000000000abcd-00000000000000ef-01", "tracestate": "dd=s:2;o:rum"}
    asyncio.run(main())
"""


@pytest.mark.parametrize("version", ["v0.4", "v0.5"])
def test_span_links(version: str, sink: Sink) -> None:
    """Of a batch, of `link()`, of a spawned task and of late work: whole ids, in either version of the protocol."""
    spans = sent(sink, LINKS, 7, DD_TRACE_API_VERSION=version)
    ids = {
        name: (one["trace_id"] + (int(one["meta"]["_dd.p.tid"], 16) << 64), one["span_id"])
        for name, one in spans.items()
    }

    def links(name: str) -> list[tuple[int, int]]:
        return [(link["trace_id"], link["span_id"]) for link in links_of(spans[name])]

    assert links("batch") == [ids["first"], ids["second"]]
    assert links("spawned") == links("too late") == [ids["request"]]
    (link,) = links_of(spans["by hand"])
    assert (link["trace_id"], link["span_id"]) == (0x640CFD8D00000000000000000000ABCD, 0xEF)
    assert link["attributes"] == {"why": "asked", "number": "7"}
    assert link["tracestate"] == "dd=s:2;o:rum"
    assert len({one[0] for one in ids.values()}) == 7


def links_of(span: dict[str, Any]) -> list[dict[str, Any]]:
    """v0.4 has a field for them, ids in halves; v0.5 a tag, ids in hex."""
    if "span_links" in span:
        return [
            {**link, "trace_id": link["trace_id"] + (link["trace_id_high"] << 64)}
            for link in span["span_links"]
        ]
    links = json.loads(span["meta"].get("_dd.span_links", "[]"))
    return [
        {**link, "trace_id": int(link["trace_id"], 16), "span_id": int(link["span_id"], 16)} for link in links
    ]
