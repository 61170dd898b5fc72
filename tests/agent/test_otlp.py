"""OpenTelemetry's spans: in protobuf and JSON, from its own SDK, and from nobody who means well."""

import gzip
import json
import struct
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings, strategies as st

from asynctrace.agent import otlp
from asynctrace.agent.embedded import Agent
from asynctrace.agent.intake import OTLP, Intake, Payload
from asynctrace.agent.protocol import BadPayloadError, Chunk
from asynctrace.agent.spans import Link
from asynctrace.agent.store import TraceStore
from tests.agent.payloads import HIGH, LOW, MS, START, TRACE_ID

# The fields that are written below, by their numbers in trace.proto; those of each message in a dictionary.
_NUMBERS = {
    "resourceSpans": 1,
    "resource": 1,
    "scopeSpans": 2,
    "spans": 2,
    "traceId": 1,
    "spanId": 2,
    "parentSpanId": 4,
    "name": 5,
    "kind": 6,
    "startTimeUnixNano": 7,
    "endTimeUnixNano": 8,
    "attributes": 9,
    "events": 11,
    "links": 13,
    "status": 15,
}


def text(value: str) -> dict[str, Any]:
    return {"stringValue": value}


def attributes(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": value} for key, value in values.items()]


def request(*spans: dict[str, Any], **resource: Any) -> dict[str, Any]:
    """An ExportTraceServiceRequest as its JSON."""
    service = {"service__name": text("checkout"), **resource}
    return {
        "resourceSpans": [
            {"resource": {"attributes": attributes(**service)}, "scopeSpans": [{"spans": list(spans)}]}
        ]
    }


def span(number: int, parent: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "traceId": f"{TRACE_ID:032x}", "spanId": f"{number:016x}", "parentSpanId": f"{parent:016x}" if parent else "",
        "name": "work", "kind": 1, "startTimeUnixNano": str(START), "endTimeUnixNano": str(START + 5 * MS), **fields,
    }  # fmt: skip


# -- a writer of protobuf, as small as the reader and the other way round


def varint(number: int) -> bytes:
    found = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        found.append(low | (0x80 if number else 0))
        if not number:
            return bytes(found)


def piece(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def any_value(value: dict[str, Any]) -> bytes:
    ((kind, what),) = value.items()
    if kind == "stringValue":
        return piece(1, what.encode())
    if kind == "boolValue":
        return varint(2 << 3) + varint(int(what))
    if kind == "intValue":
        return varint(3 << 3) + varint(int(what) & (2**64 - 1))
    if kind == "doubleValue":
        return varint(4 << 3 | 1) + struct.pack("<d", what)
    return piece(5, b"".join(piece(1, any_value(one)) for one in what["values"]))


def key_values(number: int, pairs: list[dict[str, Any]]) -> bytes:
    return b"".join(
        piece(number, piece(1, pair["key"].encode()) + piece(2, any_value(pair["value"]))) for pair in pairs
    )


def span_bytes(data: dict[str, Any]) -> bytes:
    found = b"".join(
        piece(_NUMBERS[key], bytes.fromhex(data[key]))
        for key in ("traceId", "spanId", "parentSpanId")
        if data[key]
    )
    found += piece(5, data["name"].encode()) + varint(6 << 3) + varint(data["kind"])
    for key in ("startTimeUnixNano", "endTimeUnixNano"):
        found += varint(_NUMBERS[key] << 3 | 1) + struct.pack("<Q", int(data[key]))
    found += key_values(9, data.get("attributes", []))
    for event in data.get("events", []):
        stamp = varint(1 << 3 | 1) + struct.pack("<Q", int(event["timeUnixNano"]))
        found += piece(11, stamp + piece(2, event["name"].encode()) + key_values(3, event["attributes"]))
    for link in data.get("links", []):
        ids = piece(1, bytes.fromhex(link["traceId"])) + piece(2, bytes.fromhex(link["spanId"]))
        found += piece(13, ids + key_values(4, link["attributes"]))
    if "status" in data:
        found += piece(
            15, piece(2, data["status"]["message"].encode()) + varint(3 << 3) + varint(data["status"]["code"])
        )
    return found


def protobuf(data: dict[str, Any]) -> bytes:
    """The same request in the other encoding."""
    (group,) = data["resourceSpans"]
    scope = b"".join(piece(2, span_bytes(one)) for one in group["scopeSpans"][0]["spans"])
    return piece(
        1,
        piece(1, key_values(1, group["resource"]["attributes"]))
        + piece(2, piece(1, piece(1, b"lib")) + scope),
    )


def read(data: dict[str, Any], encoding: str) -> Chunk:
    body = json.dumps(data).encode() if encoding == "json" else protobuf(data)
    (decoded,) = otlp.decode(body, is_json=encoding == "json")
    assert decoded.bad_spans == 0
    (chunk,) = decoded.chunks
    return chunk


both = pytest.mark.parametrize("encoding", ["json", "protobuf"])


@both
def test_a_span_says_the_same_in_both_encodings(encoding: str) -> None:
    """Ids of 128 bits, times, service, tags by their type, links and events arrive."""
    sent = span(
        5,
        4,
        kind=3,
        name="GET",
        attributes=attributes(
            http__request__method=text("GET"),
            retries={"intValue": "-2"},
            ratio={"doubleValue": 0.5},
            cached={"boolValue": True},
            hosts={"arrayValue": {"values": [text("a"), text("b")]}},
        ),
        events=[
            {"timeUnixNano": str(START + MS), "name": "retry", "attributes": attributes(n={"intValue": "1"})}
        ],
        links=[{"traceId": f"{7:032x}", "spanId": f"{8:016x}", "attributes": attributes(why=text("batch"))}],
    )
    chunk = read(request(sent, process__pid={"intValue": "77"}), encoding)
    assert (chunk.low, chunk.high) == (LOW, HIGH)
    (found,) = chunk.spans
    assert (found.span_id, found.parent_id, found.start, found.duration) == (5, 4, START, 5 * MS)
    assert (found.service, found.name, found.resource, found.type) == (
        "checkout",
        "http.client.request",
        "GET",
        "http",
    )
    assert found.metrics == {"process_id": 77.0, "retries": -2.0, "ratio": 0.5}
    assert (found.meta["cached"], found.meta["hosts"], found.meta["span.kind"]) == (
        "true",
        '["a", "b"]',
        "client",
    )
    assert json.loads(found.meta["events"]) == [
        {"name": "retry", "time_unix_nano": START + MS, "attributes": {"n": 1}}
    ]
    assert found.links == (Link(7, 8, {"why": "batch"}),)


@both
def test_an_error_has_its_type_message_and_stack(encoding: str) -> None:
    """The exception that was recorded says more than the status; without one the status says it."""
    raised = attributes(
        exception__type=text("ValueError"),
        exception__message=text("no"),
        exception__stacktrace=text("File x"),
    )
    status = {"code": 2, "message": "failed"}
    event = {"timeUnixNano": "1", "name": "exception", "attributes": raised}
    (found, plain) = read(
        request(span(1, status=status, events=[event]), span(2, status=status)), encoding
    ).spans
    assert found.error == plain.error == 1
    assert (found.meta["error.type"], found.meta["error.message"], found.meta["error.stack"]) == (
        "ValueError",
        "no",
        "File x",
    )
    assert plain.meta["error.message"] == "failed"


@pytest.mark.parametrize(
    ("kind", "tags", "expected"),
    [
        (2, {"http__method": text("GET")}, ("http.server.request", "web")),
        (3, {"db__system": text("postgresql")}, ("postgresql.query", "sql")),
        (4, {"messaging__system": text("rabbitmq")}, ("rabbitmq.send", "")),
        (5, {"messaging__system": text("rabbitmq")}, ("rabbitmq.process", "worker")),
        (1, {"operation__name": text("aiohttp.request"), "span__type": text("web")}, ("aiohttp.request", "web")),
        (1, {}, ("work", "")),
    ],
)  # fmt: skip
def test_operations_have_datadog_s_names(kind: int, tags: dict[str, Any], expected: tuple[str, str]) -> None:
    """What a span is, is told in the words that Datadog's spans use; ddtrace's own OTLP says it itself."""
    (found,) = read(request(span(1, kind=kind, attributes=attributes(**tags))), "protobuf").spans
    assert (found.name, found.type) == expected


def test_a_bad_span_costs_nobody_else() -> None:
    """Without an id a span is counted, the others are kept."""
    good, bad = span(1), {**span(2), "spanId": ""}
    for body, is_json in (
        (json.dumps(request(good, bad)).encode(), True),
        (protobuf(request(good, bad)), False),
    ):
        (decoded,) = otlp.decode(body, is_json=is_json)
        assert (len(decoded.chunks[0].spans), decoded.bad_spans) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a",
        b"\xff" * 20,
        b"\x0b",
        piece(1, b"\x00" * 3 + b"\x07"),
        b"\x0a\x00" * 300_000,
    ],
    ids=["huge length", "cut", "endless number", "group", "odd", "empty parts"],
)
def test_attacks_are_refused_or_empty(body: bytes) -> None:
    """A body that promises more than it has, or is nothing but headers, is refused, or gives nothing, at once."""
    try:
        assert [one for part in otlp.decode(body) for one in part.chunks] == []
    except BadPayloadError:
        pass


