"""Somebody else's tar: the entries of an image's layer, read as a stream, in bounded memory whatever it claims.

Layers are written by Go, GNU tar and others: ustar with prefixes, GNU long names, pax paths and sizes. Everything else of pax is
skipped. tarfile would take a pax record of any size into memory, and a layer may be an enemy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airgap.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK: Final = 512
LONGEST: Final = 1 << 20
"""Bytes of a pax record or a GNU long name; paths end at 4096."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its normal path, its type flag, where a link points to, and its size."""

    path: str
    kind: str
    link: str
    size: int


def normal(path: str) -> str:
    """The path without `.`, `..`, doubled or outer slashes; `..` above the root is the root, as the kernel has it."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class Layer:
    """A layer's tar, to be gone through once: `entries()`, and for the present one `data()`."""

    def __init__(self, pieces: Iterator[bytes], *, name: str) -> None:
        """`name` is what complaints begin with."""
        self._pieces = pieces
        self._name = name
        self._rest = b""
        self._left = 0

    def entries(self) -> Iterator[Entry]:
        """Each entry; BundleError if this is no tar. What `data` left of the one before is passed over."""
        override: dict[str, str] = {}
        while (block := self._exactly(BLOCK, at_end=True)) and any(block):
            entry = self._entry(block)
            if entry.kind in "xgLK":
                if entry.size > LONGEST:
                    raise BundleError(f"{self._name}: a header of {entry.size} bytes is more than any path needs")
                data = self._exactly(entry.size)
                self._exactly(-entry.size % BLOCK)
                if entry.kind == "x":
                    override |= _pax(data, name=self._name)
                elif entry.kind in "LK":
                    override["path" if entry.kind == "L" else "linkpath"] = _text(data.rstrip(b"\0"))
                continue
            size = _number(override["size"], name=self._name) if "size" in override else entry.size
            size = size if entry.kind in "0\0" + "7S" else 0
            self._left = size
            yield Entry(normal(override.get("path", entry.path)), entry.kind, override.get("linkpath", entry.link), size)
            for _ in self.data():
                pass
            self._exactly(-size % BLOCK)
            override = {}

    def data(self) -> Iterator[bytes]:
        """The bytes of the present entry."""
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read to the end, so that whoever hashes the stream has seen all of it."""
        self._rest = b""
        for _ in self._pieces:
            pass

    def _entry(self, block: bytes) -> Entry:
        total = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
        if _octal(block[148:156]) != total:
            raise BundleError(f"{self._name}: is no whole tar")
        path = _text(block[:100].split(b"\0")[0])
        if block[257:263] == b"ustar\0" and block[345]:
            path = _text(block[345:500].split(b"\0")[0]) + "/" + path
        size = int.from_bytes(block[125:136], "big") if block[124] == 0x80 else _octal(block[124:136])
        if size < 0 or size > 1 << 62:
            raise BundleError(f"{self._name}: {path[:200]!r} has no size that makes sense")
        return Entry(path, chr(block[156]), _text(block[157:257].split(b"\0")[0]), size)

    def _some(self, size: int) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                raise BundleError(f"{self._name}: the tar ends too early")
            self._rest = piece
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def _exactly(self, size: int, *, at_end: bool = False) -> bytes:
        if at_end and not self._rest:
            # Some writers leave out the end mark.
            self._rest = next(self._pieces, b"")
            if not self._rest:
                return b""
        found = []
        while size:
            piece = self._some(size)
            size -= len(piece)
            found.append(piece)
        return b"".join(found)


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else 0 if not digits else -1


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _number(text: str, *, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BundleError(f"{name}: {text[:40]!r} is no size")
    return int(text)


def _pax(data: bytes, *, name: str) -> dict[str, str]:
    """The records that matter here."""
    found: dict[str, str] = {}
    while data:
        length, blank, _ = data[:20].partition(b" ")
        size = int(length) if length.isdigit() and blank else 0
        record = data[len(length) + 1 : size]
        if size <= len(length) + 1 or size > len(data) or record[-1:] != b"\n":
            raise BundleError(f"{name}: a pax header is damaged")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"path", b"linkpath", b"size"):
            found[key.decode()] = _text(value)
        data = data[size:]
    return found
