"""OpenTelemetry's spans (OTLP over HTTP, protobuf or JSON) to ours, so that its programs show up beside.

One way for both encodings: a span in protobuf is read into the dictionary that JSON would have given.
See `opentelemetry/proto/trace/v1/trace.proto` in https://github.com/open-telemetry/opentelemetry-proto, and for the
names Datadog's agent gives such spans, `pkg/trace/traceutil/otel_util.go` in https://github.com/DataDog/datadog-agent.
"""

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from asynctrace.agent.protobuf import Field, Message, fields, read
from asynctrace.agent.protocol import BadPayloadError, Decoded, gather, load_json
from asynctrace.agent.spans import LOW_64, Link, Span
from asynctrace.agent.wire import TRACE_ID_UPPER, checked

MAX_PARTS = 200_000  # resources, scopes and spans in one body
_MAX_FIELDS = 50_000  # in one span, all that is inside counted
_SLICE = 1_000  # spans that are objects at the same time
_KINDS = ("", "internal", "server", "client", "producer", "consumer")
_ERROR = 2

_VALUE: Message = {}
_KEY_VALUE: Message = {1: Field("key", "text"), 2: Field("value", _VALUE)}
_VALUE.update(
    {
        1: Field("stringValue", "text"),
        2: Field("boolValue", "bool"),
        3: Field("intValue", "signed"),
        4: Field("doubleValue", "double"),
        5: Field("arrayValue", {1: Field("values", _VALUE, repeated=True)}),
        6: Field("kvlistValue", {1: Field("values", _KEY_VALUE, repeated=True)}),
        7: Field("bytesValue", "hex"),
    }
)
_ATTRIBUTES = Field("attributes", _KEY_VALUE, repeated=True)
_EVENT: Message = {1: Field("timeUnixNano", "number"), 2: Field("name", "text"), 3: _ATTRIBUTES}
_LINK: Message = {1: Field("traceId", "hex"), 2: Field("spanId", "hex"), 4: _ATTRIBUTES}
_SPAN: Message = {
    1: Field("traceId", "hex"),
    2: Field("spanId", "hex"),
    4: Field("parentSpanId", "hex"),
    5: Field("name", "text"),
    6: Field("kind", "number"),
    7: Field("startTimeUnixNano", "number"),
    8: Field("endTimeUnixNano", "number"),
    9: _ATTRIBUTES,
    11: Field("events", _EVENT, repeated=True),
    13: Field("links", _LINK, repeated=True),
    15: Field("status", {2: Field("message", "text"), 3: Field("code", "number")}),
}
_RESOURCE: Message = {1: _ATTRIBUTES}

Sent = tuple[
    dict[str, Any], dict[str, Any] | memoryview
]  # the attributes of its resource, and a span in either encoding

_REFUSED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def decode(body: bytes, *, is_json: bool = False) -> Iterator[Decoded]:
    """The spans of an `ExportTraceServiceRequest`, a thousand at a time.

    Args:
        body: what came, already inflated.
        is_json: whether it is JSON, and not protobuf.

    Raises:
        BadPayloadError: nothing in what follows can be used.
    """
    sent = _from_json(body) if is_json else _from_protobuf(body)
    try:
        while part := list(islice(sent, _SLICE)):
            yield gather(part, _span)
    except _REFUSED as error:
        raise BadPayloadError(str(error)) from None


def _from_json(body: bytes) -> Iterator[Sent]:
    for group in load_json(body).get("resourceSpans") or ():
        resource = _attributes(group.get("resource") or {})
        for scope in group.get("scopeSpans") or ():
            for span in scope.get("spans") or ():
                yield resource, span


def _from_protobuf(body: bytes) -> Iterator[Sent]:
    """Walks to each span without building what is around it: a body of nothing but headers costs nothing."""
    left = MAX_PARTS
    for group in _parts(memoryview(body), 1):
        left -= 1
        resource: dict[str, Any] = {}
        for part in _parts(group, 1):
            resource = _attributes(read(part, _RESOURCE, [_MAX_FIELDS]))
        for scope in _parts(group, 2):
            left -= 1
            for span in _parts(scope, 2):
                left -= 1
                if left < 0:
                    raise BadPayloadError(f"more than {MAX_PARTS} parts in one body")
                yield resource, span
        if left < 0:
            raise BadPayloadError(f"more than {MAX_PARTS} parts in one body")


