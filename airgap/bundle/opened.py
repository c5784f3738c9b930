"""A bundle that is open for reading: what it holds, and where each byte of it lies.

Opening reads 512 bytes for each member, the small documents and the image manifests: well under 1 MB of a 10 GB bundle. It
accepts exactly what `archive.write_bundle` writes, so that nothing is left for two readers to see differently. tarfile is not
used: it is lenient where we must not be, and reads what it does not know.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from airgap.bundle import frames, ustar
from airgap.bundle.layout import INDEX_LIMIT, MEMBERS, Carried, Index
from airgap.bundle.store import LAYOUT
from airgap.bundle.streams import PIECE, pieces_of
from airgap.errors import BundleError, DigestMismatch
from airgap.oci import Digest

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from airgap.lock import Lock

SIGNATURE: Final = "index.json.minisig"
LIMITS: Final = {"install.sh": 1 << 20, "README.txt": 4 << 20, "oci-layout": 1024, "index.json": INDEX_LIMIT, SIGNATURE: 4096}
BLOBS: Final = "blobs/sha256/"
MOST_MEMBERS: Final = 1 << 20

AGAIN: Final = "compare its size and checksum with the original, and carry it over again"

_OTHERS: Final = (
    (b"\x1f\x8b", "is compressed with gzip", "gunzip it first: a bundle is a plain tar"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unzstd it first: a bundle is a plain tar"),
    (b"\xfd7zXZ", "is compressed with xz", "unxz it first: a bundle is a plain tar"),
    (b"PK\x03\x04", "is a zip archive", "unzip it first: a bundle is a plain tar"),
    (b"<", "is a web page, not a bundle", "a proxy or login page was saved in its place; download it again"),
    (b"\x7fELF", "is a program, not a bundle", None),
)

Trust = Callable[[bytes, "bytes | None"], None]
"""Called with the bytes of index.json and of its signature before anything is parsed; raises SignatureError."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member's bytes lie in the file."""

    offset: int
    size: int


