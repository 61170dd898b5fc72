"""SpanContext: how work crosses a gap, and what is made of what others send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from multidict import CIMultiDict

from asynctrace import ROOT, SpanContext, UsageError, attached, detached, span, start_span
from asynctrace._core.carrier import KNOWN, MAX_BAGGAGE_ITEMS, MAX_VALUE
from tests.core.process import run

if TYPE_CHECKING:
    from asynctrace.testing import Recorder
    from tests.sink import Sink


def injected(context: SpanContext) -> dict[str, str]:
    """The headers of a context."""
    headers: dict[str, str] = {}
    return context.inject(headers)


DATADOG = {
    "x-datadog-trace-id": "7",
    "x-datadog-parent-id": "8",
    "x-datadog-sampling-priority": "2",
    "x-datadog-tags": "_dd.p.tid=640cfd8d00000000,_dd.p.dm=-4",
}
W3C = {
    "traceparent": "00-640cfd8d00000000000000000000abcd-00000000000000ef-01",
    "tracestate": "dd=s:2;o:rum;t.dm:-4,other=1",
}


def test_extract_is_the_inverse_of_inject() -> None:
    """What is injected here is extracted there: the same trace (128 bits) and the same parent."""
    with span("a") as here:
        context = SpanContext.current()
        there = SpanContext.extract(injected(context))
    assert there == context == here.context
    assert hash(there) == hash(context)
    assert (there.trace_id, there.span_id) == (here.trace_id, here.span_id)
    assert there.trace_id >= 2**64


def test_a_context_survives_any_number_of_hops() -> None:
    """Passing headers on without a span changes nothing in them."""
    first = injected(SpanContext.extract({**W3C, "baggage": "user=7"}))
    assert injected(SpanContext.extract(first)) == first


def test_both_header_families_are_written() -> None:
    """Datadog's headers and W3C's leave together."""
    with span("a"):
        headers = injected(SpanContext.current())
    assert {"x-datadog-trace-id", "x-datadog-parent-id", "traceparent", "tracestate"} <= headers.keys()


@pytest.mark.parametrize("headers", [DATADOG, W3C], ids=["datadog", "w3c"])
def test_ids_of_128_bits_and_the_decision_arrive(headers: dict[str, str]) -> None:
    """The upper half of the trace id, the parent and the sampling priority come out of either family."""
    context = SpanContext.extract(headers)
    assert context.trace_id >> 64 == 0x640CFD8D00000000
    assert context.span_id == int(headers.get("x-datadog-parent-id") or "239")
    assert injected(context)["x-datadog-sampling-priority"] == "2"


def test_tracestate_of_other_vendors_is_passed_on() -> None:
    """Members of `tracestate` that are not Datadog's are kept."""
    with span("a", parent=SpanContext.extract(W3C)):
        assert injected(SpanContext.current())["tracestate"].endswith(",other=1")


def test_baggage_is_passed_on() -> None:
    """W3C baggage that came in goes out with the work it belongs to."""
    with span("a", parent=SpanContext.extract({**DATADOG, "baggage": "user=7,plan=pro"})), span("b"):
        assert injected(SpanContext.current())["baggage"] == "user=7,plan=pro"


def test_b3_headers_are_understood() -> None:
    """Both forms of b3, when `DD_TRACE_PROPAGATION_STYLE` names them, with either length of the trace id."""
    program = """
        from asynctrace import SpanContext
        single = SpanContext.extract({"b3": "640cfd8d00000000000000000000abcd-00000000000000ef-1"})
        multi = {"X-B3-TraceId": "00000000000000cd", "X-B3-SpanId": "00000000000000ef", "X-B3-Sampled": "1"}
        print(single, SpanContext.extract(multi), SpanContext.extract({"b3": "zz-1"}))
        print(sorted(single.inject({})))
    """
    read, written = run(program, DD_TRACE_PROPAGATION_STYLE="b3,b3multi").splitlines()
    assert read == (
        f"SpanContext(trace_id=640cfd8d00000000000000000000abcd, span_id={0xEF:016x})"
        f" SpanContext(trace_id={0xCD:032x}, span_id={0xEF:016x}) SpanContext()"
    )
    assert written == "['b3', 'x-b3-sampled', 'x-b3-spanid', 'x-b3-traceid']"


