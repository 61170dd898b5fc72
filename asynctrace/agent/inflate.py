"""Bodies that come compressed, inflated piece by piece, and no further than they may grow.

aiohttp's own way answers 400 to a body that is not what its headers say, before a handler sees it.
"""

import zlib
from collections.abc import Callable
from typing import Any

Inflate = Callable[[bytes, int], bytes]
"""A piece of a body, and how many bytes it may become; raises `zlib.error` for what can't be inflated."""

_GZIP = 16 + zlib.MAX_WBITS


def inflater(coding: str) -> Inflate:
    """What undoes a `Content-Encoding`; with one that nobody knows, no body can be inflated.

    Example:
        >>> inflater("deflate")(zlib.compress(b"tea"), 100)
        b'tea'
        >>> inflater("")(b"tea", 100)
        b'tea'
    """
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        return _as_it_is
    if coding in {"gzip", "x-gzip"}:
        return _Inflating(_GZIP)
    return _Inflating(None) if coding == "deflate" else _unknown


def _as_it_is(piece: bytes, _most: int) -> bytes:
    return piece


def _unknown(_piece: bytes, _most: int) -> bytes:
    raise zlib.error("not a coding that is known")


class _Inflating:
    """One body. Of `deflate` there are two kinds, with and without a header: the first byte tells."""

    def __init__(self, wbits: int | None) -> None:
        self._wbits = wbits
        self._stream: Any = None

    def __call__(self, piece: bytes, most: int) -> bytes:
        if self._stream is None:
            has_header = piece[:1] and piece[0] & 0xF == zlib.DEFLATED
            self._stream = zlib.decompressobj(
                self._wbits or (zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
            )
        inflated: bytes = self._stream.decompress(piece, most)
        return inflated
