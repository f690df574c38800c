"""Content encodings undone step by step, so that a small body cannot become a huge one; pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from crush_trio.limits import FETCH_RATIO, FETCH_RATIO_FREE_BYTES, HTTP_RECEIVE_BYTES

_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
_NONE: Final = frozenset({"", "identity"})


class UnpackError(Exception):
    """The body cannot be unpacked; the text is part of a sentence."""


class Unpacker:
    """Undoes one content encoding: none, gzip or deflate.

    Args:
        encoding: The header's word.

    Raises:
        UnpackError: Another one, which nobody asked for.
    """

    def __init__(self, encoding: str) -> None:
        name = encoding.strip().lower()
        self._packed = self._unpacked = 0
        self._is_deflate = name == "deflate"
        self._inflate = None
        if name in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if self._is_deflate else _GZIP_BITS)
        elif name not in _NONE:
            raise UnpackError(f"it is encoded as {name[:40]!r}, which nobody asked for")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` unpacks to, in pieces of at most `HTTP_RECEIVE_BYTES`.

        Raises:
            UnpackError: It is broken, or unpacks to far more than was sent.
        """
        if self._inflate is None:
            yield data
            return
        self._packed += len(data)
        while not self._inflate.eof:  # what follows the end is nobody's
            piece = self._next(data)
            self._unpacked += len(piece)
            used = self._packed - len(self._inflate.unconsumed_tail)
            if self._unpacked > max(FETCH_RATIO_FREE_BYTES, used * FETCH_RATIO):
                raise UnpackError(f"it unpacks to more than {FETCH_RATIO} times its size")
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail
            if not data and len(piece) < HTTP_RECEIVE_BYTES:
                return

    def _next(self, data: bytes) -> bytes:
        assert self._inflate is not None
        try:
            return self._inflate.decompress(data, HTTP_RECEIVE_BYTES)
        except zlib.error:
            if not self._is_deflate or self._unpacked:
                raise UnpackError("it cannot be unpacked") from None
        # Many servers send deflate without the zlib header that its definition wants.
        self._is_deflate = False
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        return self._next(data)

    def end(self) -> None:
        """The body has ended.

        Raises:
            UnpackError: In the middle.
        """
        if self._inflate is not None and self._packed and not self._inflate.eof:
            raise UnpackError("it broke off in the middle")
