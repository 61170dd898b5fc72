"""MessagePack for bodies that are not quite right: slow, bounded, and it gives up on nothing it can read.

The strict decoder refuses a whole span for one byte of broken UTF-8. This one replaces the byte. It is used
only for the spans the strict one refused, one span at a time.
See https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

import struct
from typing import Any

MAX_DEPTH = 32
_FIXED = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_CONSTANT = {0xC0: None, 0xC2: False, 0xC3: True}
# What is followed by its length, by the first byte: family, and how the length is written.
_SIZED = {
    0xD9: ("text", ">B"),
    0xDA: ("text", ">H"),
    0xDB: ("text", ">I"),
    0xC4: ("bytes", ">B"),
    0xC5: ("bytes", ">H"),
    0xC6: ("bytes", ">I"),
    0xC7: ("extension", ">B"),
    0xC8: ("extension", ">H"),
    0xC9: ("extension", ">I"),
    0xDC: ("array", ">H"),
    0xDD: ("array", ">I"),
    0xDE: ("map", ">H"),
    0xDF: ("map", ">I"),
}
# What has its length in the first byte.
_SHORT = {
    **{0x80 + length: ("map", length) for length in range(16)},
    **{0x90 + length: ("array", length) for length in range(16)},
    **{0xA0 + length: ("text", length) for length in range(32)},
    **{0xD4 + power: ("extension", 1 << power) for power in range(5)},
}
_LAST_POSITIVE, _FIRST_NEGATIVE = 0x7F, 0xE0  # first bytes that are a small integer themselves


def array_length(data: bytes | memoryview, offset: int = 0) -> int:
    """The number of items an array says it has, from its header alone: the check before memory is spent.

    Raises:
        ValueError: there is no array at `offset`.
    """
    head = bytes(data[offset : offset + 5])
    try:
        family, length = _SHORT.get(head[0]) or _SIZED[head[0]]
        found = length if isinstance(length, int) else int(struct.unpack_from(length, head, 1)[0])
    except (IndexError, KeyError, struct.error):
        raise ValueError("not an array") from None
    if family != "array":
        raise ValueError("not an array")
    return found


def unpack(data: bytes | memoryview) -> Any:
    """The value in `data`, with broken UTF-8 replaced and extensions read as None.

    Raises:
        ValueError: it is cut off, nested deeper than 32 levels, or no MessagePack at all.
    """
    try:
        return _Reader(bytes(data)).value(0)
    except (IndexError, struct.error):
        raise ValueError("truncated MessagePack") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        kind = self._data[self._at]
        self._at += 1
        if kind <= _LAST_POSITIVE:
            return kind
        if kind >= _FIRST_NEGATIVE:
            return kind - 0x100
        if kind in _CONSTANT:
            return _CONSTANT[kind]
        if kind in _FIXED:
            return self._number(_FIXED[kind])
        return self._sized(kind, depth)

    def _sized(self, kind: int, depth: int) -> Any:
        if kind in _SHORT:
            family, length = _SHORT[kind]
        elif kind in _SIZED:
            family, layout = _SIZED[kind]
            length = self._number(layout)
        else:
            raise ValueError(f"0x{kind:02x} is no MessagePack")
        if family == "text":
            return self._take(length).decode(errors="replace")
        if family == "array":
            return self._array(length, depth)
        if family == "map":
            return self._map(length, depth)
        if family == "bytes":
            return self._take(length)
        self._take(length + 1)  # an extension: one more byte says which
        return None

    def _array(self, length: int, depth: int) -> list[Any]:
        # Nothing is allocated ahead: a header that promises four billion items runs out of bytes first.
        return [self.value(depth + 1) for _ in range(length)]

    def _map(self, length: int, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in range(length):
            key = self.value(depth + 1)
            value = self.value(depth + 1)
            if isinstance(key, (str, bytes, int)):  # others cannot be a tag, some cannot be a key
                found[key] = value
        return found

    def _number(self, layout: str) -> Any:
        found = struct.unpack_from(layout, self._data, self._at)[0]
        self._at += struct.calcsize(layout)
        return found

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError("truncated MessagePack")
        taken = self._data[self._at : end]
        self._at = end
        return taken
