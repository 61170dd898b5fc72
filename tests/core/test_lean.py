"""Records: below a trace's first span, spans that ddtrace learns of when their trace leaves. Nobody can tell."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import itertools
import json
import re
import threading
import time
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import Span as DDSpan, TraceFilter, tracer
from hypothesis import HealthCheck, given, settings, strategies as st

from asynctrace import (
    ROOT,
    SpanContext,
    atraced,
    attached,
    current_span,
    shutdown,
    span,
    start_span,
    trace_id,
)
from asynctrace._core import lean, segment
from asynctrace._core.early import _cargo, watch
from asynctrace._core.handover import handover
from asynctrace._core.segment import buffers, late
from asynctrace.queues import TracedQueue
from tests.core.process import run
from tests.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctrace.testing import Recorder


# -- the same program both ways

OF_A_CHUNK = {
    "_dd.agent_psr", "_dd.limit_psr", "_dd.p.dm", "_dd.p.ksr", "_dd.p.tid", "_dd.p.usr", "_dd.py.partial_flush",
    "_dd.rule_psr", "_dd.tracer_kr", "_sampling_priority_v1", "language", "process_id", "_dd.tags.process",
}  # fmt: skip
"""Tags of the first span of a chunk, whichever that is."""


@dataclass(frozen=True)
class Node:
    """A span of a random program."""

    name: str
    how: str
    said: dict[str, Any]
    tags: dict[Any, Any]
    asks: str
    ends: str
    inside: str
    children: tuple[Node, ...]


texts = st.sampled_from(["", "a", "é", "half \ud83d"])
values = st.one_of(
    texts,
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=3),
    st.just([1]),
)
keys = st.sampled_from(
    ["a", "b", "span.kind", "component", "env", "peer.service", "version", "service.version", "out.host"]
)
keys |= st.sampled_from(
    ["_dd.measured", "manual.keep", "network.destination.port", "http.status_code", "service.name"]
)
said = st.fixed_dictionaries(
    {},
    optional={
        "resource": st.sampled_from(["", "a", "é"]),
        "service": st.sampled_from(["tests", "Tests", "other", "postgres"]),
        "type": st.sampled_from(["web", "sql", "worker"]),
        "kind": st.sampled_from(["client", "internal"]),
        "tags": st.dictionaries(keys, values, max_size=2),
    },
)


FROM_ELSEWHERE = {
    "decided": {"x-datadog-trace-id": "7", "x-datadog-parent-id": "8", "x-datadog-sampling-priority": "2"},
    "automatic": {"x-datadog-trace-id": "9", "x-datadog-parent-id": "8", "x-datadog-sampling-priority": "1"},
    "undecided": {"x-datadog-trace-id": "11", "x-datadog-parent-id": "8", "x-datadog-origin": "synthetics"},
    "at odds": {
        "x-datadog-trace-id": "13",
        "x-datadog-parent-id": "8",
        "traceparent": "00-000000000000000000000000000000ff-00000000000000ee-01",
    },
}
"""Headers under which a span begins."""


def nodes(depth: int) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        name=st.just(""),
        how=st.sampled_from(["span", "span", "atraced", "ddtrace", "start_span"]),
        said=said,
        tags=st.dictionaries(keys, values, max_size=2),
        asks=st.sampled_from(["", "", "ddtrace", "link", "metric", "resource", "headers", "baggage"]),
        ends=st.sampled_from(["ok", "ok", "ok", "error", "cancelled", "timeout", "early"]),
        inside=st.sampled_from(["", "", "late", "attached", "root", *FROM_ELSEWHERE]),
        children=st.just(()) if depth == 0 else st.lists(nodes(depth - 1), max_size=3).map(tuple),
    )


numbers = itertools.count()


class Player:
    """Runs a program of nodes; what is late runs when all else is over."""

    def __init__(self) -> None:
        self.count, self.prefix = 0, f"{next(numbers)}:"
        self.later: list[tuple[contextvars.Context, Node]] = []

    def play(self, node: Node) -> None:
        self.run(node)
        while self.later:
            context, one = self.later.pop(0)
            context.run(self.run, one)

    def run(self, node: Node) -> None:
        self.count += 1
        name = f"{self.prefix}s{self.count}"
        kind = {
            "error": ValueError("no"),
            "cancelled": asyncio.CancelledError("why"),
            "timeout": TimeoutError(),
        }
        try:
            self.opened(name, node, kind.get(node.ends))
        except (ValueError, TimeoutError, asyncio.CancelledError):
            pass

    def opened(self, name: str, node: Node, exc: BaseException | None) -> None:
        if node.inside in FROM_ELSEWHERE:
            with span(name, parent=SpanContext.extract(FROM_ELSEWHERE[node.inside]), **node.said):
                self.body(node, exc)
        elif node.how == "ddtrace":
            given = {"resource": node.said.get("resource"), "service": node.said.get("service")}
            with tracer.trace(name, span_type=node.said.get("type"), **given):  # type: ignore[arg-type]
                self.body(node, exc)
        elif node.how == "atraced":
            atraced(name, **node.said)(self.body)(node, exc)
        elif node.how == "start_span":
            one = start_span(name, **node.said)
            self.body(node, None)
            one.finish()
        else:
            with span(name, **node.said):
                self.body(node, exc)

    def body(self, node: Node, exc: BaseException | None) -> None:
        here = current_span()
        assert here is not None
        for key, value in node.tags.items():
            here.set_tag(key, value)
        getattr(self, node.asks or "nothing")()
        for child in node.children:
            if child.inside == "late":
                self.later.append((contextvars.copy_context(), child))
            elif child.inside in {"attached", "root"}:
                with attached(here.context if child.inside == "attached" else ROOT):
                    self.run(child)
            else:
                self.run(child)
        if node.ends == "early":
            here.finish()
        if exc is not None:
            raise exc

    def nothing(self) -> None: ...

    def ddtrace(self) -> None:
        active, root = tracer.current_span(), tracer.current_root_span()
        assert active is not None
        assert root is not None
        active.set_tag("told", "ddtrace")
        if root.duration_ns is None:  # else it may have left
            root.set_tag("told.root", active.name)

    def link(self) -> None:
        here = current_span()
        assert here is not None
        here.link(here.context, {"why": "itself"})

    def metric(self) -> None:
        here = current_span()
        assert here is not None
        here.set_metric("m", 2.5)
        here.set_metric("n", "3")  # type: ignore[arg-type]

    def resource(self) -> None:
        here = current_span()
        assert here is not None
        here.resource = f"{here.resource} again"

    def headers(self) -> None:
        headers = SpanContext.current().inject({})
        assert int(headers["x-datadog-trace-id"]) == int(trace_id()[16:], 16)

    def baggage(self) -> None:
        active = tracer.current_span()
        assert active is not None
        active.context.set_baggage_item("who", "me")


def on_the_wire(node: Node, sink: Sink) -> dict[str, Any]:
    """What arrives at the agent, but for ids and times: spans by name, and what is said of chunks by trace."""
    player = Player()

    def arrived() -> list[dict[str, Any]]:
        return [one for one in sink.spans() if one["name"].startswith(player.prefix)]

    player.play(node)
    asyncio.run(shutdown())
    sink.wait_until(lambda: len(arrived()) >= player.count, timeout=2)
    spans = arrived()
    assert len(spans) == player.count, sorted(one["name"] for one in spans)
    sink.requests.clear()
    names = {one["span_id"]: one["name"].removeprefix(player.prefix) for one in spans}
    assert len(names) == player.count
    return {names[one["span_id"]]: plain(one, names) for one in spans}


def plain(one: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    kept = {key: one[key] for key in ("service", "resource", "type", "error")}
    kept["parent"] = names.get(one["parent_id"], one["parent_id"] and "nowhere")
    assert one["duration"] > 0
    meta = {key: value for key, value in one["meta"].items() if key not in OF_A_CHUNK}
    links = json.loads(meta.pop("_dd.span_links", "[]")) or one.get("span_links") or []
    ids = [link["span_id"] for link in links]
    ids = [int(one, 16) if isinstance(one, str) else one for one in ids]
    kept["links"] = [
        (names.get(one, one), link.get("attributes")) for one, link in zip(ids, links, strict=True)
    ]
    metrics = {key: value for key, value in one["metrics"].items() if key not in OF_A_CHUNK}
    for text in ("resource", "told.root"):  # names, which differ
        for where in (kept, meta):
            if text in where:
                where[text] = re.sub(r"\d+:", "", where[text])
    return {**kept, "meta": meta, "metrics": {key: repr(value) for key, value in metrics.items()}}


def check(node: Node) -> None:
    from tests.conftest import SINK

    SINK.since_ns = 0
    both = []
    for allowed in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lean, "_wanted", allowed)
            handover.look()
            both.append(on_the_wire(node, SINK))
    for name, record in both[0].items():
        assert record == both[1][name], name


def these(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@these(30)
@given(node=nodes(3))
def test_nobody_can_tell(node: Node) -> None:
    """The same program, with records and without: the same spans arrive, tags, metrics, links, errors and all."""
    check(node)


@pytest.mark.slow
@pytest.mark.timeout(120)
@these(150)
@given(node=nodes(3))
def test_nobody_can_tell_of_many(node: Node) -> None:
    """The same for many more."""
    check(node)


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the setting, here and in the programs of these tests."""
    monkeypatch.setattr(lean, "_wanted", True)
    monkeypatch.setenv("ASYNCTRACE_LEAN", "1")


