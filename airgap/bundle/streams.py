"""Streams of bytes: one piece ahead in a second thread, and gzip undone in pieces of bounded size."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.errors import AirgapError

PIECE: Final = 1 << 20


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


def ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, the next one made in a second thread while the caller works with this one.

    hashlib, zlib, zstandard and os.preadv let other threads run, so that two cores are busy. Errors come where the piece would.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(_next, pieces)
        while (piece := coming.result()) is not None:
            coming = pool.submit(_next, pieces)
            yield piece


def pieces_of(file: IO[bytes], size: int = PIECE) -> Iterator[bytes]:
    """What is left of an open file."""
    while piece := file.read(size):
        yield piece


def gunzip(pieces: Iterator[bytes], *, name: str, error: type[AirgapError]) -> Iterator[bytes]:
    """The content of gzip bytes in pieces of at most 1 MiB, whatever they claim; several members are one content, as in gzip(1).

    `error` if they are damaged or end too early. Zeros after the last member are padding, as for gzip(1); anything else is
    damage.
    """
    rest = b""
    started = False
    while True:
        rest = rest.lstrip(b"\0") if started else rest
        while not rest:
            piece = next(pieces, b"")
            if not piece:
                if started:
                    return
                raise error(f"{name}: is empty, not gzip")
            rest = piece.lstrip(b"\0") if started else piece
        started = True
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not rest:
                rest = next(pieces, b"")
                if not rest:
                    raise error(f"{name}: the gzip data ends too early", hint="it was cut on its way; get it again")
            try:
                data = member.decompress(rest, PIECE)
            except zlib.error as cause:
                raise error(f"{name}: the gzip data is damaged ({cause})", hint="get it again, or from another source") from cause
            rest = member.unconsumed_tail
            if data:
                yield data
        rest = member.unused_data
