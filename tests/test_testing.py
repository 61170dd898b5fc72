"""The test kit: what a Recorder sees, and how it says so."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import TYPE_CHECKING

import pytest
from ddtrace.trace import TraceFilter, tracer

from asynctrace import ROOT, SpanContext, UsageError, attached, span, start_span
from asynctrace._core.listening import listeners
from asynctrace.testing import RecordedSpan, Recorder
from tests.core.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sink import Sink


def test_what_is_recorded(traces: Recorder) -> None:
    """A span as plain data: names, ids, parent, times, outcome, tags and links."""
    there = SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})
    with span("a", resource="r", service="s", type="web", tags={"text": "x", "number": 7}) as a:
        a.link(there, {"why": "batch"})
        with pytest.raises(ValueError), span("b") as b:
            raise ValueError
    one, child = traces.spans
    assert (one.name, one.resource, one.service, one.type) == ("a", "r", "s", "web")
    assert (one.trace_id, one.span_id, one.parent_id) == (a.trace_id, a.span_id, None)
    assert (child.trace_id, child.span_id, child.parent_id) == (a.trace_id, b.span_id, a.span_id)
    assert one.trace_id >= 2**64
    assert (one.outcome, one.error, child.outcome, child.error) == ("ok", 0, "error", 1)
    assert {"text": "x", "number": 7}.items() <= one.tags.items()
    assert child.end_ns is not None
    assert one.end_ns is not None
    assert one.start_ns <= child.start_ns <= child.end_ns <= one.end_ns
    assert one.duration_ns == one.end_ns - one.start_ns
    (link,) = one.links
    assert (link.trace_id, link.span_id, link.attributes) == (7, 8, {"why": "batch"})


def test_only_what_was_handed_over(traces: Recorder) -> None:
    """An open span is in `open`; in `spans` it is when its trace has gone to the writer."""
    outer, inner = start_span("outer"), start_span("inner")
    assert ([one.name for one in traces.open], traces.spans) == (["outer", "inner"], [])
    assert traces.open[0].end_ns is None
    assert traces.open[0].duration_ns == 0
    inner.finish()
    assert ([one.name for one in traces.open], traces.spans) == (["outer"], [])
    outer.finish()
    assert (traces.open, [one.name for one in traces.spans]) == ([], ["outer", "inner"])


def test_what_is_recorded_is_sent_or_not(sink: Sink) -> None:
    """As asked for; what a recorder keeps back, no other one sends."""
    for send in (False, True):
        with Recorder(send=send), Recorder(send=True), span(f"sent: {send}"):
            pass
    assert [one["name"] for one in sink.wait_for(1)] == ["sent: True"]


def test_without_an_agent() -> None:
    """Where the environment names no agent, none is looked for: the process ends at once, and silently."""
    program = """
        import time
        from asynctrace import span
        from asynctrace.testing import Recorder
        with Recorder() as traces, span("outer"):
            pass
        print(*traces.names(), time.time())
    """
    name, ended = run(program).split()
    assert name == "outer"
    assert time.time() - float(ended) < 2.5  # ddtrace tries for 3 s


def test_open_spans_of_ddtrace(traces: Recorder) -> None:
    """`open` knows those that ddtrace's integrations, or `tracer.trace()`, have opened."""
    theirs = tracer.trace("theirs")
    names = [one.name for one in traces.open]
    theirs.finish()
    assert names == ["theirs"]


def test_spans_of_ddtrace_are_recorded(traces: Recorder) -> None:
    """Once they end, whoever made them."""
    with tracer.trace("theirs", service="s"):
        pass
    assert traces.one("theirs").service == "s"


def test_after_all_filters() -> None:
    """What a user's filter drops or changes is dropped or changed here, too."""

    class Users(TraceFilter):
        def process_trace(self, trace):  # type: ignore[no-untyped-def]
            trace[0].set_tag("seen", "yes")
            return None if trace[0].name == "dropped" else trace

    tracer.configure(trace_processors=[Users()])
    try:
        with Recorder() as traces:
            for name in ("dropped", "kept"):
                with span(name):
                    pass
    finally:
        tracer.configure(trace_processors=[])
    assert traces.names() == {"kept"}
    assert traces.one("kept").tags["seen"] == "yes"


def test_start_and_stop() -> None:
    """`start()` and `stop()` may be called twice; what was recorded stays; nothing is recorded in between."""
    traces = Recorder()
    for name in ("before", "during"):
        with span(name):
            pass
        assert traces.start() is traces
        traces.start()
    with span("during"):
        pass
    traces.stop()
    traces.stop()
    with span("after"):
        pass
    assert [one.name for one in traces.spans] == ["during", "during"]
    assert listeners == []


