"""What users put into names and tags, made fit for the wire: ddtrace drops, or logs, what its encoder can't take."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_BIGGEST = 2**63


def text(value: object) -> str:
    r"""`value` as text that UTF-8 can carry; never raises.

    Example:
        >>> text(b"caf\xc3\xa9"), text("half \ud83d pair"), text(7)
        ('café', 'half ? pair', '7')
    """
    if type(value) is str and value.isascii():
        return value
    try:
        if isinstance(value, (bytes, bytearray)):
            return value.decode("utf-8", "replace")
        return str(value).encode("utf-8", "replace").decode("utf-8")
    except Exception:
        return f"<{type(value).__name__}>"


def presentable(value: Any) -> str | int | float:
    """A tag's value: numbers stay numbers where 64 bits hold them, everything else is text; never raises."""
    kind = type(value)
    if kind is str and value.isascii():
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return "True" if value else "False"
    return value if is_number(value) else text(value)


MEASURED = "_dd.measured"
"""Metric that makes Datadog compute hits, errors and latency for a span that is not a service's entry."""

PORT = "network.destination.port"

AT_ONCE = frozenset({"manual.keep", "manual.drop", "service.name", "service.version"})
"""Tags of which ddtrace makes something else as they are set (ddtrace/_trace/span.py, Span.set_tag)."""


class Fit(dict[str, Any]):
    """Tags that are fit for the wire, and nobody else's: what an integration knows by heart is not looked at again."""

    __slots__ = ()


_plain_keys: set[str] = set()
"""Keys of tags that were found to be fit, and to have no meaning of their own."""

_MOST_KEYS = 1000


def fit(key: object, value: Any) -> tuple[str, str | int | float]:
    """A tag as ddtrace's `Span.set_tag` would keep it; never raises.

    Example:
        >>> fit("network.destination.port", "5432"), fit("_dd.measured", True), fit(b"paid", True)
        (('network.destination.port', 5432), ('_dd.measured', 1), ('paid', 'True'))
    """
    if type(key) is str and key in _plain_keys:
        return key, presentable(value)
    if type(key) is not str or not key.isascii():
        key = text(key)
    if key == MEASURED:
        return key, int(value is None or bool(value))
    if key == PORT:
        try:
            value = int(value)
        except Exception:  # then it is text
            return key, presentable(value)
    elif len(_plain_keys) < _MOST_KEYS:
        _plain_keys.add(key)
    return key, presentable(value)


def all_fit(tags: Mapping[Any, Any], said: dict[str, Any]) -> dict[str, Any]:
    """`said` with these tags, each as `fit` has it; what is plain to see, is not looked at twice."""
    for key, value in tags.items():
        if type(key) is str and key in _plain_keys:
            said[key] = value if type(value) is str and value.isascii() else presentable(value)
        else:
            fit_key, fit_value = fit(key, value)
            said[fit_key] = fit_value
    return said


def is_number(value: Any) -> bool:
    """Whether it is a number that fits into 64 bits."""
    kind = type(value)
    return (kind is int and -_BIGGEST <= value < _BIGGEST) or (kind is float and isfinite(value))
