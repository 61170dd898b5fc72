"""Bodies of the trace protocol, good and bad."""

import json
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from asynctrace.agent import lenient, protocol
from asynctrace.agent.intake import Intake, Payload
from asynctrace.agent.protocol import BadPayloadError, decode
from asynctrace.agent.spans import Link
from asynctrace.agent.store import TraceStore
from tests.agent.payloads import HIGH, LOW, MS, START, read, v04, v05, wire

VERSIONS = ["v0.3", "v0.4", "v0.5"]


def body_of(version: str, *traces: list[dict[str, Any]]) -> bytes:
    return v05(*traces) if version == "v0.5" else v04(*traces)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_same_span(version: str) -> None:
    """A span says the same in every version of the protocol."""
    one = wire(5, 4, type="web", error=1, metrics={"size": 1.5})
    (found,), bad = read(version, body_of(version, [one]))
    assert (found.low, found.high, bad) == (LOW, HIGH, 0)
    (span,) = found.spans
    assert (span.name, span.service, span.resource, span.type) == ("work", "shop", "work", "web")
    assert (span.trace_id, span.span_id, span.parent_id) == (LOW, 5, 4)
    assert (span.start, span.duration, span.error, span.metrics) == (START, MS, 1, {"size": 1.5})
    assert span.meta == {"_dd.p.tid": f"{HIGH:016x}"}


@pytest.mark.parametrize("version", VERSIONS)
def test_sql_comes_in_without_its_literals(version: str) -> None:
    """As in Datadog's agent: tracers leave it to whoever receives. Other resources are nobody's business."""
    sql, other = "SELECT 'my secret', 4711 FROM tea WHERE id = $1", "GET /tea/'4711'"
    told = [
        wire(5, resource=sql, type="sql", meta={"db.statement": sql, "note": sql}),
        wire(6, resource=other, type="web"),
    ]
    (found,), _ = read(version, body_of(version, told))
    shown = "SELECT ? FROM tea WHERE id = $1"
    assert [one.resource for one in found.spans] == [shown, other]
    assert (found.spans[0].meta["db.statement"], found.spans[0].meta["note"]) == (shown, sql)


def test_json_bodies_are_read() -> None:
    """Tracers of other languages may send JSON."""
    (found,), bad = read("v0.3", json.dumps([[wire(5)]]).encode(), is_json=True)
    assert [span.span_id for span in found.spans] == [5]
    assert bad == 0


def test_upper_half_comes_from_any_span_of_the_chunk() -> None:
    """The upper half of the trace id is on one span of a chunk, and holds for all."""
    (found,), _ = read("v0.4", v04([wire(1, tid=None), wire(2)]))
    assert found.high == HIGH
    (found,), _ = read("v0.4", v04([wire(1, tid=None)]))
    assert found.high is None
    (found,), _ = read("v0.4", v04([wire(1, meta={"_dd.p.tid": "not hex"})]))
    assert found.high is None


def test_two_trace_ids_in_one_chunk_are_two_chunks() -> None:
    """Nothing in the protocol keeps a chunk to one trace, so the decoder does."""
    found, _ = read("v0.4", v04([wire(1), wire(2, trace_id=77)]))
    assert [one.low for one in found] == [LOW, 77]


def test_links_from_the_tag_and_from_the_field() -> None:
    """Links are the same whether they came as JSON in a tag (v0.5) or in a field of their own (v0.4)."""
    told = [
        {"trace_id": f"{HIGH:016x}{LOW:016x}", "span_id": "00000000000000ff", "attributes": {"a": "b"}},
        {"span_id": 3},
    ]
    (tagged,), _ = read("v0.5", v05([wire(1, meta={"_dd.span_links": json.dumps(told)})]))
    native = {
        "trace_id": LOW,
        "trace_id_high": HIGH,
        "span_id": 255,
        "flags": 2147483649,
        "attributes": {"a": "b"},
    }
    (own,), _ = read("v0.4", v04([wire(1, span_links=[native])]))
    assert tagged.spans[0].links == own.spans[0].links == (Link(HIGH << 64 | LOW, 255, {"a": "b"}),)
    assert "_dd.span_links" not in tagged.spans[0].meta


def test_native_events_become_the_tag() -> None:
    """Events of v0.4 end up where those of v0.5 are: as JSON in the tag `events`."""
    (found,), _ = read("v0.4", v04([wire(1, span_events=[{"name": "retry"}])]))
    assert json.loads(found.spans[0].meta["events"]) == [{"name": "retry"}]


def test_numbers_come_into_range() -> None:
    """Signed ids become unsigned; times below zero or beyond int64 become 0; what is not finite is left out."""
    odd = wire(-1, start=-5, duration=2**64 - 1, metrics={"good": 1.0, "bad": math.inf, "worse": math.nan})
    (found,), bad = read("v0.4", v04([odd]))
    (span,) = found.spans
    assert (span.span_id, span.start, span.duration, span.metrics, bad) == (2**64 - 1, 0, 0, {"good": 1.0}, 0)


