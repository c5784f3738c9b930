"""The one file: a tar of an OCI image layout, verified in parallel, written once.

    install.sh  README.txt  oci-layout  index.json  [index.json.minisig]  blobs/sha256/<hex>: the lock, manifests, payload
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airgap.bundle import ustar
from airgap.bundle.layout import MEMBERS, Index
from airgap.bundle.opened import AGAIN, BLOBS, Bundle, Place
from airgap.bundle.store import LAYOUT, Store
from airgap.bundle.streams import PIECE
from airgap.document import fsync_directory
from airgap.errors import BundleError, DigestMismatch, FetchError, UsageError
from airgap.oci import Digest
from airgap.progress import SILENT, Gauge, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Bundle", "Report", "verify", "write_bundle"]

HASH_PIECE: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified: how many blobs, and how many bytes the bundle has."""

    blobs: int
    size: int


# ---- verify ----------------------------------------------------------------------------------------------------------


def verify(bundle: Bundle, *, progress: Progress = SILENT) -> Report:
    """Afterwards every byte of the bundle is known to be right. DigestMismatch names the damaged members, expected and found.

    Each blob is hashed once, as it is carried. What compressed blobs unpack to is not looked at: the packer hashed it while
    it compressed, the index vouches for the blob, and install refuses a content that is not the promised one before it places
    anything; unpacking here would take three times as long and could find nothing but a bug of the packer.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    largest_first = sorted(bundle.blobs.items(), key=lambda item: -item[1].size)
    stop = threading.Event()
    local = threading.local()
    damaged: dict[Digest, Digest] = {}

    def check(item: tuple[Digest, Place]) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(HASH_PIECE))
        found = _hash(bundle, item[1], local.buffer, gauge=gauge, stop=stop)
        if found != item[0] and not stop.is_set():
            damaged[item[0]] = found

    with (
        progress.gauge("verify", sum(place.size for place in bundle.blobs.values())) as gauge,
        ThreadPoolExecutor(min(cores, 16), thread_name_prefix="verify") as pool,
    ):
        try:
            for _ in pool.map(check, largest_first):
                pass
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    if damaged:
        raise _damage(bundle, damaged)
    return Report(len(bundle.blobs), bundle.size)


def _hash(bundle: Bundle, place: Place, buffer: memoryview, *, gauge: Gauge, stop: threading.Event) -> Digest:
    whole = hashlib.sha256()
    offset, end = place.offset, place.offset + place.size
    while offset < end and not stop.is_set():
        part = buffer[: end - offset]
        bundle.pread_into(offset, part)
        whole.update(part)
        gauge.advance(len(part))
        offset += len(part)
    return Digest(whole.hexdigest())


def _damage(bundle: Bundle, damaged: Mapping[Digest, Digest]) -> DigestMismatch:
    titles = {item.blob.digest: item.artifact.filename for item in bundle.index.carried}
    rows = []
    for digest in sorted(damaged)[:20]:
        title = f" ({titles[digest]})" if digest in titles else ""
        rows.append(f"  {BLOBS}{digest.hex}{title}\n    expected {digest}\n    found    {damaged[digest]}")
    more = f"\n  and {len(damaged) - 20} more" if len(damaged) > 20 else ""
    summary = f"{bundle.path}: {len(damaged)} of {len(bundle.blobs)} blobs are damaged\n"
    return DigestMismatch(summary + "\n".join(rows) + more, hint=AGAIN)


# ---- write -----------------------------------------------------------------------------------------------------------


def write_bundle(
    path: Path, *, index: Index, members: Mapping[str, bytes], lock: bytes, blobs: Mapping[Digest, int], store: Store,
    progress: Progress = SILENT,
) -> None:  # fmt: skip
    """Afterwards `path` holds the bundle, whole and flushed; the same values give the same bytes. A bundle that is there and
    has this very index is left as it is. Stopped, it leaves nothing.

    `blobs` are digest and size of all that the store has to give; `lock` and the index's own manifest need not be among them.
    Raises FetchError if the disk is too full, saying what is needed and what is free, UsageError if it cannot be written at all,
    DigestMismatch if a blob in the store no longer has its size.
    """
    parts = _parts(index, members, lock, blobs)
    needed = len(ustar.END) + sum(ustar.BLOCK + size + ustar.padding(size) for _, size, _ in parts)
    if _is_there(path, index, needed):
        progress.say("unchanged", f"{path} is this very bundle already", bundle=str(path))
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _room(path.parent, needed)
        try:
            with temporary.open("xb", buffering=0) as file, progress.gauge("write", needed) as gauge:
                _write(file.fileno(), parts, store, gauge)
                os.fsync(file.fileno())
            # What is handed out can be read: a bundle that its own reader refuses never gets the name.
            Bundle.at(temporary).close()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)
    except OSError as cause:
        raise _unwritten(path, needed, cause) from cause


def _parts(
    index: Index, members: Mapping[str, bytes], lock: bytes, blobs: Mapping[Digest, int]
) -> list[tuple[str, int, bytes | Digest]]:
    """Name, size and bytes (or where they are in the store) of each member, in order."""
    inline = {index.lock_blob.digest: lock, Digest.of(index.artifact): index.artifact}
    front = {**{name: members[name] for name in MEMBERS}, "oci-layout": LAYOUT, "index.json": index.data}
    parts: list[tuple[str, int, bytes | Digest]] = [(name, len(data), data) for name, data in front.items()]
    for digest in index.order({*inline, *blobs}):
        data = inline.get(digest)
        parts.append((BLOBS + digest.hex, blobs[digest] if data is None else len(data), digest if data is None else data))
    return parts


def _is_there(path: Path, index: Index, size: int) -> bool:
    """By its index, which names every byte, and its length; payload is not hashed, so that nothing to do costs nothing."""
    try:
        with Bundle.at(path) as found:
            return found.index.data == index.data and found.size == size
    except BundleError:
        return False


def _room(folder: Path, needed: int) -> None:
    # Asked, not reserved: posix_fallocate writes every block twice where the file system cannot reserve (FAT, NFS), which are
    # just the sticks and shares that bundles are written to.
    found = os.statvfs(folder)
    if needed > found.f_bavail * found.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritten(path: Path, needed: int, cause: OSError) -> FetchError | UsageError:
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        found = os.statvfs(path.parent)
        return FetchError(
            f"{path}: no room for the bundle: it needs {needed} bytes, {found.f_bavail * found.f_frsize} are free",
            hint="make room, or name another folder with -o; the next run fetches nothing again",
        )
    if cause.errno == errno.EFBIG:
        return FetchError(
            f"{path}: the file system takes no file of {needed} bytes",
            hint="write it to another one; FAT32 ends at 4 GiB",
        )
    return UsageError(f"{path}: cannot be written: {cause.strerror or cause}", hint="name another folder with -o")


def _write(fd: int, parts: list[tuple[str, int, bytes | Digest]], store: Store, gauge: Gauge) -> None:
    for name, size, source in parts:
        _put(fd, ustar.header(name, size))
        if isinstance(source, bytes):
            _put(fd, source)
            gauge.advance(size)
        else:
            _copy(fd, store, source, size, gauge)
        _put(fd, bytes(ustar.padding(size)))
    _put(fd, ustar.END)


def _put(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy(fd: int, store: Store, digest: Digest, size: int, gauge: Gauge) -> None:
    """The blob at the end of the file, by the kernel where it can. Not hashed again: in the store is verified."""
    try:
        with store.path(digest).open("rb", buffering=0) as source:
            if os.fstat(source.fileno()).st_size == size:
                _transfer(source.fileno(), fd, size, gauge)
                return
    except FileNotFoundError as cause:
        raise BundleError(f"{store.root}: lacks {digest}, which belongs into the bundle", hint="pack again") from cause
    changed = f"{store.path(digest)}: no longer has the {size} bytes that were stored"
    raise DigestMismatch(changed, hint="delete this file and pack again")


def _transfer(source: int, target: int, size: int, gauge: Gauge) -> None:
    left = size
    kernel = hasattr(os, "copy_file_range")
    while left:
        if kernel:
            try:
                done = os.copy_file_range(source, target, min(left, 64 << 20))
            except OSError as cause:
                # Across file systems on kernels before 5.3, and on some network file systems, for ever.
                if cause.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                    raise
                kernel = False
                continue
        else:
            data = os.read(source, min(left, PIECE))
            _put(target, data)
            done = len(data)
        if not done:
            raise OSError(errno.EIO, "a blob in the store became shorter while it was copied")
        left -= done
        gauge.advance(done)