def test_two_recorders(traces: Recorder) -> None:
    """Each records on its own."""
    with span("a"):
        pass
    with Recorder() as other, span("b"):
        pass
    assert (traces.names(), other.names()) == ({"a", "b"}, {"b"})


def test_a_test_that_fails_stops_its_recorder() -> None:
    """The block passes the exception on."""
    with pytest.raises(AssertionError), Recorder():
        raise AssertionError
    assert listeners == []


def test_the_tree(traces: Recorder) -> None:
    """Children below parents, in the order of their starts, two spaces a level, the outcome when it is not ok."""
    with span("first"):
        with span("child"), span("grandchild"):
            pass
        with pytest.raises(asyncio.CancelledError), span("cancelled"):
            raise asyncio.CancelledError
    with span("second"):
        pass
    assert traces.tree() == "first\n  child\n    grandchild\n  cancelled (cancelled)\nsecond"
    traces.clear()
    assert (traces.tree(), traces.spans, traces.open) == ("", [], [])


def test_the_tree_of_part_of_a_trace(traces: Recorder) -> None:
    """A span whose parent was not recorded (a remote one, say) is at the top."""
    with span("a", parent=SpanContext.extract({"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"})):
        pass
    assert traces.tree() == "a"
    assert traces.one("a").parent_id == 8


def test_the_tree_of_a_deep_trace(traces: Recorder) -> None:
    """Depth is no problem."""
    handles = [start_span("a") for _ in range(2000)]
    for handle in reversed(handles):
        handle.finish()
    assert traces.tree().splitlines()[-1] == "  " * 1999 + "a"


def test_one_tells_what_there_is(traces: Recorder) -> None:
    """Asked for a span that is not there, or there twice, it fails with the tree."""
    with span("a"), span("b"):
        pass
    with pytest.raises(AssertionError, match="0 spans named 'c' in\na\n  b"):
        traces.one("c")
    with span("b"):
        pass
    with pytest.raises(AssertionError, match="2 spans named 'b'"):
        traces.one("b")
    traces.clear()
    with pytest.raises(AssertionError, match="nothing"):
        traces.one("a")


def test_recorded_from_threads(traces: Recorder) -> None:
    """Spans of all threads are there, each once."""

    def work() -> None:
        for _ in range(50):
            with span("a"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.span_id for one in traces.spans}) == len(traces.spans) == 200


# -- asserting a tree


def failure(traces: Recorder, expected: str, *, ordered: bool = True) -> list[str]:
    """The lines of the failure."""
    with pytest.raises(AssertionError) as caught:
        traces.assert_tree(expected, ordered=ordered)
    return str(caught.value).splitlines()


def checkout(*, swapped: bool = False) -> None:
    """Two traces, the first with siblings."""
    with span("checkout"):
        for name in ("pay", "price") if swapped else ("price", "pay"):
            with span(name), span("query"):
                pass
    with span("mail"):
        pass


CHECKOUT = """
    checkout
        price
            query
        pay
            query
    mail
"""


def test_a_tree_as_it_reads(traces: Recorder) -> None:
    """Any indentation will do, and blank lines; each trace has its own first line."""
    checkout()
    traces.assert_tree(CHECKOUT)
    traces.assert_tree(traces.tree())
    traces.assert_tree("checkout\n price\n  query\n\n pay\n  query\n\n\nmail")
    traces.assert_tree("checkout\n\tprice\n\t\tquery\n\tpay\n\t\tquery\nmail")


def test_nothing_is_a_tree(traces: Recorder) -> None:
    """The empty text is asserted of an empty recorder, and only of one."""
    traces.assert_tree("")
    assert failure(traces, "a")[1:] == ["- a"]
    with span("a"):
        pass
    assert failure(traces, "")[1:] == ["+ a"]


def test_a_wrong_tree_is_shown_beside_the_right_one(traces: Recorder) -> None:
    """The whole of both, in one text; what is open is told, too."""
    checkout()
    still = start_span("invoice", parent=ROOT)
    lines = failure(traces, CHECKOUT.replace("mail", "mail\n    invoice").replace("pay", "pay (error)"))
    still.finish()
    assert lines == [
        "the traces are not as expected (- expected, + recorded):",
        "  checkout",
        "    price",
        "      query",
        "-   pay (error)",
        "+   pay",
        "      query",
        "  mail",
        "- invoice",
        "still open:",
        "  invoice",
    ]


