"""A file-like view of an iterator of bytes, for libraries that want to read."""

from __future__ import annotations

import io
from collections.abc import Iterator


class Stream(io.RawIOBase):
    """Reads through the pieces of `source` once, keeping at most one."""

    def __init__(self, source: Iterator[bytes]) -> None:
        """Of `source`, which nobody else may read from now on."""
        self._source = source
        self._rest = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill the buffer as far as the present piece goes; 0 at the end."""
        while not self._rest:
            piece = next(self._source, None)
            if piece is None:
                return 0
            self._rest = piece
        done = min(len(buffer), len(self._rest))
        buffer[:done] = self._rest[:done]
        self._rest = self._rest[done:]
        return done
