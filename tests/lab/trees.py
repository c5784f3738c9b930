"""Deterministic tarballs of files picked from Debian packages, made once and kept in the cache by what they hold."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

from tests.lab.cache import cache_root, once

if TYPE_CHECKING:
    from typing_extensions import Buffer

# zlib's level 4 costs a third of 6's time and some 3 % more bytes; a lab's first run waits for this.
LEVEL = 4


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: a path to copy from, or its bytes."""

    content: Path | bytes
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that must be there even if it is empty, or with a mode of its own."""

    mode: int = 0o755


Tree = Mapping[str, File | Link | Folder]
"""Names inside the tarball, without a leading slash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A gzipped tarball, with the digest (hex) and size of both forms."""

    path: Path
    digest: str
    size: int
    inner_digest: str
    inner_size: int


def packed(tree: Tree, *, cache: Path | None = None) -> Packed:
    """The tarball of this tree, from the cache if the same was made before."""
    folder = (cache or cache_root()) / "packed" / _key(tree)
    with once(folder) as work:
        if work:
            _write(tree, work)
    facts = json.loads((folder / "facts.json").read_text())
    return Packed(path=folder / "tree.tar.gz", **facts)


def sha256(path: Path) -> str:
    """The file's digest in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _key(tree: Tree) -> str:
    """Names, modes and contents; a file of a package is known by its place in the cache and its size."""
    rows: list[list[object]] = [["level", LEVEL]]
    for name, item in sorted(tree.items()):
        if isinstance(item, Folder):
            rows.append([name, "folder", item.mode])
        elif isinstance(item, Link):
            rows.append([name, "link", item.target])
        elif isinstance(item.content, bytes):
            rows.append([name, item.mode, hashlib.sha256(item.content).hexdigest()])
        else:
            real = item.content.resolve()
            place = real.relative_to(cache_root().resolve()) if real.is_relative_to(cache_root().resolve()) else real
            rows.append([name, item.mode, str(place), real.stat().st_size])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:24]


class _Hashed:
    """Counts and hashes what goes through to `target`."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self._target = target
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Buffer) -> int:
        self.digest.update(data)
        size = memoryview(data).nbytes
        self.size += size
        self._target.write(data)
        return size

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._target.flush()


def _write(tree: Tree, work: Path) -> None:
    with (work / "tree.tar.gz").open("wb") as raw:
        outer = _Hashed(raw)
        with gzip.GzipFile(fileobj=cast("IO[bytes]", outer), mode="wb", mtime=0, filename="", compresslevel=LEVEL) as zipped:
            inner = _Hashed(zipped)
            with tarfile.open(fileobj=cast("IO[bytes]", inner), mode="w", format=tarfile.GNU_FORMAT) as tar:
                for name, item in sorted(_with_parents(tree).items()):
                    _add(tar, name, item)
    facts = {
        "digest": outer.digest.hexdigest(), "size": outer.size,
        "inner_digest": inner.digest.hexdigest(), "inner_size": inner.size,
    }  # fmt: skip
    (work / "facts.json").write_text(json.dumps(facts))


def _with_parents(tree: Tree) -> dict[str, File | Link | Folder]:
    found = dict(tree)
    for name in tree:
        for parent in PurePosixPath(name).parents:
            if str(parent) != ".":
                found.setdefault(str(parent), Folder())
    return found


def _add(tar: tarfile.TarFile, name: str, item: File | Link | Folder) -> None:
    info = tarfile.TarInfo(name)
    if isinstance(item, Folder):
        info.type, info.mode = tarfile.DIRTYPE, item.mode
        tar.addfile(info)
    elif isinstance(item, Link):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, item.target, 0o777
        tar.addfile(info)
    elif isinstance(item.content, bytes):
        info.size, info.mode = len(item.content), item.mode
        tar.addfile(info, io.BytesIO(item.content))
    else:
        with item.content.open("rb") as file:
            info.size, info.mode = item.content.stat().st_size, item.mode
            tar.addfile(info, file)