@pytest.mark.parametrize("make", [dict, CIMultiDict], ids=["dict", "CIMultiDict"])
def test_stale_headers_are_replaced(make: Any) -> None:
    """Trace headers that were there go, in whatever case, and nothing else does."""
    headers = make(
        {key.title(): value for key, value in {**DATADOG, **W3C, "b3": "1", "accept": "*"}.items()}
    )
    with span("a") as here:
        assert here.context.inject(headers) is headers
    assert SpanContext.extract(headers) == here.context
    assert len({key.lower() for key in headers}) == len(list(headers))
    assert "Accept" in headers
    assert "B3" not in headers


def test_a_repeated_header_of_a_multidict_is_replaced() -> None:
    """Each of several headers of the same name goes."""
    headers = CIMultiDict([("Traceparent", "x"), ("traceparent", "y"), ("x-datadog-trace-id", "1")])
    with span("a") as here:
        here.context.inject(headers)
    assert headers.getall("traceparent") == [headers["traceparent"]]
    assert SpanContext.extract(headers) == here.context


def test_the_empty_context() -> None:
    """It is false, starts a new trace, and leaves headers as they are."""
    assert not ROOT
    assert SpanContext.current() is ROOT
    assert ROOT == SpanContext.extract({}) == SpanContext()
    assert ROOT.inject(dict(DATADOG)) == DATADOG
    with span("a") as a, span("b", parent=ROOT) as b:
        assert a.trace_id != b.trace_id


def test_contexts_are_told_apart() -> None:
    """By their ids, which are what is shown of them; nothing else is equal to one."""
    here = SpanContext.extract(DATADOG)
    assert here == SpanContext.extract(DATADOG)
    assert here != SpanContext.extract(W3C)
    assert here != 7
    assert len({here, SpanContext.extract(DATADOG), ROOT}) == 2
    assert repr(here) == "SpanContext(trace_id=640cfd8d000000000000000000000007, span_id=0000000000000008)"
    assert repr(ROOT) == "SpanContext()"


def test_inject_decides_on_sampling_once() -> None:
    """The decision that leaves with the first headers is the trace's own: all services agree."""
    with span("a") as a:
        headers = injected(a.context)
        with span("b") as b:
            assert (
                injected(b.context)["x-datadog-sampling-priority"] == headers["x-datadog-sampling-priority"]
            )


def test_a_context_outlives_its_span(traces: Recorder) -> None:
    """Kept for later, it still is the parent; it holds no span."""
    with span("a"):
        kept = SpanContext.current()
    with span("b", parent=kept):
        pass
    with attached(kept), span("c"):
        pass
    assert traces.tree() == "a\n  b\n  c"


def test_attached_and_detached_end_with_their_block(traces: Recorder) -> None:
    """Inside, their context (or nothing) is active, as often as asked for; afterwards what was active before."""
    there = SpanContext.extract(DATADOG)
    with span("a") as a:
        with attached(there):
            with span("b") as b, span("c") as c:
                pass
            with span("d") as d:
                pass
            with detached(), span("e") as e:
                pass
        with span("f") as f:
            pass
    assert [s.trace_id for s in (b, c, d)] == [there.trace_id] * 3
    assert traces.one("d").parent_id == 8
    assert traces.one("e").parent_id is None
    assert e.trace_id not in {a.trace_id, there.trace_id}
    assert traces.one("f").parent_id == a.span_id
    assert f.trace_id == a.trace_id


def test_attached_may_be_entered_again(traces: Recorder) -> None:
    """The same `attached(...)` object works in a second block as in the first."""
    again = attached(SpanContext.extract(DATADOG))
    for _ in range(2):
        with again, span("a"):
            pass
    assert [s.parent_id for s in traces.spans] == [8, 8]