def test_values_in_values_are_bounded() -> None:
    """A value nested a thousand times is a bad span, not the end."""
    deep = any_value(text("x"))
    for _ in range(1_000):
        deep = piece(5, piece(1, deep))
    body = piece(1, piece(2, piece(2, span_bytes(span(1)) + piece(9, piece(1, b"k") + piece(2, deep)))))
    (decoded,) = otlp.decode(body)
    assert (decoded.chunks, decoded.bad_spans) == ([], 1)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_stop_the_decoder(data: st.DataObject) -> None:
    """Whatever comes, the next body is decoded, and what is kept can be told as JSON."""
    is_json = data.draw(st.booleans())
    sent = request(
        span(1, attributes=attributes(a=text("b"))), span(2, 1, status={"code": 2, "message": "x"})
    )
    good = bytearray(json.dumps(sent).encode() if is_json else protobuf(sent))
    for _ in range(data.draw(st.integers(0, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    body = data.draw(
        st.sampled_from([bytes(good), bytes(good[: data.draw(st.integers(0, len(good)))])]) | st.binary()
    )
    store = TraceStore()
    intake = Intake(store)
    intake._decode(Payload(OTLP, body, is_json=is_json))
    intake._decode(Payload(OTLP, protobuf(request(span(77)))))
    assert any(one.span_id == 77 for trace in store.traces() for one in trace.spans)
    for trace in store.traces():
        json.dumps(trace.to_json(), allow_nan=False)


@both
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_it_comes_by_http_and_joins_datadog_s_spans(encoding: str, packed: bool) -> None:
    """POST /v1/traces, on the agent's port and on one of its own, is answered as OpenTelemetry expects."""
    body = json.dumps(request(span(1))).encode() if encoding == "json" else protobuf(request(span(1)))
    kind = "application/json" if encoding == "json" else "application/x-protobuf"
    headers = {"Content-Type": kind, **({"Content-Encoding": "gzip"} if packed else {})}
    async with Agent() as agent, aiohttp.ClientSession() as session:
        other = await agent.listen_also(0)
        for port in (agent.port, other):
            url = f"http://127.0.0.1:{port}/v1/traces"
            async with session.post(
                url, data=gzip.compress(body) if packed else body, headers=headers
            ) as reply:
                assert (reply.status, reply.content_type) == (200, kind)
                assert await reply.read() == (b"{}" if encoding == "json" else b"")
        trace = await agent.wait_for(lambda trace: trace.trace_id == TRACE_ID, timeout=5)
        assert trace.services == ["checkout"]
        assert await agent.drain()
        assert agent.store.counters.snapshot()["duplicate_spans"] == 1
