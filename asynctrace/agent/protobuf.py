"""Protocol Buffers, as much as it takes to read OpenTelemetry's spans: messages become plain dictionaries.

A message type is a table from field number to `Field`; numbers that are not in it are passed over. See
https://protobuf.dev/programming-guides/encoding/.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10  # bytes
_MAX_DEPTH = 32
_SIGN = 1 << 63

Kind = Literal["text", "hex", "number", "signed", "bool", "double"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name in OpenTelemetry's JSON, what it holds, and whether it may occur more than once."""

    name: str
    kind: "Kind | dict[int, Field]"
    repeated: bool = False


Message = dict[int, Field]


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message as they come: number, and a number or the bytes of it.

    Raises:
        ValueError: it is cut off, or no message.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise ValueError(f"wire type {wire}")
        if at > end:
            raise ValueError("truncated message")
        yield key >> 3, value


def read(data: memoryview, message: Message, budget: list[int], depth: int = 0) -> dict[str, Any]:
    """A message as a dictionary, by the names of OpenTelemetry's JSON.

    Args:
        data: its bytes.
        message: its type.
        budget: how many more fields may be read, in a list of one: what is sent decides nothing about memory.
        depth: how deep in others it is.

    Raises:
        ValueError: it is no message of this type, nested too deep, or has too many fields.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    found: dict[str, Any] = {}
    for number, raw in fields(data):
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError("too many fields")
        field = message.get(number)
        if field is None:
            continue
        if isinstance(field.kind, dict):
            value: Any = read(_bytes(raw), field.kind, budget, depth + 1)
        else:
            value = _scalar(raw, field.kind)
        if field.repeated:
            found.setdefault(field.name, []).append(value)
        else:
            found[field.name] = value
    return found


def _scalar(raw: int | memoryview, kind: Kind) -> Any:
    if kind == "text":
        return bytes(_bytes(raw)).decode(errors="replace")
    if kind == "hex":
        return _bytes(raw).hex()
    if not isinstance(raw, int):
        raise ValueError("a number was expected")  # noqa: TRY004  (of what was sent)
    if kind == "double":
        return struct.unpack("<d", raw.to_bytes(8, "little"))[0]
    if kind == "bool":
        return bool(raw)
    return raw - 2 * _SIGN if kind == "signed" and raw >= _SIGN else raw


def _bytes(raw: int | memoryview) -> memoryview:
    if isinstance(raw, int):
        raise ValueError("bytes were expected")  # noqa: TRY004  (of what was sent)
    return raw


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    for index in range(at, min(at + _MAX_VARINT, len(data))):
        byte = data[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  (the bit that says there is more)
            return number & (2 * _SIGN - 1), index + 1
        shift += 7
    raise ValueError("truncated or endless number")