def test_outcomes_are_part_of_a_tree(traces: Recorder) -> None:
    """In brackets, where they are not ok."""
    for exc in (asyncio.CancelledError, TimeoutError, ValueError):
        with pytest.raises(exc), span("a"):
            raise exc
    traces.assert_tree("a (cancelled)\na (timeout)\na (error)")
    failure(traces, "a\na (timeout)\na (error)")


@pytest.mark.parametrize(
    "expected",
    [
        "checkout\n price\n pay\n  query\nmail",
        "checkout\n price\n  query\n pay\n  query\n mail",
        "checkout\n price\n  query\n   pay\n  query\nmail",
        "checkout\n price\n  query\n pay\n  query",
        "checkout\n price\n  query\n  query\n pay\nmail",
    ],
)
@pytest.mark.parametrize("ordered", [True, False])
def test_every_difference_is_one(traces: Recorder, expected: str, ordered: bool) -> None:
    """A span missing, too many, or below another parent fails, with order or without."""
    checkout()
    assert any(line[:1] in "+-" for line in failure(traces, expected, ordered=ordered)[1:])


def test_siblings_in_any_order(traces: Recorder) -> None:
    """`ordered=False` takes siblings, and traces, in any order; else the failure tells that it is the order only."""
    checkout(swapped=True)
    assert failure(traces, CHECKOUT)[-1] == (
        "(only the order differs: ordered=False takes siblings in any order)"
    )
    traces.assert_tree(CHECKOUT, ordered=False)
    traces.assert_tree("mail\ncheckout\n pay\n  query\n price\n  query", ordered=False)


def test_a_wrong_tree_in_any_order_shows_what_is_wrong_only(traces: Recorder) -> None:
    """What is alike stands beside its like."""
    checkout(swapped=True)
    wrong = CHECKOUT.replace("price\n            query", "price\n            cache")
    assert failure(traces, wrong, ordered=False)[1:] == [
        "  checkout",
        "    price",
        "-     cache",
        "+     query",
        "    pay",
        "      query",
        "  mail",
    ]


def test_siblings_of_one_name_in_any_order(traces: Recorder) -> None:
    """Told apart by what is below them."""
    with span("a"):
        for child in ("x", "y"):
            with span("b"), span(child):
                pass
    traces.assert_tree("a\n b\n  y\n b\n  x", ordered=False)
    failure(traces, "a\n b\n  y\n b\n  y", ordered=False)


def test_a_tree_of_something_else_than_names(traces: Recorder) -> None:
    """`label` says what stands for a span; line breaks in it are spaces."""
    with span("request", resource="GET /"), span("query", resource="SELECT 1\n  FROM a"):
        pass
    traces.assert_tree("GET /\n  SELECT 1 FROM a", label=lambda one: one.resource)
    assert traces.tree(lambda one: one.resource) == "GET /\n  SELECT 1 FROM a"


@pytest.mark.parametrize("text", ["a\n    b\n  c", "  a\nb", "a\n  b\n      c\n    d"])
def test_indentation_that_makes_no_sense(traces: Recorder, text: str) -> None:
    """A line that is no line's sibling is the test's mistake, and is named."""
    with pytest.raises(UsageError, match=f"'{text[-1]}' is indented as none"):
        traces.assert_tree(text)


@pytest.mark.parametrize("ordered", [True, False])
def test_asserting_a_deep_tree(traces: Recorder, ordered: bool) -> None:
    """Depth is no problem."""
    handles = [start_span("a") for _ in range(2000)]
    for handle in reversed(handles):
        handle.finish()
    traces.assert_tree(traces.tree(), ordered=ordered)


# -- orphans, unfinished spans, cross-talk


def test_a_span_whose_parent_is_nowhere_is_an_orphan(traces: Recorder) -> None:
    """Its parent ended before the recorder started; the failure names the span and its parent."""
    before = start_span("before")
    before.finish()
    traces.clear()
    with attached(before.context), span("late"), span("child"):
        pass
    assert [one.name for one in traces.orphans()] == ["late"]
    with pytest.raises(
        AssertionError, match=rf"late \(trace {before.trace_id:032x}, parent {before.span_id:016x}"
    ):
        traces.assert_no_orphans()


