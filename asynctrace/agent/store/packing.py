"""Spans as bytes and back: how a chunk lies in the database, a tenth of its size in objects."""

import zlib
from array import array
from collections.abc import Iterable

import msgspec

from asynctrace.agent.spans import Link, Span

_WORTH_DEFLATING = 600  # bytes; below, setting zlib up costs more time than it saves room
_PLAIN, _DEFLATED = b"p", b"z"

_Row = tuple[
    int, int, str, str, str, str, int, int, int, dict[str, str], dict[str, float],
    list[tuple[str, int, dict[str, str]]],
]  # fmt: skip
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Row])


def pack(spans: Iterable[Span]) -> bytes:
    """The spans without their trace id, which their trace has."""
    plain = _encoder.encode(
        [
            (
                span.span_id, span.parent_id, span.name, span.service, span.resource, span.type, span.start,
                span.duration, span.error, span.meta, span.metrics,
                [(f"{link.trace_id:x}", link.span_id, link.attributes) for link in span.links],
            )
            for span in spans
        ]
    )  # fmt: skip
    if len(plain) < _WORTH_DEFLATING:
        return _PLAIN + plain
    return _DEFLATED + zlib.compress(plain, 1)


def unpack(packed: bytes, trace_id: int) -> list[Span]:
    """The spans of a chunk, as parts of the trace with this id."""
    return [
        Span(trace_id, *row[:-1], tuple(Link(int(to, 16), span, more) for to, span, more in row[-1]))
        for row in _decoder.decode(plain_bytes(packed))
    ]


def plain_bytes(packed: bytes) -> bytes:
    """A chunk inflated: its texts stand in it as they are, in UTF-8, which is enough to rule it out in a search."""
    return zlib.decompress(memoryview(packed)[1:]) if packed[:1] == _DEFLATED else packed[1:]


def pack_ids(ids: Iterable[int]) -> bytes:
    """Span ids, eight bytes each."""
    return array("Q", ids).tobytes()


def unpack_ids(packed: bytes) -> Iterable[int]:
    """What `pack_ids` packed."""
    ids = array("Q")
    ids.frombytes(packed)
    return ids
