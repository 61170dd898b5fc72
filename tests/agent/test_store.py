"""Traces in memory: joining, duplicates, the bound, and waiting."""

import threading

import pytest

from asynctrace.agent.intake import Intake, Payload
from asynctrace.agent.store import TraceNotFoundError, TraceStore
from tests.agent.payloads import HIGH, LOW, TRACE_ID, chunk, span, v04, wire


def only(store: TraceStore) -> list[int]:
    """The span ids of the one trace in a store."""
    (trace,) = store.traces()
    return sorted(one.span_id for one in trace.spans)


def test_chunks_of_several_processes_are_one_trace() -> None:
    """Chunks join by trace id in any order, the root may come last."""
    store = TraceStore()
    store.add([chunk(span(3, 2, service="worker"))])
    store.add([chunk(span(2, 1)), chunk(span(1))])
    assert only(store) == [1, 2, 3]
    (trace,) = store.traces()
    assert trace.services == ["shop", "worker"]
    assert trace.root is not None
    assert trace.root.span_id == 1


@pytest.mark.parametrize("order", [(HIGH, None), (None, HIGH)], ids=["known first", "unknown first"])
def test_a_chunk_without_the_upper_half_joins(order: tuple[int | None, int | None]) -> None:
    """A hop that knows 64 bits only is in the trace, and the whole id is known as soon as anyone says it."""
    store = TraceStore()
    for number, high in enumerate(order, 1):
        store.add([chunk(span(number), high=high)])
    assert only(store) == [1, 2]
    (trace,) = store.traces()
    assert trace.trace_id == TRACE_ID
    assert {one.trace_id for one in trace.spans} == {TRACE_ID}


def test_different_upper_halves_are_different_traces() -> None:
    """Two traces may share the lower half."""
    store = TraceStore()
    store.add([chunk(span(1), high=1), chunk(span(1), high=2)])
    assert sorted(trace.trace_id >> 64 for trace in store.traces()) == [1, 2]


def test_duplicates_are_counted_not_kept() -> None:
    """A payload that is sent again changes nothing, whatever part of it is new is taken."""
    store = TraceStore()
    store.add([chunk(span(1), span(1), span(2))])
    store.add([chunk(span(1), span(2), span(3))])
    assert only(store) == [1, 2, 3]
    assert store.counters.snapshot()["duplicate_spans"] == 3


def stored_size() -> int:
    """What a trace of one span takes."""
    store = TraceStore()
    store.add([chunk(span(1))])
    return store.stored_bytes


def test_the_oldest_traces_make_room() -> None:
    """The store stays within its bytes: who changed longest ago goes first, and is counted."""
    store = TraceStore(max_bytes=10 * stored_size())
    for low in range(1, 9):
        store.add([chunk(span(1), low=low)])
    store.add([chunk(span(2), low=1)])  # the first is now the newest
    for low in range(9, 14):
        store.add([chunk(span(1), low=low)])
    assert store.stored_bytes <= store.max_bytes
    kept = {trace.trace_id & 0xFF for trace in store.traces()}
    assert {1, 13} <= kept
    assert 2 not in kept
    counted = store.counters.snapshot()
    assert counted["evicted_traces"] == 13 - len(store)
    assert counted["spans"] - counted["evicted_spans"] == sum(len(trace.spans) for trace in store.traces())


def test_a_trace_that_fills_the_store_keeps_what_fits() -> None:
    """One trace larger than the bound is cut, and says so."""
    store = TraceStore(max_bytes=10 * stored_size())
    for number in range(1, 16):
        store.add([chunk(span(number))])
    (trace,) = store.traces()
    assert (len(trace.spans), trace.dropped) == (10, 5)
    assert store.counters.snapshot()["dropped_spans"] == 5
    assert store.stored_bytes <= store.max_bytes


def test_a_span_larger_than_the_store_leaves_no_trace() -> None:
    """A trace of which nothing fits is not there."""
    store = TraceStore(max_bytes=10)
    store.add([chunk(span(1))])
    assert (len(store), store.stored_bytes, store.last()) == (0, 0, None)
    assert store.counters.snapshot()["dropped_spans"] == 1


def test_find_by_whole_beginning_end_and_decimal() -> None:
    """An id is found in every form people have it in."""
    store = TraceStore()
    store.add([chunk(span(1)), chunk(span(1), low=5, high=HIGH)])
    for text in (
        f"{TRACE_ID:032x}",
        f"0x{TRACE_ID:032X}",
        f"{LOW:016x}",
        f"{LOW:x}",
        str(LOW),
        f"{TRACE_ID:032x}"[:20],
    ):
        assert store.find(text).trace_id == TRACE_ID, text


def test_find_names_the_candidates() -> None:
    """An ambiguous id is refused with the ids it may mean, one of nothing without."""
    store = TraceStore()
    store.add([chunk(span(1)), chunk(span(1), low=5, high=HIGH)])
    with pytest.raises(TraceNotFoundError) as ambiguous:
        store.find(f"{HIGH:016x}")
    assert len(ambiguous.value.candidates) == 2
    for text in ("", "zz", "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(TraceNotFoundError) as missing:
            store.find(text)
        assert missing.value.candidates == []


def test_wait_for_sees_past_and_future() -> None:
    """A trace that is already here counts, one that comes wakes, and none is a TimeoutError that tells."""
    store = TraceStore()
    with pytest.raises(TimeoutError, match="no trace has arrived"):
        store.wait_for(lambda _: True, timeout=0)
    store.add([chunk(span(1))])
    assert store.wait_for(lambda trace: len(trace.spans) == 1, timeout=0).trace_id == TRACE_ID
    adder = threading.Timer(0, store.add, [[chunk(span(2))]])
    adder.start()
    assert len(store.wait_for(lambda trace: len(trace.spans) == 2, timeout=5).spans) == 2
    adder.join()
    with pytest.raises(TimeoutError, match="2 spans of shop"):
        store.wait_for(lambda trace: len(trace.spans) == 3, timeout=0)


def test_listeners_hear_until_they_leave() -> None:
    """`subscribe` calls after every change, and its result ends that, also twice."""
    store, heard = TraceStore(), list[int]()
    leave = store.subscribe(lambda: heard.append(len(store)))
    store.add([chunk(span(1))])
    leave()
    leave()
    store.add([chunk(span(2))])
    assert heard == [1]


def test_changed_since_tells_what_is_new() -> None:
    """Only traces that changed after a version are told, in the order they changed."""
    store = TraceStore()
    store.add([chunk(span(1), low=1), chunk(span(1), low=2)])
    changed, version = store.changed_since(0)
    assert [trace.trace_id & 0xFF for trace in changed] == [1, 2]
    store.add([chunk(span(2), low=1)])
    changed, version = store.changed_since(version)
    assert [trace.trace_id & 0xFF for trace in changed] == [1]
    assert store.changed_since(version) == ([], version)


def test_waiting_bodies_are_bounded_in_bytes() -> None:
    """When too much waits, the oldest bodies are dropped and counted; many small ones are no burden."""
    store = TraceStore()
    bodies = [v04([wire(number)]) for number in range(1, 6)]
    intake = Intake(store, max_pending=3 * len(bodies[0]))
    for body in bodies:
        intake.put(Payload("v0.4", body))
    intake.start()
    assert intake.wait_idle(5)
    intake.close()
    assert only(store) == [3, 4, 5]
    counted = store.counters.snapshot()
    assert (counted["payloads"], counted["dropped_payloads"]) == (5, 2)