async def test_attached_may_be_shared(traces: Recorder) -> None:
    """Two tasks in the same `attached(...)` object, interleaved: each leaves its own block."""
    shared = attached(SpanContext.extract(DATADOG))
    entered, left = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        with shared:
            await entered.wait()
        with span("first, outside"):
            left.set()

    async def second() -> None:
        with shared:
            entered.set()
            await left.wait()
            with span("second, inside"):
                pass

    await asyncio.gather(first(), second())
    assert traces.one("first, outside").parent_id is None
    assert traces.one("second, inside").parent_id == 8


def test_wrong_arguments_are_told() -> None:
    """What is no context, or no mutable mapping, raises `UsageError` with a hint, at once."""
    wrong: Any = "traceparent"
    for call in (
        lambda: span("a", parent=wrong),
        lambda: start_span("a", parent=wrong),
        lambda: attached(wrong),
    ):
        with pytest.raises(UsageError, match="hint"):
            call()
    with span("a") as a, pytest.raises(UsageError, match="hint"):
        a.context.inject(wrong)


# -- what others send

HOSTILE_VALUES: tuple[object, ...] = (
    *(b"7", bytearray(b"7"), 7, 7.0, True, None, ["7"], ("7",), {"7": 7}, object()),
    *("", " ", "-7", "x" * (MAX_VALUE + 1)),
    *("9" * 400, "\u0667", "\ud800", "7\r\nset-cookie: a", "7\0", "0x7", "1e3", "18446744073709551616"),
)  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=range(len(HOSTILE_VALUES)))
@pytest.mark.parametrize("key", ["x-datadog-trace-id", "x-datadog-sampling-priority"])
def test_one_wrong_header_starts_a_new_trace(key: str, value: object) -> None:
    """An id or priority that is not one makes the context empty."""
    assert SpanContext.extract({**DATADOG, key: value}) is ROOT


@pytest.mark.parametrize("priority", ["3", "-2", "01", "9" * 400])
def test_a_priority_that_does_not_exist_is_not_passed_on(priority: str) -> None:
    """Only Datadog's four priorities are taken, in `tracestate`, too."""
    assert SpanContext.extract({**DATADOG, "x-datadog-sampling-priority": priority}) is ROOT
    there = SpanContext.extract({**W3C, "tracestate": f"dd=s:{priority}"})
    assert injected(there).get("x-datadog-sampling-priority") in {None, "1"}


@pytest.mark.parametrize(
    "value",
    [
        "00-00000000000000000000000000000000-00000000000000ef-01",
        "00-640cfd8d00000000000000000000abcd-0000000000000000-01",
        "00-640CFD8D00000000000000000000ABCD-00000000000000ef-01",
        "00-640cfd8d00000000000000000000abcd-00000000000000ef",
        "ff-640cfd8d00000000000000000000abcd-00000000000000ef-01",
        "00-640cfd8d00000000000000000000abcd-00000000000000ef-01-more",
        b"00-640cfd8d00000000000000000000abcd-00000000000000ef-01",
    ],
)
def test_a_wrong_traceparent_starts_a_new_trace(value: object) -> None:
    """Zero ids, upper case, missing parts, version ff, and bytes are no parents."""
    assert not SpanContext.extract({"traceparent": value})


@pytest.mark.parametrize(
    "headers", [None, 7, "x", b"x", [], [("a",)], [7], object(), {7: 8, None: 9, b"b3": "1"}]
)
def test_what_is_no_headers_starts_a_new_trace(headers: object) -> None:
    """Whatever is handed in, nothing is raised."""
    assert SpanContext.extract(headers) is ROOT


def test_headers_that_raise_start_a_new_trace() -> None:
    """A lazy mapping whose reading fails is an empty one."""

    class Broken(dict[str, str]):
        def items(self) -> Any:
            raise ConnectionResetError

    assert SpanContext.extract(Broken()) is ROOT


def test_pairs_are_headers_too() -> None:
    """A list of pairs is read like a mapping; of a repeated header the first counts."""
    pairs = [(key.upper(), value) for key, value in DATADOG.items()]
    assert SpanContext.extract([*pairs, ("x-datadog-trace-id", "9")]) == SpanContext.extract(DATADOG)