def test_who_is_no_orphan(traces: Recorder) -> None:
    """A first span, a child, one whose parent came in headers, one whose parent is recorded in another trace chunk."""
    headers = {"x-datadog-trace-id": "7", "x-datadog-parent-id": "8"}
    with span("a", parent=SpanContext.extract(headers)) as a, span("b"):
        pass
    with span("late", parent=a.context), span("later"):
        pass
    assert [(one.name, one.remote) for one in traces.spans if one.remote] == [("a", True)]
    traces.assert_no_orphans()


def test_the_child_of_an_open_span_is_no_orphan(traces: Recorder) -> None:
    """Nor while its parent, ended itself, waits for the rest of its trace."""
    root = tracer.start_span("root")
    parent = tracer.start_span("parent", child_of=root)
    child = tracer.start_span("child", child_of=parent)
    other = Recorder()
    for one in (root, parent, child):
        other.opened(one)
    child.finish()
    other.handed_over([child])
    assert other.orphans() == []
    parent.finish()
    assert other.orphans() == []
    root.finish()
    assert names(other.orphans()) == ["child"]
    traces.assert_no_orphans()


def test_the_child_of_a_dropped_span_is_an_orphan() -> None:
    """A user's filter that drops a span in the middle leaves its children without a parent."""

    class Drops(TraceFilter):
        def process_trace(self, trace):  # type: ignore[no-untyped-def]
            return [one for one in trace if one.name != "dropped"]

    tracer.configure(trace_processors=[Drops()])
    try:
        with Recorder() as traces, span("a"), span("dropped"), span("child"):
            pass
    finally:
        tracer.configure(trace_processors=[])
    assert [one.name for one in traces.orphans()] == ["child"]


def test_all_is_finished_or_not(traces: Recorder) -> None:
    """Open spans are listed."""
    traces.assert_finished()
    outer, inner = start_span("outer"), start_span("inner")
    with pytest.raises(AssertionError) as caught:
        traces.assert_finished()
    assert str(caught.value) == "2 not finished:\n(nothing)\nstill open:\n  outer\n    inner"
    inner.finish()
    outer.finish()
    traces.assert_finished()


def request(user: str, *below: str, parent: SpanContext | None = None) -> SpanContext:
    with span("request", tags={"user": user}, parent=parent or ROOT) as handle:
        for name in below:
            with span("query", tags={"user": name}), span("socket"):
                pass
        return handle.context


def test_traces_of_their_own(traces: Recorder) -> None:
    """Requests that have a trace each, told by a tag or by a function; spans that do not tell belong to any."""
    request("ann", "ann")
    request("bob", "bob", "bob")
    with span("other"):
        pass
    traces.assert_no_crosstalk("user")
    traces.assert_no_crosstalk(by=lambda one: one.tags.get("user"))
    assert [[one.name for one in spans] for spans in traces.traces().values()] == [
        ["request", "query", "socket"],
        ["request", "query", "socket", "query", "socket"],
        ["other"],
    ]
    assert list(traces.traces()) == list(dict.fromkeys(one.trace_id for one in traces.spans))


def test_a_request_in_anothers_trace(traces: Recorder) -> None:
    """Fails, with the traces in question only, and whose each span is."""
    request("ann", "ann")
    trace_id = request("bob", "bob", "eve").trace_id
    with pytest.raises(AssertionError) as caught:
        traces.assert_no_crosstalk("user")
    assert str(caught.value) == (
        "requests share a trace, or have more than one:\n"
        f"trace {trace_id:032x}\n"
        "  request [bob]\n    query [bob]\n      socket\n    query [eve]\n      socket"
    )


def test_a_request_in_two_traces(traces: Recorder) -> None:
    """Fails with both."""
    first, second = request("ann", "ann"), request("ann")
    with pytest.raises(AssertionError) as caught:
        traces.assert_no_crosstalk("user")
    assert f"trace {first.trace_id:032x}" in str(caught.value)
    assert f"trace {second.trace_id:032x}" in str(caught.value)


def test_no_request_at_all(traces: Recorder) -> None:
    """A tag that no span has proves nothing: it fails."""
    request("ann")
    with pytest.raises(AssertionError, match="no span tells whose it is by 'usr' in\nrequest"):
        traces.assert_no_crosstalk("usr")


# -- waiting


def do(name: str) -> None:
    with span(name, parent=ROOT):
        pass


def names(spans: list[RecordedSpan]) -> list[str]:
    return [one.name for one in spans]


async def test_waiting_for_what_is_there(traces: Recorder) -> None:
    """What is so already is not waited for, not even for a turn of the loop."""
    do("a")
    for what in (0, 1, "a", lambda recorder: recorder.names() == {"a"}):
        waiting = traces.wait_for(what, timeout=0)
        with pytest.raises(StopIteration) as ended:
            waiting.send(None)
        assert names(ended.value.value) == names(traces.wait_for_sync(what, timeout=0)) == ["a"]


