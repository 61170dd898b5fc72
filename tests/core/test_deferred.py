"""A trace's first span begins without ddtrace, which is told when somebody asks or as it ends. Nobody can tell."""

from __future__ import annotations

import contextvars
import gc
import importlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from ddtrace.trace import Context, Span as DDSpan, TraceFilter, tracer

from asynctrace import ROOT, SpanContext, current_span, span, start_span
from asynctrace._core import deferred, lean
from asynctrace._core.early import MOST_AHEAD, watch
from asynctrace._core.handover import handover
from asynctrace._core.record import deferred_root
from asynctrace._core.segment import buffers
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynctrace._core.span import Span
    from asynctrace.testing import Recorder
    from tests.sink import Sink

UNDECIDED = SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})
DECIDED = SpanContext.extract(
    {"x-datadog-trace-id": "7", "x-datadog-parent-id": "8", "x-datadog-sampling-priority": "1"}
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The thread runs, and does nothing meanwhile; records are on, whatever the setting."""
    monkeypatch.setattr(lean, "_wanted", True)
    monkeypatch.setenv("ASYNCTRACE_LEAN", "1")
    if watch.asleep:
        watch.wake()
    assert handover.hold()
    handover.finish()
    handover.look()
    yield
    handover.finish()
    handover.release()


def is_deferred(one: Span | Any) -> bool:
    return bool(one._is_deferred())


def held() -> list[str]:
    """The names of the spans that ddtrace holds."""
    return [one.name for trace in tracer._span_aggregator._traces.values() for one in trace.spans]


@pytest.mark.parametrize(
    "parent", [None, ROOT, DECIDED, UNDECIDED], ids=["none", "root", "decided", "undecided"]
)
def test_ddtrace_hears_of_it_when_it_has_ended(parent: SpanContext | None, traces: Recorder) -> None:
    """It has its ids from the beginning, and arrives with them, its times and all that was said of it."""
    with span("root", parent=parent, service="tea", tags={"given": "a"}) as root:
        ids = root.trace_id, root.span_id
        root.set_tag("set", "b")
        root.set_metric("number", 3)
        root.resource = "GET /tea"
        assert (is_deferred(root), held()) == (True, [])
    root.set_tag("after its end", "c")
    assert (is_deferred(root), held()) == (True, [])
    one = traces.one("root")
    assert (one.trace_id, one.span_id) == ids
    assert (one.resource, one.service, one.start_ns) == ("GET /tea", "tea", root._start_ns)
    assert one.start_ns + one.duration_ns == root.ended_ns
    assert {"given": "a", "set": "b", "number": 3, "after its end": "c"}.items() <= one.tags.items()
    assert one.parent_id == (8 if parent in {DECIDED, UNDECIDED} else None)


ASKED: dict[str, Callable[[Span], Any]] = {
    "what is active": lambda _: tracer.current_span(),
    "the local root": lambda _: tracer.current_root_span(),
    "for logs": lambda _: tracer.get_log_correlation_context(),
    "for a child": lambda _: tracer.trace("theirs").finish(),
    "for headers": lambda root: root.context.inject({}),
    "for another task": lambda _: SpanContext.current(),
    "to be told of an error": lambda root: root.set_error(ValueError("tea")),
    "to be told of a link": lambda root: root.link(DECIDED),
    "to be told of an early decision": lambda root: root.set_tag("manual.keep"),
}


@pytest.mark.parametrize("how", ASKED)
@pytest.mark.parametrize("below", [False, True], ids=["itself", "a record below"])
def test_whoever_asks_ddtrace_has_it_started(how: str, below: bool, traces: Recorder) -> None:
    """As if it had been from the beginning, and it goes on as that."""
    with span("root", tags={"given": "a"}) as root:
        ids = root.trace_id, root.span_id
        root.set_tag("set", "b")
        if below:
            with span("record"):
                assert is_deferred(root)
                ASKED[how](root)
        else:
            ASKED[how](root)
        assert not is_deferred(root)
        assert held()[0] == "root"
        assert root.as_parent() is root.as_parent() is tracer.current_span()
        root.set_tag("then", "c")
    one = traces.one("root")
    assert (one.trace_id, one.span_id, one.start_ns) == (*ids, root._start_ns)
    assert {"given": "a", "set": "b", "then": "c"}.items() <= one.tags.items()
    assert len(traces.traces()) == 1
    assert not traces.open


def test_in_a_trace_that_is_decided_headers_need_no_ddtrace(traces: Recorder) -> None:
    """Its own and those of records below name them, and the decision; what is under them is in the trace."""
    with span("root", parent=DECIDED) as root:
        mine = root.context.inject({})
        with span("record") as record:
            below = SpanContext.current().inject({})
        assert is_deferred(root)
    for one, headers in ((root, mine), (record, below)):
        assert headers["x-datadog-trace-id"] == "7"
        assert headers["x-datadog-parent-id"] == str(one.span_id)
        assert headers["x-datadog-sampling-priority"] == "1"
    assert traces.tree() == "root\n  record"


def test_what_is_decided_when_it_is_asked_holds(traces: Recorder) -> None:
    """The headers of a request say what is done with the trace."""
    with span("root") as root, span("record") as record:
        headers = record.context.inject({})
    assert headers["x-datadog-sampling-priority"] == str(traces.one("root").tags["_sampling_priority_v1"])
    assert int(headers["x-datadog-tags"].split("tid=")[1][:16], 16) == root.trace_id >> 64


def test_records_below_leave_with_it(traces: Recorder) -> None:
    """Also those that end after it, as long as it waits, and afterwards."""
    with span("root") as root:
        context = contextvars.copy_context()
        with span("a"), span("b"):
            pass
        late, later = start_span("late"), start_span("later")
    assert is_deferred(root)
    late.finish()
    assert traces.names() == {"root", "a", "b", "late"}
    later.finish()
    context.run(lambda: span("last").__enter__().finish())
    assert traces.tree() == "root\n  a\n    b\n  late\n    later\n  last"
    assert root.trace_id not in buffers
    assert not deferred.parents


def test_open_for_long(traces: Recorder) -> None:
    """What has ended below it leaves, without it; it is ddtrace's from then on."""
    with span("root") as root, span("open"):
        with span("ended"):
            pass
        watch.look(quiet_ns=0)
        assert not is_deferred(root)
        assert traces.names() == {"ended"}
        with span("another"):
            pass
    assert traces.tree() == "root\n  open\n    ended\n    another"


@pytest.mark.parametrize("how", ["asked for", "a record below", "neither"])
def test_the_thread_sleeps_meanwhile(how: str) -> None:
    """It wakes for what is to leave."""
    came = threading.Event()

    class Theirs(TraceFilter):
        def process_trace(self, trace: list[DDSpan]) -> list[DDSpan] | None:
            came.set()
            return trace

    tracer.configure(trace_processors=[Theirs()])
    handover.release()
    try:
        with span("root"):
            while not watch.asleep:  # until it sees that there is nothing to do
                threading.Event().wait(0.01)
            if how == "asked for":
                tracer.current_span()
            elif how == "a record below":
                with span("record"):
                    pass
        assert came.wait(5)
    finally:
        assert handover.hold()
        tracer.configure(trace_processors=[])


def test_many_records_below(traces: Recorder) -> None:
    """They leave by hundreds, decided as their trace is."""
    with span("root") as root:
        for _ in range(MOST_AHEAD + 1):
            with span("record"):
                pass
        assert not is_deferred(root)
        assert len(traces.spans) >= 100
    assert len(traces.spans) == MOST_AHEAD + 2
    assert len(traces.traces()) == 1


def test_left_open_and_forgotten() -> None:
    """Nobody keeps it."""
    gone = weakref.ref(contextvars.copy_context().run(start_span, "forgotten"))
    gc.collect()
    assert gone() is None


def test_left_open_and_forgotten_with_records_below(traces: Recorder) -> None:
    """What has ended below it leaves."""

    def with_one_below() -> None:
        start_span("forgotten")
        with span("ended"):
            pass

    contextvars.copy_context().run(with_one_below)
    gc.collect()
    watch.look(quiet_ns=0)
    assert traces.names() == {"ended"}
    assert not deferred.parents
    tracer._span_aggregator._traces.clear()  # it would be said at the end that one was not sent


def test_opened_again(traces: Recorder) -> None:
    """What it was the first time goes its way."""
    again = span("again", tags={"given": "a"})
    with again:
        again.set_tag("turn", "first")
        first = again.span_id
    with again:
        again.set_tag("turn", "second")
        assert again.span_id != first
    assert [(one.tags["given"], one.tags["turn"]) for one in traces.spans] == [
        ("a", "first"),
        ("a", "second"),
    ]
    assert len(traces.traces()) == 2


def test_threads_ask_at_once(traces: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started once."""
    made: list[DDSpan] = []
    go = threading.Barrier(4)
    build = deferred_root

    def counted(*args: Any) -> DDSpan:
        made.append(build(*args))
        return made[-1]

    monkeypatch.setattr("asynctrace._core.deferred.deferred_root", counted)
    with span("root") as root:

        def ask() -> None:
            go.wait()
            assert tracer.current_span() is root.as_parent()
            with span("record"):
                pass

        threads = [threading.Thread(target=contextvars.copy_context().run, args=(ask,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(made) == 1
    assert traces.tree() == "root" + "\n  record" * 4


def test_what_is_said_while_it_is_started(traces: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread: that is said of the span, too."""
    build = deferred_root
    with span("root", tags={"given": "a"}) as root:

        def meanwhile(*args: Any) -> DDSpan:
            made = build(*args)
            root.set_tag("given", "b")
            root.set_tag("new", "c")
            root.resource = "late"
            return made

        with monkeypatch.context() as patch:
            patch.setattr("asynctrace._core.deferred.deferred_root", meanwhile)
            root.as_parent()
    one = traces.one("root")
    assert (one.tags["given"], one.tags["new"], one.resource) == ("b", "c", "late")


def test_records_begun_while_it_is_started(traces: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread, of which the first has no place to wait yet: they leave with it."""
    build = deferred_root
    with span("root") as root:
        context = contextvars.copy_context()

        def meanwhile(*args: Any) -> DDSpan:
            thread = threading.Thread(target=context.run, args=(lambda: span("record").__enter__().finish(),))
            thread.start()
            thread.join(0.05)  # it waits for us, or does not
            made = build(*args)
            threads.append(thread)
            return made

        threads: list[threading.Thread] = []
        with monkeypatch.context() as patch:
            patch.setattr("asynctrace._core.deferred.deferred_root", meanwhile)
            root.as_parent()
        for thread in threads:
            thread.join()
    assert traces.tree() == "root\n  record"
    assert not deferred.parents


def test_two_local_roots_of_one_trace(traces: Recorder) -> None:
    """A request to oneself: whichever is started or ends first, all arrive."""
    with span("client") as client, span("call") as call:
        headers = call.context.inject({})
        context = contextvars.Context()
        server = context.run(start_span, "server", parent=SpanContext.extract(headers))
        context.run(lambda: span("work").__enter__().finish())
        assert (is_deferred(client), is_deferred(server)) == (False, True)
        assert context.run(tracer.current_span) is server.as_parent()
        context.run(lambda: span("more work").__enter__().finish())
        server.finish()
    assert traces.tree() == "client\n  call\n    server\n      work\n      more work"


def test_ended_while_the_tracer_is_off(traces: Recorder) -> None:
    """ddtrace does not hear of it, and nothing is kept."""
    with span("root"):
        with span("record"):
            pass
        tracer.enabled = False
    tracer.enabled = True
    assert traces.names() == set()
    assert not deferred.parents
    with span("root"), span("record"):
        pass
    assert traces.tree() == "root\n  record"


@pytest.mark.parametrize(
    "setting",
    [
        {"ASYNCTRACE_LEAN": "0"},
        {"ASYNCTRACE_PARTIAL_FLUSH_MS": "0"},
        {"DD_TRACE_PARTIAL_FLUSH_ENABLED": "false"},
        {"DD_TRACE_REPORT_HOSTNAME": "true"},
        {"DD_PROFILING_ENABLED": "true"},
        {"DD_TRACE_ENABLED": "true"},
    ],
    ids=repr,
)
def test_where_it_begins_with_ddtrace(setting: dict[str, str], sink: Sink) -> None:
    """Where spans are not to wait, or ddtrace has more to say of it; and nowhere else."""
    program = """
        from asynctrace import span
        with span("first"):  # the thread runs, where there is one
            pass
        with span("root") as root:
            print(root._is_deferred())
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url, **setting) == str("DD_TRACE_ENABLED" in setting)


@pytest.mark.parametrize(
    "context",
    [
        Context(trace_id=7, span_id=0, sampling_priority=1),
        Context(trace_id=0, span_id=8),
        Context(trace_id=7, span_id=8, is_remote=False),
    ],
    ids=["no span", "no trace", "of this process"],
)
def test_under_contexts_that_need_ddtrace(context: Context, traces: Recorder) -> None:
    """Those that ddtrace reads with care, and those of this process."""
    with span("root", parent=SpanContext(context)) as root:
        assert not is_deferred(root)
    assert traces.one("root").trace_id == root.trace_id


def test_links_of_headers_that_did_not_agree(traces: Recorder) -> None:
    """ddtrace puts them on the first span."""
    one = SpanContext.extract(
        {
            "x-datadog-trace-id": "7",
            "x-datadog-parent-id": "8",
            "traceparent": "00-000000000000000000000000000000ff-00000000000000ee-01",
        }
    )
    with span("root", parent=one):
        pass
    assert [link.trace_id for link in traces.one("root").links] == [255]


ALIKE = """
    import asyncio, warnings
    warnings.simplefilter("ignore")  # ddtrace 4.16 says that shorter ids will go
    from ddtrace.trace import tracer
    from asynctrace import SpanContext, shutdown, span
    elsewhere = SpanContext.extract(
        {
            "x-datadog-trace-id": "7",
            "x-datadog-parent-id": "8",
            "x-datadog-sampling-priority": "1",
            "x-datadog-origin": "synthetics",
            "x-datadog-tags": "_dd.p.dm=-1,_dd.p.tid=6b0ebf7900000000",
        }
    )
    with span("first"):  # the thread runs
        pass
    with tracer.start_span("new, theirs", service="tea"):
        pass
    with span("new, ours", service="tea") as one:
        assert one._is_deferred()
    with tracer.start_span("below, theirs", child_of=elsewhere._context, service="tea"):
        pass
    with span("below, ours", parent=elsewhere, service="tea") as two:
        assert two._is_deferred()
    asyncio.run(shutdown())
    print(one.trace_id)
"""


@pytest.mark.parametrize("long_ids", [True, False], ids=["128 bits", "64 bits"])
def test_on_the_wire(long_ids: bool, sink: Sink) -> None:
    """All that is in the bytes is what ddtrace says of a span that it has started itself."""
    settings = {
        "DD_ENV": "test",
        "DD_VERSION": "1",
        "DD_SERVICE": "tea",
        "DD_TAGS": "team:green",
    }
    if not long_ids:
        settings["DD_TRACE_128_BIT_TRACEID_GENERATION_ENABLED"] = "false"
    trace_id = int(run(ALIKE, DD_TRACE_AGENT_URL=sink.url, **settings))
    spans = {one["name"]: one for one in sink.wait_for(5)}
    for kind in ("new", "below"):
        theirs, ours = spans[f"{kind}, theirs"], spans[f"{kind}, ours"]
        assert (ours["meta"].get("_dd.p.tid") is not None) == (long_ids or kind == "below")
        for one in (theirs, ours) if kind == "new" else ():
            one["meta"].pop("_dd.p.tid", None)  # the second it began in
            del one["trace_id"]
        for one in (theirs, ours):
            for varies in ("name", "resource", "span_id", "start", "duration"):
                del one[varies]
        assert ours == theirs
    assert (trace_id >= 2**64) is long_ids


STEPS = """
    import asyncio, sys
    import ddtrace.auto
    from asynctrace import span
    async def main():
        with span("first"):
            pass
        with span("root") as root, span("record") as record:
            for _ in range(3):
                await asyncio.sleep(0)
            print(root._is_deferred(), record._dd is None)
    asyncio.run(main())
"""


def test_steps_of_tasks_do_not_ask_for_it(sink: Sink) -> None:
    """Under ddtrace's asyncio integration ids are published at each step: for that neither root nor record is made."""
    assert run(STEPS, DD_TRACE_AGENT_URL=sink.url) == "True True"


def test_who_runs_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """ddtrace's listeners are told the ids of the root, and when it is over."""
    core: Any = importlib.import_module("ddtrace.internal.core")
    told: list[tuple[int, int, int | None] | None] = []

    def listen(_: Any, active: Any) -> None:
        told.append(None if active is None else (active.trace_id, active.span_id, active.sampling_priority))

    core.on("ddtrace.context_provider.activate", listen)
    try:
        with span("root", parent=DECIDED) as root, span("record"):
            assert is_deferred(root)
    finally:
        core.reset_listeners("ddtrace.context_provider.activate", listen)
    assert told[0] == (7, root.span_id, 1)
    assert told[-1] is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_forked_off(sink: Sink) -> None:
    """The parent process sends it; what is opened below it in the child arrives under it, once."""
    program = """
        import asyncio, os
        from asynctrace import span, shutdown
        with span("first"):
            pass
        with span("root") as root:
            with span("record"):
                pass
            assert root._is_deferred()
            pid = os.fork()
            with span("child" if not pid else "after"):
                pass
        if pid:
            os.waitpid(pid, 0)
        asyncio.run(shutdown())
        if not pid:
            os._exit(0)
    """
    run(program, DD_TRACE_AGENT_URL=sink.url)
    spans = sink.wait_for(5)
    assert sorted(one["name"] for one in spans) == ["after", "child", "first", "record", "root"]
    root = next(one for one in spans if one["name"] == "root")
    assert {one["parent_id"] for one in spans if one["name"] in {"after", "child", "record"}} == {
        root["span_id"]
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_forked_off_while_another_thread_starts_one(sink: Sink) -> None:
    """The child process does not wait for a thread that it does not have."""
    program = """
        import contextvars, os, signal, threading
        from asynctrace import span, start_span
        from asynctrace._core import deferred
        with span("first"):
            pass
        held, over = threading.Event(), threading.Event()
        def hold():
            with deferred._starting:
                held.set()
                over.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        root = contextvars.Context().run(start_span, "root")
        assert root._is_deferred()
        if not (pid := os.fork()):
            signal.alarm(5)  # ends it, should it wait
            root.as_parent()
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        over.set()
        thread.join()
    """
    assert run(program, DD_TRACE_AGENT_URL=sink.url) == "0"


def test_one_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, traces: Recorder) -> None:
    """It is lost, with what is below it, and nothing is kept."""
    with monkeypatch.context() as patch:
        patch.setattr("asynctrace._core.deferred.deferred_root", None)
        with span("root"), span("record"):
            pass
        handover.finish()
        assert not deferred.parents
    with span("another"), span("record"):
        pass
    assert traces.tree() == "another\n  record"


def test_a_door_that_is_gone(monkeypatch: pytest.MonkeyPatch, traces: Recorder) -> None:
    """ddtrace's aggregator has changed: the span is lost, and nobody notices."""
    monkeypatch.delattr(type(tracer._span_aggregator), "on_span_start")
    with span("root"):
        assert tracer.current_span() is not None
    assert current_span() is None
    assert traces.names() == set()