def test_baggage_is_bounded() -> None:
    """As many `ot-baggage-*` headers are read as ddtrace carries, not as many as somebody sends."""
    many = {f"ot-baggage-{number}": "x" for number in range(1000)}
    context = SpanContext.extract({**DATADOG, **many})
    assert context.trace_id
    assert len([key for key in injected(context) if key.startswith("ot-baggage-")]) <= MAX_BAGGAGE_ITEMS


def test_an_extracted_context_without_a_parent_can_be_used(traces: Recorder) -> None:
    """`x-datadog-parent-id: 0` (a browser's) names a trace but no span: joined and injected all the same."""
    there = SpanContext.extract({**DATADOG, "x-datadog-parent-id": "0"})
    with span("a", parent=there) as a:
        assert SpanContext.extract(injected(a.context)) == a.context
        injected(there)
    assert traces.one("a").trace_id == there.trace_id


def test_linking_a_context_without_a_span_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Headers decide whether there is a span to link to: its lack is ignored, and not worth a log line."""
    there = SpanContext.extract({**DATADOG, "x-datadog-parent-id": "0"})
    with span("a") as a:
        a.link(there)
    assert not caplog.records


almost = st.one_of(
    st.sampled_from(
        [*DATADOG.values(), *W3C.values(), "user=7", "dd=s:2;p:00;t.dm:-4;o:~~", "_dd.p.tid=zz,=,a=,,"]
    ),
    st.text(max_size=40),
    st.text("0123456789abcdefx-=;,:~._dpts \t\r\n\0\ud800é", max_size=60),
    st.sampled_from([b"7", 7, -1, 2**70, True, None, 1.5, "9" * 400, "x" * 9000, "dd=" + "s:2;" * 300]),
    st.lists(st.text(max_size=3), max_size=2),
    st.binary(max_size=8),
)
keys = st.sampled_from(
    [*sorted(KNOWN), "ot-baggage-a", "ot-baggage-é", "OT-Baggage-B", "Traceparent", "cookie"]
)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(headers=st.dictionaries(keys, almost, max_size=8))
def test_hostile_headers_never_raise_now_or_later(
    headers: dict[str, Any], traces: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Extract, open, tag, inject again, finish, hand over: no exception, no warning, the context intact."""
    caplog.clear()
    with span("local") as local:
        there = SpanContext.extract(headers)
        with span("a", parent=there, tags=headers) as a:
            out = injected(SpanContext.current())
            assert SpanContext.extract(out).span_id == a.span_id
        with attached(there), span("b"):
            assert not any(set(v) & set("\r\n\0") for v in injected(there).values())
        assert SpanContext.current() == local.context
    assert len(traces.spans) == 3
    traces.clear()
    assert not [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    tid=st.sampled_from(["7", "18446744073709551615", "0007"]),
    tags=st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80), st.just("_dd.p.tid=1")
    ),
    state=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
    origin=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    baggage=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)
def test_plausible_headers_go_through_whole(
    *, tid: str, tags: str, state: str, origin: str, baggage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Printable rubbish in tags, tracestate, origin and baggage costs the trace nothing, and is logged by nobody."""
    there = SpanContext.extract(
        {**DATADOG, "x-datadog-trace-id": tid, "x-datadog-tags": tags, "x-datadog-origin": origin,
         "traceparent": W3C["traceparent"], "tracestate": f"dd={state}", "baggage": baggage}
    )  # fmt: skip
    with span("a", parent=there) as a:
        assert SpanContext.extract(injected(a.context)) == a.context
    assert not [record.getMessage() for record in caplog.records if record.levelno > 30]


def test_spans_under_hostile_headers_reach_the_agent(sink: Sink) -> None:
    """What was opened under rubbish is delivered: no header spoils the payload of the others."""
    for value in HOSTILE_VALUES:
        with span("a", parent=SpanContext.extract(dict.fromkeys(KNOWN, value)), tags={"value": value}):
            pass
    assert len(sink.wait_for(len(HOSTILE_VALUES))) == len(HOSTILE_VALUES)