class Bundle:
    """An open bundle. Everything but payload is verified; payload is verified as it is read. Threads may read at the same
    time."""

    def __init__(self, path: Path, fd: int, *, trust: Trust | None = None) -> None:
        """Use `at`; this does not close `fd` when it refuses."""
        self.path = path
        self._fd = fd
        self.size = self._length()
        self._members = self._scan()
        index_json = self._member("index.json")
        self.signature = self._member(SIGNATURE) if SIGNATURE in self._members else None
        if trust is not None:
            trust(index_json, self.signature)
        if self._member("oci-layout") != LAYOUT:
            raise BundleError(f"{path}: oci-layout is not the one that airgap writes", hint=AGAIN)
        self.blobs: Mapping[Digest, Place] = {
            Digest(name.removeprefix(BLOBS)): place for name, place in self._members.items() if name.startswith(BLOBS)
        }
        members = {name: self._member(name) for name in MEMBERS}
        self.index = Index.parse(index_json, members=members, read=self._document, name=str(path))
        self._check_presence()

    @classmethod
    def at(cls, path: Path, *, trust: Trust | None = None) -> Bundle:
        """The bundle in this file, to be closed (it is its own context manager).

        BundleError if it is anything else, damaged or newer; DigestMismatch if a document in it was changed.
        """
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError as cause:
            why = cause.strerror or str(cause)
            raise BundleError(f"{path}: cannot be opened: {why}", hint="name the file that airgap pack wrote") from cause
        try:
            return cls(path, fd, trust=trust)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Afterwards nothing can be read from it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    @property
    def lock(self) -> Lock:
        """What the bundle holds."""
        return self.index.lock

    # ---- reading ----

    def has(self, digest: Digest) -> bool:
        """Whether this blob is carried."""
        return digest in self.blobs

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A small blob, verified. BundleError if it is not here or over `limit` bytes; DigestMismatch if it was damaged."""
        place = self._place(digest)
        if place.size > limit:
            raise BundleError(f"{self.path}: {digest} has {place.size} bytes, more than the {limit} it may have")
        data = self.pread(place.offset, place.size)
        if Digest.of(data) != digest:
            raise mismatch(self.path, digest, Digest.of(data))
        return data

    def open(self, digest: Digest) -> IO[bytes]:
        """A blob as it is carried, to be read once from its beginning. DigestMismatch in place of its last bytes if it is
        damaged."""
        return io.BufferedReader(_Verified(self, digest, self._place(digest)), PIECE)

    def content(self, digest: Digest) -> Iterator[bytes]:
        """The uncompressed content with this digest, in pieces. DigestMismatch before the last piece if it is not that."""
        carried = next((item for item in self.index.carried if item.artifact.content.digest == digest), None)
        if carried is None:
            raise BundleError(f"{self.path}: holds no file with the content {digest}")
        return self._content(carried)

    def _content(self, carried: Carried) -> Iterator[bytes]:
        if not carried.frames:
            with self.open(carried.blob.digest) as file:
                yield from pieces_of(file)
            return
        place = self._place(carried.blob.digest)
        name = f"{self.path}: {carried.artifact.filename}"
        yield from frames.decompress(lambda at, size: self.pread(place.offset + at, size), carried.packed, name=name)

    def pread(self, offset: int, size: int) -> bytes:
        """Exactly these bytes of the file; BundleError if the medium does not give them."""
        buffer = bytearray(size)
        self.pread_into(offset, memoryview(buffer))
        return bytes(buffer)

    def pread_into(self, offset: int, view: memoryview) -> None:
        """As `pread`, into a buffer of the caller's."""
        while view:
            try:
                done = os.preadv(self._fd, [view], offset)
            except OSError as cause:
                raise BundleError(
                    f"{self.path}: cannot be read at byte {offset}: {cause.strerror or cause}",
                    hint="try another drive, or copy it again",
                ) from cause
            if not done:
                raise BundleError(f"{self.path}: ends at byte {offset}, too early", hint=AGAIN)
            offset += done
            view = view[done:]

    # ---- opening ----

    def _length(self) -> int:
        found = os.fstat(self._fd)
        if stat.S_ISDIR(found.st_mode):
            raise BundleError(f"{self.path}: is a folder, not a bundle", hint="name the airgap-*.tar in it")
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"{self.path}: is no regular file", hint="copy the bundle to a disk first")
        if not found.st_size:
            raise BundleError(f"{self.path}: is empty", hint=AGAIN)
        return found.st_size

    def _scan(self) -> dict[str, Place]:
        """Every member, from its header; the file is exactly these members, zeros between them and two blocks of zeros."""
        members: dict[str, Place] = {}
        offset = gap = 0
        while True:
            if offset + gap + ustar.BLOCK > self.size:
                raise self._cut(offset + gap + len(ustar.END), members)
            block = self.pread(offset, gap + ustar.BLOCK)
            offset += gap
            if any(block[:gap]):
                raise BundleError(f"{self.path}: the gap before byte {offset} is not empty", hint=AGAIN)
            if not any(block[gap:]):
                self._end(offset, members)
                return members
            name, size = self._header(block[gap:], offset, members)
            offset += ustar.BLOCK
            if offset + size > self.size:
                raise self._cut(offset + size, members)
            members[name] = Place(offset, size)
            offset += size
            gap = ustar.padding(size)

    def _header(self, block: bytes, offset: int, members: Mapping[str, Place]) -> tuple[str, int]:
        if not members:
            self._recognise(block)
        try:
            name, size = ustar.parse(block)
        except ValueError as cause:
            raise BundleError(f"{self.path}: the member at byte {offset} {cause}", hint=AGAIN) from cause
        if name in members:
            raise BundleError(f"{self.path}: {name} is there twice", hint=AGAIN)
        limit = LIMITS.get(name)
        if limit is None and not (name.startswith(BLOBS) and _is_hex(name.removeprefix(BLOBS))):
            raise BundleError(f"{self.path}: {name!r} is no name for a member of a bundle", hint=AGAIN)
        if limit is not None and size > limit:
            raise BundleError(f"{self.path}: {name} has {size} bytes, more than the {limit} it may have", hint=AGAIN)
        if len(members) >= MOST_MEMBERS:
            raise BundleError(f"{self.path}: has more than {MOST_MEMBERS} members")
        return name, size

    def _recognise(self, block: bytes) -> None:
        for magic, what, hint in _OTHERS:
            if block.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic) or block.startswith(magic):
                raise BundleError(f"{self.path}: {what}", hint=hint)
        if block[257:262] != b"ustar":
            raise BundleError(f"{self.path}: is not a tar, so it is no bundle", hint=AGAIN)
        if block[:11] != b"install.sh\0":
            raise BundleError(
                f"{self.path}: is a tar, but no airgap bundle (that begins with install.sh)",
                hint="bundles are made by airgap pack",
            )

    def _cut(self, needed: int, members: Mapping[str, Place]) -> BundleError:
        head = self.pread(0, min(self.size, ustar.BLOCK))
        if not members and not b"install.sh".startswith(head[:10]):
            self._recognise(head.ljust(ustar.BLOCK, b"\0"))
        return BundleError(f"{self.path}: is cut off: has {self.size} bytes, needs {needed} or more", hint=AGAIN)

    def _end(self, offset: int, members: Mapping[str, Place]) -> None:
        rest = self.size - offset - len(ustar.END)
        if rest < 0:
            raise self._cut(offset + len(ustar.END), members)
        if any(self.pread(offset, len(ustar.END))) or rest:
            raise BundleError(f"{self.path}: something follows its end at byte {offset}", hint=AGAIN)
        if not members:
            raise BundleError(f"{self.path}: is empty: nothing but zeros", hint=AGAIN)
        for name in (*MEMBERS, "oci-layout", "index.json"):
            if name not in members:
                raise BundleError(f"{self.path}: lacks {name}", hint=AGAIN)

    def _member(self, name: str) -> bytes:
        return self.pread(self._members[name].offset, self._members[name].size)

    def _document(self, digest: Digest, limit: int) -> bytes:
        return self.read(digest, limit=limit)

    def _place(self, digest: Digest) -> Place:
        if digest not in self.blobs:
            raise BundleError(f"{self.path}: lacks {digest}", hint=AGAIN)
        return self.blobs[digest]

    def _check_presence(self) -> None:
        """Every blob that is named is here with the size it is named with, none besides, and all in their order."""
        required = self.index.required(self._document)
        for digest, size in required.items():
            if self._place(digest).size != size:
                raise BundleError(f"{self.path}: {digest} has {self.blobs[digest].size} bytes instead of {size}", hint=AGAIN)
        for digest in self.blobs:
            if digest not in required:
                raise BundleError(f"{self.path}: {digest} is there, but nothing in the bundle names it", hint=AGAIN)
        front = [*MEMBERS, "oci-layout", "index.json", *([SIGNATURE] if self.signature is not None else [])]
        if list(self._members) != [*front, *(BLOBS + digest.hex for digest in self.index.order(required))]:
            raise BundleError(f"{self.path}: its members are not in the order in which they were packed", hint=AGAIN)


def _is_hex(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")


def mismatch(path: Path, expected: Digest, found: Digest) -> DigestMismatch:
    """A blob of this bundle is not what its name says."""
    return DigestMismatch(f"{path}: {BLOBS}{expected.hex} is damaged\n  expected {expected}\n  found    {found}", hint=AGAIN)


class _Verified(io.RawIOBase):
    """A blob in the file, hashed on the way; whoever reads on gets its last bytes only if all of them are right."""

    def __init__(self, bundle: Bundle, digest: Digest, place: Place) -> None:
        self._bundle = bundle
        self._digest = digest
        self._offset = place.offset
        self._left = place.size
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """As io has it."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As io has it."""
        view = memoryview(buffer).cast("B")[: self._left]
        if not view:
            return 0
        self._bundle.pread_into(self._offset, view)
        self._hash.update(view)
        self._offset += len(view)
        self._left -= len(view)
        if not self._left and (found := Digest(self._hash.hexdigest())) != self._digest:
            view[:] = bytes(len(view))
            raise mismatch(self._bundle.path, self._digest, found)
        return len(view)
