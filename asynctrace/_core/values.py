"""What users put into names and tags, made fit for the wire: ddtrace drops, or logs, what its encoder can't take."""

from __future__ import annotations

from math import isfinite
from typing import Any

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
    if (kind is int and -_BIGGEST <= value < _BIGGEST) or (kind is float and isfinite(value)):
        return value  # type: ignore[no-any-return]
    return text(value)
