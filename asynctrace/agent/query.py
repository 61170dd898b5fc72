"""The filter of lists: which traces somebody wants to see.

    service:shop duration:>100ms              traces of at least 100 ms in which shop took part
    resource:"GET /cart*" error:true          an error in such a request
    status:5xx -service:worker                a 5xx, and no span of worker anywhere
    @db.name:shop spans:>50 timeout           a tag, a size, and a word anywhere in names, resources and tags

Terms are separated by blanks and all of them must hold; `a,b` is either, `*` anything, `-` in front means
not. `duration:`, `spans:`, `errors:` and `trace:` speak of the trace, the others of a span: one span must satisfy
all of those. Upper and lower case are the same.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import translate

from asynctrace.agent.spans import Span, Summary

_TERM = re.compile(
    r'\s*(?P<no>-)?(?:(?P<key>@?[^\s:"]+):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]*))(?=\s|$)'
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)?", re.IGNORECASE)
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "": lambda a, b: a == b,
}
_STATUS = ("http.status_code", "http.response.status_code", "grpc.status.code", "rpc.grpc.status_code")
_WAITS = {
    "wait.pool": ("db.pool.wait_ms", "http.client.pool_wait_ms"),
    "wait.queue": ("messaging.queue_ms", "queue.wait_ms"),
}
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")

SpanTest = Callable[[Span], bool]
TraceTest = Callable[[Summary], bool]


class QueryError(ValueError):
    """A filter that cannot be understood; the message says which part, and what it may be."""


@dataclass(slots=True)
class Query:
    """A filter, understood; made by `parse`.

    `trace` are tests of the whole trace, `span` those that one span must pass together, `never` those that no span may.
    """

    trace: list[TraceTest] = field(default_factory=list)
    span: list[SpanTest] = field(default_factory=list)
    never: list[SpanTest] = field(default_factory=list)

    @property
    def needs_spans(self) -> bool:
        """Whether a line of the list is not enough to decide."""
        return bool(self.span or self.never)

    def may_match(self, summary: Summary) -> bool:
        """What a line of the list can tell: False rules the trace out."""
        return all(test(summary) for test in self.trace)

    def find(self, spans: Iterable[Span]) -> list[Span]:
        """The spans that are meant: those that pass all tests of a span."""
        return [span for span in spans if all(test(span) for test in self.span)]

    def matches(self, spans: Sequence[Span]) -> bool:
        """What only the spans can tell."""
        wanted = not self.span or any(all(test(span) for test in self.span) for span in spans)
        return wanted and not any(test(span) for test in self.never for span in spans)


def parse(text: str) -> Query:
    """The filter that a text means; an empty one lets everything pass.

    Raises:
        QueryError: it means nothing.
    """
    query = Query()
    at, text = 0, text.strip()
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or term.end() == at:
            raise QueryError(f'a " without its other half: {text[at:]}')
        at = term.end()
        key, value = (term["key"] or "").lower(), term["quoted"] if term["plain"] is None else term["plain"]
        if not value:
            raise QueryError(
                f"{term['key']}: of what?" if key else "a - before nothing" if term["no"] else '""'
            )
        _add(query, key if key[:1] != "@" else term["key"], value, no=bool(term["no"]))
    return query


def _add(query: Query, key: str, value: str, *, no: bool) -> None:
    if key in _OF_TRACE:
        of_trace = _OF_TRACE[key](value)
        query.trace.append((lambda summary: not of_trace(summary)) if no else of_trace)
        return
    if key.startswith("@"):
        of_span = _tag(key[1:], value)
    elif key in _OF_SPAN:
        of_span = _OF_SPAN[key](value)
    elif key in _WAITS:
        of_span = _wait(_WAITS[key], value)
    elif key:
        known = ", ".join(f"{one}:" for one in [*_OF_TRACE, *_OF_SPAN, *_WAITS])
        raise QueryError(f"{key}: is none of {known} or @tag:")
    else:
        of_span = _anywhere(value)
    if no:
        query.never.append(of_span)
    else:
        query.span.append(of_span)
        if key == "service":  # the line of the list rules most traces out
            named = _texts(value)
            query.trace.append(lambda summary: any(map(named, summary.services)))
        elif key == "error" and value.lower() in _TRUE:
            query.trace.append(lambda summary: summary.errors > 0)


def _texts(value: str) -> Callable[[str], bool]:
    """Whether a text is one of `a,b`, with `*` for anything."""
    patterns = [re.compile(translate(one), re.IGNORECASE | re.DOTALL) for one in value.split(",") if one]
    return lambda text: any(pattern.match(text) for pattern in patterns)


def _numbers(value: str, read: Callable[[str], float]) -> Callable[[float], bool]:
    """Whether a number satisfies `>5`, `<=5`, `5..9` or `5`; `read` makes a number of what is written."""
    if ".." in value:
        low, _, high = value.partition("..")
        least, most = read(low), read(high)
        return lambda number: least <= number <= most
    sign = value[: len(value) - len(value.lstrip("<>="))]
    if sign not in (*_COMPARE, "="):
        raise QueryError(f"{sign} compares nothing: >, >=, <, <=")
    compare, bound = _COMPARE["" if sign == "=" else sign], read(value[len(sign) :])
    return lambda number: compare(number, bound)


def _plain(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise QueryError(f"{text or 'nothing'} is no number: >5, <=2, 10..20, 5") from None


def _nanoseconds(text: str) -> float:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise QueryError(f"{text or 'nothing'} is no duration: >100ms, <=2s, 10..20ms, 5us")
    return float(found[1]) * _NANOSECONDS[(found[2] or "ms").lower()]


def _milliseconds(text: str) -> float:
    return _nanoseconds(text) / 1e6


def _of_trace_duration(value: str) -> TraceTest:
    test = _numbers(value, _nanoseconds)
    return lambda summary: test(summary.duration)


def _of_trace_count(name: str) -> Callable[[str], TraceTest]:
    def made(value: str) -> TraceTest:
        test = _numbers(value, _plain)
        return lambda summary: test(getattr(summary, name))

    return made


def _of_trace_id(value: str) -> TraceTest:
    wanted = value.lower()
    return lambda summary: summary.id.startswith(wanted) or summary.id.endswith(wanted)


def _of_text(name: str) -> Callable[[str], SpanTest]:
    def made(value: str) -> SpanTest:
        test = _texts(value)
        return lambda span: test(getattr(span, name))

    return made


def _of_span_duration(value: str) -> SpanTest:
    test = _numbers(value, _nanoseconds)
    return lambda span: test(span.duration)


def _error(value: str) -> SpanTest:
    if value.lower() in _TRUE:
        return lambda span: bool(span.error)
    if value.lower() in _FALSE:
        return lambda span: not span.error
    test = _texts(value)  # its type or message
    return lambda span: (
        bool(span.error)
        and (test(span.meta.get("error.type", "")) or test(span.meta.get("error.message", "")))
    )


def _status(value: str) -> SpanTest:
    """`404`, `5xx`, `>=400`; `ok` and `error` of the span; or an outcome (`timeout`, `cancelled`)."""
    lowered = value.lower()
    if lowered == "error":
        return lambda span: bool(span.error)
    if lowered == "ok":
        return lambda span: not span.error
    if lowered[:1] in "<>=":
        test = _numbers(lowered, _plain)
        return lambda span: any(test(float(code)) for code in _codes(span) if code.isdecimal())
    texts = _texts(re.sub(r"(\d)xx", r"\1??", lowered))
    return lambda span: any(map(texts, _codes(span))) or texts(span.meta.get("async.outcome", ""))


def _codes(span: Span) -> list[str]:
    return [text for key in _STATUS if (text := _tag_text(span, key))]


def _tag(key: str, value: str) -> SpanTest:
    if value[:1] in "<>=" or re.fullmatch(r"[\d.]+\.\.[\d.]+", value):
        test = _numbers(value, _plain)
        return lambda span: (number := _tag_number(span, key)) is not None and test(number)
    texts = _texts(value)
    return lambda span: (text := _tag_text(span, key)) is not None and texts(text)


def _wait(keys: Iterable[str], value: str) -> SpanTest:
    test = _numbers(value, _milliseconds)
    return lambda span: any(test(span.metrics[key]) for key in keys if key in span.metrics)


def _tag_text(span: Span, key: str) -> str | None:
    if key in span.metrics:
        return f"{span.metrics[key]:.15g}"
    return span.meta.get(key)


def _tag_number(span: Span, key: str) -> float | None:
    try:
        return span.metrics[key] if key in span.metrics else float(span.meta[key])
    except (KeyError, ValueError):
        return None


def _anywhere(value: str) -> SpanTest:
    wanted = value.lower()

    def test(span: Span) -> bool:
        texts = (span.service, span.name, span.resource, *span.meta, *span.meta.values())
        return any(wanted in text.lower() for text in texts)

    return test


_OF_TRACE: dict[str, Callable[[str], TraceTest]] = {
    "duration": _of_trace_duration,
    "spans": _of_trace_count("span_count"),
    "errors": _of_trace_count("errors"),
    "trace": _of_trace_id,
}
_OF_SPAN: dict[str, Callable[[str], SpanTest]] = {
    "service": _of_text("service"),
    "resource": _of_text("resource"),
    "name": _of_text("name"),
    "type": _of_text("type"),
    "status": _status,
    "error": _error,
    "span.duration": _of_span_duration,
}
