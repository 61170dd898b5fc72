"""Headers as they come from the wire, made safe before ddtrace's propagator sees them.

The propagator loses the whole context over one value of an unexpected type, and takes ids and priorities as they come:
a priority of 400 digits raises much later, in the user's code. So: text only, bounded, ids and priorities checked.
The headers of a family are taken whole or not at all: a sender that gets one of them wrong is not to be trusted
with the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_VALUE = 8192
"""Longest header value (bytes) that is read. W3C asks for 512 (tracestate) and 8192 (baggage) to be carried."""

MAX_BAGGAGE_ITEMS = 64
"""As many `ot-baggage-*` headers are read; ddtrace's own limit for `baggage` is 64 items, too."""

PRIORITIES = frozenset({-1, 0, 1, 2})
"""Datadog's sampling priorities: user reject, auto reject, auto keep, user keep."""

OT_BAGGAGE = "ot-baggage-"

_MAX_ID = 2**64


def _decimal_id(value: str) -> bool:
    return len(value) <= len(str(_MAX_ID)) and value.isdigit() and 0 < int(value) < _MAX_ID


def _decimal_id_or_zero(value: str) -> bool:
    return value == "0" or _decimal_id(value)


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


def _any(_: str) -> bool:
    return True


FAMILIES: tuple[dict[str, Callable[[str], bool]], ...] = (
    {  # ddtrace/propagation/http.py, _DatadogMultiHeader
        "x-datadog-trace-id": _decimal_id,
        "x-datadog-parent-id": _decimal_id_or_zero,
        "x-datadog-sampling-priority": frozenset({"-1", "0", "1", "2"}).__contains__,
        "x-datadog-origin": _any,
        "x-datadog-tags": _any,
    },
    {  # https://www.w3.org/TR/trace-context/
        "traceparent": _matches(
            r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
        ),
        "tracestate": _any,
    },
    {  # https://github.com/openzipkin/b3-propagation
        "x-b3-traceid": _matches(r"[0-9a-fA-F]{16}([0-9a-fA-F]{16})?"),
        "x-b3-spanid": _matches(r"[0-9a-fA-F]{16}"),
        "x-b3-parentspanid": _matches(r"[0-9a-fA-F]{16}"),
        "x-b3-sampled": _matches(r"[01d]|true|false"),
        "x-b3-flags": _matches(r"[01]"),
    },
    {
        "b3": _matches(r"[01d]|[0-9a-fA-F]{16,32}-[0-9a-fA-F]{16}(-[01d](-[0-9a-fA-F]{16})?)?"),
    },
    {  # https://www.w3.org/TR/baggage/
        "baggage": _any,
    },
)

KNOWN = frozenset(key for family in FAMILIES for key in family)
"""Every header that carries a trace, in lower case; `ot-baggage-*` beside them."""

_INITIALS = frozenset(initial for key in (*KNOWN, OT_BAGGAGE) for initial in (key[0], key[0].upper()))


def is_trace_header(key: object) -> bool:
    """Whether a header carries trace context, in any of the styles ddtrace knows."""
    if not isinstance(key, str) or key[:1] not in _INITIALS:
        return False
    key = key.lower()
    return key in KNOWN or key.startswith(OT_BAGGAGE)


def trace_headers_in(headers: Iterable[Any]) -> list[Any]:
    """The keys among these that are trace headers."""
    try:
        return [key for key in headers if key[:1] in _INITIALS and is_trace_header(key)]
    except TypeError:  # not all of them are text
        return [key for key in headers if is_trace_header(key)]


_CHECKS = {
    key: (1 << number, check) for number, family in enumerate(FAMILIES) for key, check in family.items()
}
"""Of each header: its family, as a bit, and what its value must be."""


def _is_text(value: object) -> bool:
    """Printable ASCII: what comes in goes out again, and a line break would fail the user's next request."""
    return isinstance(value, str) and len(value) <= MAX_VALUE and value.isascii() and value.isprintable()


def normalised(headers: object) -> dict[str, str]:
    """The trace headers in `headers`, a mapping or pairs of anything, that are fit for ddtrace's propagator.

    Lower-cased; of a repeated header the first.

    Example:
        >>> normalised({"X-Datadog-Trace-Id": "7", "x-datadog-parent-id": "8", "Cookie": "a"})
        {'x-datadog-trace-id': '7', 'x-datadog-parent-id': '8'}
        >>> normalised({"x-datadog-trace-id": "7", "x-datadog-sampling-priority": "9" * 400})
        {}
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    baggage: dict[str, str | None] = {}
    spoilt = 0  # the families of which something is not right
    if not isinstance(pairs, Iterable) or isinstance(pairs, (str, bytes)):
        return found
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):  # noqa: PLR2004 - a pair
            continue
        key, value = pair[0].lower(), pair[1]
        if (known := _CHECKS.get(key)) is not None:
            if key in found:
                continue
            family, is_right = known
            if _is_text(value) and is_right(value):
                found[key] = value
            else:
                spoilt |= family
        elif key.startswith(OT_BAGGAGE):
            baggage.setdefault(key, value if _is_text(key) and _is_text(value) else None)
    if spoilt:
        found = {key: value for key, value in found.items() if not _CHECKS[key][0] & spoilt}
    if baggage:
        sound = [(key, value) for key, value in baggage.items() if value is not None]
        found.update(sound[:MAX_BAGGAGE_ITEMS])
    return found
