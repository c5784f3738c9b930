"""The content-addressed store: an OCI image layout on disk, in which a name means complete and verified.

    <root>/oci-layout
    <root>/blobs/sha256/<hex>       whole, hashed on the way in, read-only
    <root>/partial/<key>            begun and not finished; goes on where it stopped, whoever died
    <root>/partial/<key>.json       what tells whether the upstream still serves the same bytes

Bytes enter through an `Intake` only: hashed while they are written, flushed to disk, then renamed. Two processes that
fetch the same thing are kept apart by a lock on the partial file; the second waits and finds it done.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from airgap.document import dump_json, fsync_directory, parse_json, read_bounded, write_atomic
from airgap.errors import BundleError, DigestMismatch, FetchError
from airgap.lock import Blob
from airgap.oci import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
PIECE: Final = 1 << 20


class Intake:
    """Bytes on their way in. `offset` bytes are there already; `validator` is the upstream's word for that version of them."""

    def __init__(self, path: Path, fd: int) -> None:
        """Of what lies at `path`, which `fd` has open and locked."""
        self.path = path
        self.fd = fd
        self.note = path.with_name(path.name + ".json")
        self._hash = hashlib.sha256()
        self.offset = 0
        self.validator = ""
        if self.note.exists():
            try:
                note = parse_json(read_bounded(self.note, error=BundleError), name=str(self.note), error=BundleError)
                self.validator = note.get("validator").text()
            except BundleError:
                self.validator = ""
        # The hash cannot be kept across processes (hashlib's state does not travel), but the disk is ten times
        # faster than any network: reading back what is there costs less than asking whether to trust it.
        with os.fdopen(os.dup(fd), "rb") as file:
            while piece := file.read(PIECE):
                self._hash.update(piece)
                self.offset += len(piece)

    def restart(self, validator: str = "") -> None:
        """Forget what is there and begin at byte 0 of the version that upstream calls `validator`."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.offset = 0
        self.validator = validator
        write_atomic(self.note, dump_json({"validator": validator}))

    def write(self, data: bytes | memoryview) -> None:
        """Append; OSError (a full disk) leaves what was written for a later try."""
        view = memoryview(data)
        while view:
            done = os.write(self.fd, view)
            self._hash.update(view[:done])
            self.offset += done
            view = view[done:]

    @property
    def digest(self) -> Digest:
        """Of what is there by now."""
        return Digest(self._hash.hexdigest())


class Store:
    """Blobs by digest below `root`, which is made if it is not there."""

    def __init__(self, root: Path) -> None:
        """Made below `root` if it is not there."""
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self.partial = root / "partial"
        # Two threads that add the same bytes would share write_atomic's temporary file; processes do not.
        self._adding = threading.Lock()
        for folder in (self._blobs, self.partial):
            folder.mkdir(parents=True, exist_ok=True)
        if not (root / "oci-layout").exists():
            write_atomic(root / "oci-layout", LAYOUT)

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._blobs / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here, and so is whole."""
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Bytes of a blob that is here."""
        return self.path(digest).stat().st_size

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A small blob, checked once more because it will be parsed; DigestMismatch if the disk changed it."""
        data = read_bounded(self.path(digest), error=BundleError, limit=limit)
        if Digest.of(data) != digest:
            raise DigestMismatch(
                f"{self.path(digest)}: the disk no longer holds what was stored (now {Digest.of(data)})",
                hint="delete this file and pack again",
            )
        return data

    def add(self, data: bytes) -> Digest:
        """A small blob from memory."""
        digest = Digest.of(data)
        with self._adding:
            if not self.has(digest):
                write_atomic(self.path(digest), data, mode=0o444)
        return digest

    @contextmanager
    def intake(self, key: str) -> Iterator[Intake]:
        """The way in for the bytes known as `key` (a digest's hex, or a hash of a URL); keeps what came when it fails.

        Waits while another process takes in the same key. Finish with `commit`.
        """
        path = self.partial / key
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # The one we waited for may have renamed or removed the file that we opened.
                if path.exists() and os.fstat(fd).st_ino == path.stat().st_ino:
                    yield Intake(path, fd)
                    return
            finally:
                os.close(fd)

    def commit(self, intake: Intake, *, expected: Digest | None = None, size: int | None = None, source: str = "") -> Blob:
        """Afterwards the blob is in the store, whole and flushed; returns what it is.

        If it is not what was `expected`, its bytes are dropped and DigestMismatch says both values and the `source`.
        """
        blob = Blob(intake.digest, intake.offset)
        wrong = (expected is not None and blob.digest != expected) or (size is not None and blob.size != size)
        if wrong:
            self.drop(intake)
            raise DigestMismatch(
                f"{source}: not the bytes that were promised"
                f"\n  expected {expected or 'any digest'}{'' if size is None else f', {size} bytes'}"
                f"\n  got      {blob.digest}, {blob.size} bytes",
                hint="look for a proxy or mirror that changes files; compare with upstream's own checksum page",
            )
        os.fsync(intake.fd)
        os.fchmod(intake.fd, 0o444)
        intake.path.replace(self.path(blob.digest))
        intake.note.unlink(missing_ok=True)
        fsync_directory(self._blobs)
        return blob

    def drop(self, intake: Intake) -> None:
        """Throw away what an intake has so far."""
        intake.path.unlink(missing_ok=True)
        intake.note.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove partial files; returns the bytes freed. FetchError if one is in use by another process."""
        freed = 0
        for path in sorted(self.partial.iterdir()):
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as cause:
                    raise FetchError(f"{path}: in use by another airgap", hint="wait for it to end") from cause
                freed += path.stat().st_size
                path.unlink()
        return freed