@pytest.mark.parametrize(
    "broken",
    [
        {"meta": None},
        {"start": float(START)},
        {"meta": {"a": 1}},
        {"metrics": {"a": "b"}},
        {"type": None},
        {"name": 3},
    ],
    ids=str,
)
def test_spans_not_quite_right_are_kept(broken: dict[str, Any]) -> None:
    """What a tracer of another language may send in a field costs that field at most."""
    (found,), bad = read("v0.4", v04([wire(1), {**wire(2), **broken}]))
    assert [span.span_id for span in found.spans] == [1, 2]
    assert found.spans[1].start == START
    assert bad == 0


def test_bad_spans_cost_nobody_else() -> None:
    """A span that cannot be used is counted, the others of its trace and body are kept."""
    without_id = {key: value for key, value in wire(2).items() if key != "span_id"}
    found, bad = read("v0.4", v04([wire(1), without_id, wire(0), wire(3)], [wire(4, trace_id=9)], ["junk"]))
    assert [[span.span_id for span in one.spans] for one in found] == [[1, 3], [4]]
    assert bad == 3


@pytest.mark.parametrize("version", ["v0.4", "v0.5"])
def test_broken_utf8_is_replaced(version: str) -> None:
    """A broken byte in a text costs that byte."""
    body = body_of(version, [wire(1), wire(2, resource="caf\N{LATIN SMALL LETTER E WITH ACUTE}s")])
    (found,), bad = read(version, body.replace("\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"e\xff"))
    assert [span.resource for span in found.spans] == ["work", "cafe\ufffds"]
    assert bad == 0


@pytest.mark.parametrize("index", [9999, -1])
def test_index_out_of_the_table_is_a_bad_span(index: int) -> None:
    """A v0.5 index must be in the table; a negative one does not count from its end."""
    table, rows = msgspec.msgpack.decode(v05([wire(1), wire(2)]))
    rows[0][1][1] = index
    (found,), bad = read("v0.5", msgspec.msgpack.encode([table, rows]))
    assert [span.span_id for span in found.spans] == [1]
    assert bad == 1


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("v0.4", b""),
        ("v0.4", b"\xc1 junk"),
        ("v0.4", b"\xdd\xff\xff\xff\xff"),
        ("v0.4", b"\xdd" + struct.pack(">I", 5_000_000) + b"\x90" * 5_000_000),
        ("v0.5", b"\x92\x90\xdd" + struct.pack(">I", 5_000_000) + b"\x90" * 5_000_000),
        ("v0.5", b"\x92\xdd" + struct.pack(">I", 5_000_000) + b"\xa0" * 5_000_000 + b"\x90"),
        ("v0.4", b"\x91" * 100_000),
        ("v0.5", b"\x91\x90"),
        ("v0.4", v04([wire(1)])[:-3]),
    ],
    ids=[
        "empty",
        "junk",
        "huge header",
        "empty traces",
        "empty traces",
        "empty strings",
        "deep",
        "no pair",
        "cut",
    ],
)
def test_attacks_are_refused(version: str, body: bytes) -> None:
    """A body that promises more than it has, or is nothing but headers, is refused before memory is spent."""
    with pytest.raises(BadPayloadError):
        list(decode(version, body))


@pytest.mark.parametrize("body", [b"1", b'{"a": 1}', b"[" * 100_000, b"[1]", b"\xff"], ids=len)
def test_odd_json_is_bad_not_an_error(body: bytes) -> None:
    """JSON that is no list of traces is refused, or gives bad spans."""
    try:
        found, bad = read("v0.3", body, is_json=True)
    except BadPayloadError:
        return
    assert found == []
    assert bad == 1


def test_too_many_spans_in_a_trace_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace beyond the bound is counted, and costs no memory."""
    monkeypatch.setattr(protocol, "MAX_SPANS", 2)
    found, bad = read("v0.4", v04([wire(1), wire(2), wire(3)], [wire(4)]))
    assert [span.span_id for one in found for span in one.spans] == [4]
    assert bad == 3


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_lenient_reads_what_the_strict_decoder_reads(value: Any) -> None:
    """On good MessagePack both decoders agree."""
    assert lenient.unpack(msgspec.msgpack.encode(value)) == value


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_stop_the_decoder(data: st.DataObject) -> None:
    """Whatever comes, a counter moves and the next body is decoded."""
    version = data.draw(st.sampled_from(VERSIONS))
    good = bytearray(body_of(version, [wire(1), wire(2, 1)], [wire(3, trace_id=9)]))
    for _ in range(data.draw(st.integers(0, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    body = data.draw(
        st.sampled_from([bytes(good), bytes(good[: data.draw(st.integers(0, len(good)))])]) | st.binary()
    )
    store = TraceStore()
    intake = Intake(store)
    intake._decode(Payload(version, body, is_json=data.draw(st.booleans())))
    intake._decode(Payload("v0.4", v04([wire(77, trace_id=77)])))
    counted = store.counters.snapshot()
    assert any(span.span_id == 77 for trace in store.traces() for span in trace.spans)
    assert counted["spans"] == sum(len(trace.spans) for trace in store.traces())
    assert store.stored_bytes > 0
    for trace in store.traces():
        json.dumps(trace.to_json(), allow_nan=False)