def _parts(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _span(sent: Sent) -> Span:
    """Raises one of `_REFUSED` for a span that cannot be used."""
    resource, span = sent
    data = read(span, _SPAN, [_MAX_FIELDS]) if isinstance(span, memoryview) else span
    found = _attributes(data)
    trace_id, start = int(data["traceId"], 16), int(data.get("startTimeUnixNano") or 0)
    kind = _kind(data.get("kind"))
    events = [_event(one) for one in data.get("events") or ()]
    meta, metrics = _tags({**resource, **found})
    if kind:
        meta["span.kind"] = kind
    if trace_id >> 64:
        meta[TRACE_ID_UPPER] = f"{trace_id >> 64:016x}"
    if events:
        meta["events"] = json.dumps(events)
    status = data.get("status") or {}
    failed = status.get("code") in (_ERROR, "STATUS_CODE_ERROR")
    if failed:
        meta.update(_error(status, events))
    name, span_type = _operation(found, kind, str(data.get("name") or ""))
    return checked(
        Span(
            trace_id & LOW_64, int(data["spanId"], 16), int(data.get("parentSpanId") or "0", 16), name,
            str(found.get("service.name") or resource.get("service.name") or "unknown_service"),
            str(found.get("resource.name") or data.get("name") or ""), span_type, start,
            int(data.get("endTimeUnixNano") or 0) - start, int(failed), meta, metrics,
            tuple(_link(one) for one in data.get("links") or ()),
        )
    )  # fmt: skip


def _kind(kind: Any) -> str:
    if isinstance(kind, str):
        return kind.removeprefix("SPAN_KIND_").lower()
    return _KINDS[kind] if kind is not None and 0 <= kind < len(_KINDS) else ""


def _operation(found: dict[str, Any], kind: str, name: str) -> tuple[str, str]:
    """What kind of work it was, and its type, in Datadog's words; what is none of these has its own name."""
    database = found.get("db.system.name") or found.get("db.system")
    if "operation.name" in found:
        return str(found["operation.name"]), str(found.get("span.type") or "")
    if database:
        return f"{database}.query", "sql"
    if "messaging.system" in found:
        verb = {"producer": "send", "consumer": "process"}.get(kind, "receive")
        return f"{found['messaging.system']}.{verb}", "worker" if kind == "consumer" else ""
    if kind in ("server", "client") and ("http.request.method" in found or "http.method" in found):
        return f"http.{kind}.request", "web" if kind == "server" else "http"
    return name, ""


def _error(status: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, str]:
    """What went wrong in Datadog's tags: from the last exception that was recorded, or what the status says."""
    raised: dict[str, Any] = next(
        (one["attributes"] for one in reversed(events) if one["name"] == "exception"), {}
    )
    told = {
        "error.type": raised.get("exception.type"),
        "error.message": raised.get("exception.message") or status.get("message"),
        "error.stack": raised.get("exception.stacktrace"),
    }
    return {key: str(value) for key, value in told.items() if value}


def _event(data: dict[str, Any]) -> dict[str, Any]:
    """An event as ddtrace writes it into its tag."""
    return {
        "name": str(data.get("name") or ""),
        "time_unix_nano": int(data.get("timeUnixNano") or 0),
        "attributes": _attributes(data),
    }


def _link(data: dict[str, Any]) -> Link:
    attributes = {key: _text(value) for key, value in _attributes(data).items()}
    return Link(int(data["traceId"], 16), int(data["spanId"], 16), attributes)


def _tags(found: dict[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
    """Attributes as Datadog keeps them: numbers apart from texts."""
    meta: dict[str, str] = {}
    metrics: dict[str, float] = {}
    for key, value in found.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isfinite(value):
                metrics["process_id" if key == "process.pid" else key] = float(value)
        else:
            meta[key] = _text(value)
    return meta, metrics


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _attributes(data: dict[str, Any]) -> dict[str, Any]:
    return {str(pair["key"]): _value(pair.get("value") or {}) for pair in data.get("attributes") or ()}


def _value(data: dict[str, Any]) -> Any:
    for kind, value in data.items():
        if kind == "arrayValue":
            return [_value(one) for one in value.get("values") or ()]
        if kind == "kvlistValue":
            return {str(pair["key"]): _value(pair.get("value") or {}) for pair in value.get("values") or ()}
        if kind == "intValue":
            return int(value)
        return value
    return None