# -- nothing lost, nothing twice


@pytest.fixture
def flushed(sink: Sink) -> Any:
    """Names of what has arrived, once everything was sent; what the writer had in hand, may take a moment."""

    def names(count: int) -> list[str]:
        asyncio.run(shutdown())
        sink.wait_until(lambda: len(sink.spans()) >= count, timeout=5)
        return sorted(one["name"] for one in sink.spans())

    return names


def is_record(one: Any) -> bool:
    return bool(one._written)


def test_below_the_first_span_there_are_records(traces: Recorder) -> None:
    """The first span of a trace is ddtrace's, those below are not, until somebody asks."""
    with span("root") as root, span("child") as child:
        assert (is_record(root), is_record(child)) == (False, True)
        assert not child.is_for(root.as_parent())
        active = tracer.current_span()
        assert active is not None
        assert child.is_for(active)
        with tracer.trace("theirs"), span("below"):
            pass
    assert traces.tree() == "root\n  child\n    theirs\n      below"


def test_threads_race_the_end_of_the_root(traces: Recorder) -> None:
    """Records that end while their trace is handed over arrive once."""
    for _ in range(30):
        root = start_span("root")
        context = contextvars.copy_context()
        go = threading.Barrier(4)

        def work(go: threading.Barrier = go) -> None:
            go.wait()
            for _ in range(30):
                with span("child"):
                    pass

        threads = [threading.Thread(target=context.copy().run, args=(work,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        go.wait()
        root.finish()
        for thread in threads:
            thread.join()
    ids = [one.span_id for one in traces.spans]
    assert len(ids) == len(set(ids)) == 30 * 91
    traces.assert_no_orphans()


def test_threads_end_the_same_record(traces: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same time: it arrives once."""
    with span("root"):
        child = start_span("child")

        def meanwhile() -> int:
            patch.undo()
            contextvars.Context().run(child.finish)
            return time.time_ns()

        with monkeypatch.context() as patch:
            patch.setattr("asynctrace._core.span.time_ns", meanwhile)
            child.finish()
    assert traces.tree() == "root\n  child"


def test_many_below_a_root_that_stays_open(flushed: Any) -> None:
    """They leave by hundreds, and nothing is kept of them."""
    with span("root") as root:
        for _ in range(1000):
            with span("child"):
                pass
        waiting = buffers[root.trace_id]
        assert len(waiting.done) < 300
        assert flushed(1000) == ["child"] * 1000
        assert not waiting.done
    assert flushed(1001) == ["child"] * 1000 + ["root"]


def test_ended_after_the_root(traces: Recorder) -> None:
    """A record that ends after its trace has left follows."""
    root = start_span("root")
    child = start_span("child")
    grandchild = start_span("grandchild")
    root.finish()
    child.finish()
    grandchild.finish()
    assert traces.tree() == "root\n  child\n    grandchild"


def test_below_the_early_span_of_a_late_record(traces: Recorder) -> None:
    """Somebody makes it active elsewhere: ddtrace hands its trace over no more, and nothing waits for that."""
    with span("root"):
        context = contextvars.copy_context()
    late_one = context.run(start_span, "late")
    known = context.run(tracer.current_span)

    def elsewhere() -> None:
        tracer.context_provider.activate(known)
        with span("below"):
            pass

    contextvars.Context().run(elsewhere)
    late_one.finish()
    assert traces.tree() == "root\n  late\n    below"
    assert late_one.trace_id not in buffers


def test_below_a_span_that_began_while_the_tracer_was_off(traces: Recorder) -> None:
    """ddtrace knows nothing of that one; what is opened below it afterwards is delivered."""
    tracer.enabled = False
    try:
        theirs = tracer.trace("theirs")
    finally:
        tracer.enabled = True
    with span("child"), span("grandchild"):
        pass
    theirs.finish()
    assert traces.names() == {"child", "grandchild"}
    assert theirs.trace_id not in buffers


def test_the_root_ends_as_the_first_record_begins(traces: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another thread: its trace leaves before there is a buffer for it to take along."""
    root = tracer.trace("root")

    def meanwhile() -> int:
        root.finish()
        return 300

    with monkeypatch.context() as patch:
        patch.setattr(segment, "partial_flush_most", meanwhile)
        child = contextvars.copy_context().run(start_span, "child")
    child.finish()
    assert traces.names() == {"root", "child"}
    assert root.trace_id not in buffers


def test_threads_open_the_first_records_of_a_trace(traces: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same time: they wait in one buffer."""
    both = threading.Barrier(2)

    def at_once() -> int:
        both.wait()
        return 300

    def work() -> None:
        with span("child"):
            pass

    monkeypatch.setattr(segment, "partial_flush_most", at_once)
    with tracer.trace("root"):
        threads = [threading.Thread(target=contextvars.copy_context().run, args=(work,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert traces.tree() == "root\n  child\n  child"


def test_late_spans_leave_together(flushed: Any) -> None:
    """What ends after its trace has left is sent within 50 ms, with what else ended then; at once at the end."""
    with span("root") as root:
        context = contextvars.copy_context()
    for _ in range(5):
        context.run(lambda: span("late").__enter__().finish())
    assert [len(one.done) for key, one in late.items() if key == root.trace_id] in ([5], [])
    assert flushed(6) == ["late"] * 5 + ["root"]


def test_late_spans_of_two_local_roots_leave_by_hundreds(flushed: Any) -> None:
    """They wait together, and leave when they are many, though the thread that sends them is slow."""
    with span("root"):
        context, here = contextvars.copy_context(), SpanContext.current()
        with span("first"):
            pass
    handover.finish()
    watch.wake()
    most = 0
    assert handover.hold()
    try:
        with attached(here), span("second"):
            pass
        for _ in range(1000):
            context.run(lambda: span("late").__enter__().finish())
            most = max(most, *(len(one.done) for one in late.values()))
    finally:
        handover.release()
    assert most < 300
    assert flushed(1003) == ["first", *["late"] * 1000, "root", "second"]


class Theirs(TraceFilter):
    """A user's filter."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.seen = answer, list[str]()

    def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
        self.seen += [one.name for one in trace]
        return self.answer(trace)  # type: ignore[no-any-return]


def fails(_: Any) -> Any:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("answer", "arrive"), [(lambda _: None, []), (lambda one: one, ["a", "b"]), (fails, ["a", "b"])]
)
def test_a_filter_of_the_users(answer: Any, arrive: list[str], flushed: Any, caplog: Any) -> None:
    """It sees records, may drop them or fail; set later, too. Nothing is kept of what was dropped."""
    theirs = Theirs(answer)
    a = start_span("a")
    tracer.configure(trace_processors=[theirs])
    try:
        with span("b"):
            pass
        a.finish()
        assert flushed(len(arrive)) == arrive
    finally:
        tracer.configure(trace_processors=[])
        caplog.clear()
    assert sorted(theirs.seen) == ["a", "b"]
    assert a.trace_id not in buffers


def test_switched_off_while_it_runs(flushed: Any) -> None:
    """Of a trace that was open then nothing waits for ever; afterwards all is as before."""
    try:
        with span("root") as root, span("child"):
            tracer.enabled = False
        watch.look(quiet_ns=0)
        watch.tidy()
        assert root.trace_id not in buffers
    finally:
        tracer.enabled = True
        # it would be said at the end that this was not sent
        tracer._span_aggregator._traces.pop(root.trace_id, None)
    with span("again"), span("child"):
        pass
    assert flushed(2) == ["again", "child"]


def test_switched_off_for_a_while(traces: Recorder) -> None:
    """What ends in between is lost; what is opened afterwards in a trace that was open all the time is not."""
    try:
        with span("root") as root:
            with span("before"):
                pass
            tracer.enabled = False
            watch.tidy()
            tracer.enabled = True
            with span("after"):
                pass
    finally:
        tracer.enabled = True
    assert traces.tree() == "root\n  after"
    assert root.trace_id not in buffers


def test_many_end_while_it_is_switched_off() -> None:
    """Nobody hands them over, and nothing is kept of them."""
    with span("root"):
        many = [span("child").open(activate=False) for _ in range(300)]
        ended = [weakref.ref(one) for one in many]
        try:
            tracer.enabled = False
            while many:
                many.pop().finish()
        finally:
            tracer.enabled = True
        assert not _cargo
        assert not any(one() for one in ended)


def test_another_provider_is_assigned(traces: Recorder) -> None:
    """Records that are open then end as ever; spans opened afterwards are ddtrace's."""
    from ddtrace._trace.provider import DefaultContextProvider

    ours = tracer.context_provider
    with span("root"), span("child"):
        tracer.context_provider = DefaultContextProvider()
        try:
            with span("elsewhere") as elsewhere:
                assert not is_record(elsewhere)
        finally:
            tracer.context_provider = ours
    assert traces.tree() == "root\n  child\nelsewhere"


def test_freed_without_the_garbage_collector() -> None:
    """A record, and what its tags hold, is gone as soon as its trace has left."""
    gc.collect()
    gc.disable()
    try:
        with span("root"), span("child", tags={"a": 1}) as child, span("below") as below:
            asked = tracer.current_span()
            gone = [weakref.ref(one) for one in (child, below)]
        del child, below, asked
        handover.finish()
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


def test_a_span_opened_twice(traces: Recorder) -> None:
    """What it was the first time goes its way."""
    with span("root"):
        one = span("child", tags={"n": 0})
        for number in range(3):
            with one:
                one.set_tag("n", number)
    assert [each.tags["n"] for each in traces.spans[1:]] == [0, 1, 2]
    assert len({each.span_id for each in traces.spans}) == 4


def test_a_span_opened_twice_is_below_two_parents(traces: Recorder) -> None:
    """Its service is each time that of its parent, where none was chosen."""
    one = span("child")
    for service in ("a", "b"):
        with span("root", service=service), one:
            pass
    assert [each.service for each in traces.spans] == ["a", "a", "b", "b"]


@pytest.mark.parametrize("below", [True, False])
def test_a_span_opened_while_it_is_open(traces: Recorder, below: object) -> None:
    """It is open already: nothing changes."""
    with span("root") if below else nullcontext():
        one = start_span("one")
        assert one.open() is one
        one.finish()
        assert current_span() is not one
    with span("next"):
        pass
    assert traces.tree() == ("root\n  one" if below else "one") + "\nnext"


def test_ended_by_way_of_ddtrace(traces: Recorder) -> None:
    """Somebody ends the active span with ddtrace's own means."""
    with span("root"):
        child = start_span("child")
        active = tracer.current_span()
        assert active is not None
        active.finish()
        assert current_span() is not child
        with span("next"):
            pass
        child.finish()
    assert traces.tree() == "root\n  child\n  next"


def test_a_service_that_is_set_when_children_have_ended() -> None:
    """They were of the old one, and no entry to the new one: nothing counts them as requests."""
    sink = Sink().start()
    for lean_setting in ("0", "1"):
        run(
            """
            from asynctrace import span
            with span("root") as root:
                with span("before"):
                    pass
                root.set_tag("service.name", "tenant")
                with span("after"):
                    pass
            """,
            ASYNCTRACE_LEAN=lean_setting,
            DD_TRACE_AGENT_URL=sink.url,
            DD_SERVICE="shop",
            DD_VERSION="1",
        )
    said = [
        (one["name"], one["service"], one["metrics"].get("_dd.top_level"), one["meta"].get("version"))
        for one in sink.wait_for(6)
    ]
    for expected in (("before", "shop", None, "1"), ("after", "tenant", None, "1")):
        assert said.count(expected) == 2, said


# -- sampling


@pytest.mark.parametrize(
    ("rules", "said", "arrive"),
    [
        ({}, "", {"child": 1, "db": 1, "root": 1}),
        ({"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}]'}, "", {"db": -1, "root": -1}),
        (
            {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}]'},
            "manual.keep",
            {"child": 2, "db": 2, "root": 2},
        ),
        (
            {"DD_TRACE_SAMPLING_RULES": '[{"resource": "late", "sample_rate": 0}]'},
            "resource",
            {"db": -1, "root": -1},
        ),
        (
            {
                "DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}]',
                "DD_SPAN_SAMPLING_RULES": '[{"name": "child"}]',
            },
            "",
            {"child": -1, "db": -1, "root": -1},
        ),
        (
            {"DD_TRACE_RATE_LIMIT": "0", "DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 1}]'},
            "",
            {"db": -1, "root": -1},
        ),
        ({}, "manual.drop", {"db": -1, "root": -1}),
    ],
)
def test_sampling(rules: dict[str, str], said: str, arrive: dict[str, int]) -> None:
    """The last word is the decision's; of a rejected trace what Datadog counts arrives, and what a rule keeps."""
    sink = Sink().start()
    run(
        f"""
        from asynctrace import span
        with span("root") as root:
            with span("child"):
                pass
            with span("db", service="db", kind="client"):
                pass
            if {said!r} == "resource":
                root.resource = "late"
            elif {said!r}:
                root.set_tag({said!r})
        """,
        DD_TRACE_AGENT_URL=sink.url,
        DD_TRACE_STATS_COMPUTATION_ENABLED="false",
        **rules,
    )
    sink.wait_for(len(arrive))
    assert sorted(one["name"] for one in sink.spans()) == sorted(arrive)
    decided = {one["metrics"].get("_sampling_priority_v1") for one in sink.spans()} - {None}
    assert decided <= set(arrive.values())


# -- products


PRODUCT = """
    from asynctrace import span
    with span("root"), span("child") as child:
        print(child._written)
"""


@pytest.mark.parametrize("name", ["", *lean.PRODUCTS])
def test_products_that_watch_spans(name: str) -> None:
    """With one of them on, every span is ddtrace's from its start."""
    setting = {name: "true"} if name else {}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in setting.items():
            patch.setenv(key, value)
        assert lean.wanted() is not bool(name)


def test_switched_off_by_its_setting() -> None:
    """`ASYNCTRACE_LEAN=0`."""
    sink = Sink().start()
    assert run(PRODUCT, DD_TRACE_AGENT_URL=sink.url) == "True"
    assert run(PRODUCT, DD_TRACE_AGENT_URL=sink.url, ASYNCTRACE_LEAN="0") == "False"


def test_a_product_that_is_switched_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It registers itself with ddtrace: from then on new traces are ddtrace's."""
    from ddtrace._trace.processor import SpanProcessor

    class Product(SpanProcessor):
        def on_span_start(self, span: DDSpan) -> None: ...

        def on_span_finish(self, span: DDSpan) -> None: ...

    product = Product()
    product.register()
    try:
        with span("root"), span("child") as child:
            assert not is_record(child)
    finally:
        product.unregister()


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """What ddtrace's profiler is told that runs."""
    core: Any = importlib.import_module("ddtrace.internal.core")
    heard: list[Any] = []

    def listen(_: object, one: Any) -> None:
        heard.append(one)

    core.on("ddtrace.context_provider.activate", listen)
    yield heard
    core.reset_listeners("ddtrace.context_provider.activate", listen)


def test_the_profiler_is_told_which_trace_runs(heard: list[Any]) -> None:
    """Whoever listens for what runs hears of the right trace, also where requests take turns."""

    async def request(turns: int) -> None:
        with span("request") as own:
            for _ in range(turns):
                await asyncio.sleep(0)
                with span("work"):
                    assert heard[-1].trace_id == own.trace_id

    async def main() -> None:
        await asyncio.gather(*(request(5) for _ in range(4)))

    asyncio.run(main())


def test_the_profiler_is_told_which_span_runs(heard: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no records, it hears of each span's begin and end."""
    monkeypatch.setattr(lean, "_wanted", False)
    with span("root") as root:
        with span("child") as child:
            assert heard[-1].span_id == child.span_id
        assert heard[-1].span_id == root.span_id


def test_the_profiler_is_told_that_work_on_another_trace_is_over(heard: list[Any]) -> None:
    """After a block of `attached()`, what ran before runs again."""
    with span("elsewhere") as elsewhere:
        there = SpanContext.current()
    with span("root") as root:
        with attached(there), span("child"):
            assert heard[-1].trace_id == elsewhere.trace_id
        assert heard[-1].span_id == root.span_id


async def test_an_item_of_a_queue(traces: Recorder) -> None:
    """Work on an item is a record, too, whether or not its producer has ended; it has what a local root has."""
    queue: TracedQueue[int] = TracedQueue()
    with span("producer"):
        queue.put_nowait(1)
        queue.put_nowait(2)
    for _ in range(2):
        await queue.get()
        with span("handle") as handle, span("inside"):
            assert is_record(handle)
            root = tracer.current_root_span()
            assert root is not None
            assert root.span_id == handle.span_id
    assert traces.tree() == "producer\n  handle\n    inside\n  handle\n    inside"
    one = next(each for each in traces.spans if each.name == "handle")
    assert (one.tags["_dd.top_level"], "runtime-id" in one.tags) == (1, True)