async def test_waiting_in_the_loop(traces: Recorder) -> None:
    """For a number, a name or whatever a function of the recorder wants; each goes on when it is so."""
    done: list[str] = []

    async def wait(label: str, what: object) -> None:
        await traces.wait_for(what)  # type: ignore[arg-type]
        done.append(label)

    tasks = [
        asyncio.create_task(wait(label, what))
        for label, what in (("b", "b"), ("2", 2), ("3", 3), ("c", lambda recorder: "c" in recorder.names()))
    ]
    turns: tuple[tuple[str, list[str]], ...] = (("a", []), ("b", ["b", "2"]), ("c", ["3", "c"]))
    for name, expected in turns:
        for _ in range(5):
            await asyncio.sleep(0)
        do(name)
        for _ in range(5):
            await asyncio.sleep(0)
        assert done == expected
        done.clear()
    await asyncio.gather(*tasks)


async def test_waiting_for_threads_and_other_loops(traces: Recorder) -> None:
    """Woken by spans that end in a thread, or in the loop of another thread."""

    async def elsewhere() -> None:
        do("loop")

    threads = [
        threading.Thread(target=do, args=("thread",)),
        threading.Thread(target=asyncio.run, args=(elsewhere(),)),
    ]
    waiting = asyncio.create_task(traces.wait_for(2))
    await asyncio.sleep(0)
    for thread in threads:
        thread.start()
    assert sorted(names(await waiting)) == ["loop", "thread"]
    for thread in threads:
        thread.join()


def test_waiting_without_a_loop(traces: Recorder) -> None:
    """Blocks the thread until another's spans are handed over."""
    go = threading.Event()

    def work() -> None:
        go.wait()
        for name in ("a", "b", "c"):
            do(name)

    thread = threading.Thread(target=work)
    thread.start()

    def there(recorder: Recorder) -> bool:
        go.set()  # only now: it waits
        return "c" in recorder.names()

    assert names(traces.wait_for_sync(there)) == ["a", "b", "c"]
    thread.join()


async def test_waiting_in_vain(traces: Recorder) -> None:
    """Fails when the time is over, with what was asked for and what there is."""
    do("a")
    still = start_span("b")
    message = r"waited 0.01 s for {}, got\na\nstill open:\n  b"
    for what, wanted in ((2, "2 spans"), ("b", "a span named 'b'")):
        with pytest.raises(AssertionError, match=message.format(wanted)):
            await traces.wait_for(what, timeout=0.01)
        with pytest.raises(AssertionError, match=message.format(wanted)):
            traces.wait_for_sync(what, timeout=0.01)
    still.finish()


async def test_waiting_is_cancelled(traces: Recorder) -> None:
    """Cancelling who waits ends the waiting: nobody is woken later."""
    task = asyncio.create_task(traces.wait_for(1))
    await asyncio.sleep(0)
    assert traces._waiting._wakers
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not traces._waiting._wakers


def test_who_waited_in_a_loop_that_is_closed(traces: Recorder) -> None:
    """Does not disturb whoever ends a span."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(traces.wait_for(1))
    loop.run_until_complete(asyncio.wait([task], timeout=0))
    waker = traces._waiting._wakers[0]
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    waker()


async def test_a_function_that_raises(traces: Recorder) -> None:
    """Its exception is the one who waits's, not that of the code that is traced."""

    def fails(recorder: Recorder) -> bool:
        return bool(1 / len(recorder.spans))

    with pytest.raises(ZeroDivisionError):
        await traces.wait_for(fails)
    with pytest.raises(ZeroDivisionError):
        traces.wait_for_sync(fails)
    do("a")


async def test_waiting_for_nonsense(traces: Recorder) -> None:
    """What is no number, name or function is refused."""
    with pytest.raises(UsageError, match="can't wait for None"):
        await traces.wait_for(None)  # type: ignore[arg-type]


def test_spans_that_the_garbage_collector_ends(traces: Recorder) -> None:
    """They may end while the recorder is read, in the very thread that reads it."""

    def generator() -> Iterator[None]:
        with span("abandoned", parent=ROOT):
            yield

    class Garbage:
        def __init__(self) -> None:
            self.me, self.work = self, generator()
            next(self.work)

    Garbage()
    with traces._lock:
        gc.collect()
    assert traces.one("abandoned").outcome == "closed"
