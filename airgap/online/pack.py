"""From a lock to the one file: what is missing is fetched, then everything is laid out and written once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from airgap.bundle import archive
from airgap.bundle.layout import Carried, Index
from airgap.bundle.readme import readme
from airgap.bundle.store import Store
from airgap.errors import DigestMismatch, FetchError, LockError
from airgap.kinds import wants
from airgap.kinds.want import FileWant
from airgap.lock import MEDIA_TYPE, FileArtifact, ImageArtifact, Lock
from airgap.manifest import Manifest
from airgap.oci import Descriptor, Digest, ImageManifest, Platform
from airgap.online import content, wheels
from airgap.online.installer import install_sh
from airgap.online.resolve import Online, fetch_file
from airgap.online.together import together


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A bundle that was written."""

    path: Path
    lock: Lock
    size: int
    blobs: int


def filename(lock: Lock) -> str:
    """The bundle's name: `airgap-buildfarm-202611241613.tar`."""
    return f"airgap-{lock.name}-{lock.serial}.tar"


def pack(lock: Lock, online: Online, *, folder: Path) -> Packed:
    """Afterwards `folder` holds the bundle of this lock, whole; the same lock gives the same bytes.

    Raises FetchError where bytes could not be had, DigestMismatch where they are no longer what was locked. Killed, it goes on
    where it stopped when it is run again.
    """
    complete(lock, online)
    store = online.store
    carried = tuple(_carried(item, online) for item in lock.files)
    data = lock.dump()
    store.add(data)
    members = {
        "install.sh": install_sh(lock),
        "README.txt": readme(lock).encode(),
    }
    index = Index.build(lock, carried, members=members, lock_blob=_descriptor(data))
    store.add(index.artifact)
    blobs = dict(_payload(lock, carried, store))
    path = folder / filename(lock)
    folder.mkdir(parents=True, exist_ok=True)
    archive.write_bundle(path, index=index, members=members, lock=data, blobs=blobs, store=store, progress=online.progress)
    return Packed(path=path, lock=lock, size=path.stat().st_size, blobs=len(blobs))


def _descriptor(data: bytes) -> Descriptor:
    return Descriptor(media_type=MEDIA_TYPE, digest=Digest.of(data), size=len(data))


def complete(lock: Lock, online: Online) -> None:
    """Afterwards the store has every blob of this lock."""
    _files(lock, online)
    jobs = _largest_first([(image, blob) for image in lock.images for blob in missing(image, online)])
    total = sum(blob.size for _, blob in jobs)
    if not jobs:
        return
    with online.progress.gauge("images", total) as gauge, together(online.web) as work:
        work.begin(partial(online.registry.blob, image.reference, blob, gauge=gauge) for image, blob in jobs)


def _largest_first(jobs: list[tuple[ImageArtifact, Descriptor]]) -> list[tuple[ImageArtifact, Descriptor]]:
    """Each blob once (images share layers), the longest download begun first."""
    once = {blob.digest: (image, blob) for image, blob in jobs}
    return sorted(once.values(), key=lambda job: -job[1].size)


def missing(image: ImageArtifact, online: Online) -> Iterator[Descriptor]:
    """The blobs of this image that are not in the store; its manifests are fetched to know them."""
    local = image.url.startswith("docker-daemon:")
    gone = LockError(
        f"{image.reference}: was taken from the engine that made the lock, and is not whole in this store", hint="lock again"
    )
    if local and not online.store.has(image.root.digest):
        raise gone
    online.registry.manifest(image.reference, image.root)
    for item in image.manifests:
        data = online.registry.manifest(image.reference, item)
        manifest = ImageManifest.parse(data, name=str(item.digest), error=FetchError)
        lacking = [blob for blob in manifest.blobs if not online.store.has(blob.digest)]
        if lacking and local:
            raise gone
        yield from lacking


def _files(lock: Lock, online: Online) -> None:
    """Fetch the files of the lock that the store lacks, and insist that they are still the ones locked."""
    lacking = [item for item in lock.files if not online.store.has(item.upstream.digest)]
    if any(item.kind == wheels.KIND for item in lacking):
        manifest = Manifest.from_json(lock.manifest)
        found = wheels.resolve(
            python=manifest.runtime.python, platforms=manifest.platforms, store=online.store, run=online.run,
            pinned=tuple(lock.of_kind(wheels.KIND)),
        )  # fmt: skip
        _insist([item for item in lock.files if item.kind == wheels.KIND], found)
    asked: dict[tuple[str, str, Platform | None], FileWant] = {
        (want.kind, want.name, want.platform): want
        for want in wants(Manifest.from_json(lock.manifest))
        if isinstance(want, FileWant)
    }
    others = [item for item in lacking if item.kind != wheels.KIND]
    if strange := [item.filename for item in others if (item.kind, item.name, item.platform) not in asked]:
        raise LockError(f"the lock of {lock.name} names files that its own manifest does not ask for: {', '.join(strange)}",
                        hint="lock again")  # fmt: skip
    with together(online.web) as work:
        fetched = work.begin(
            partial(fetch_file, _as_locked(asked[(item.kind, item.name, item.platform)], item), online) for item in others
        )
    _insist(others, tuple(item.result() for item in fetched))


def _as_locked(want: FileWant, item: FileArtifact) -> FileWant:
    """The want, by the way that the lock went: a file and the same out of an image are not the same bytes."""
    return replace(want, way="image" if item.url.startswith("docker://") else "file")


def _insist(wanted: list[FileArtifact], found: tuple[FileArtifact, ...]) -> None:
    have = {(item.kind, item.name, item.platform, item.upstream.digest) for item in found}
    for item in wanted:
        if (item.kind, item.name, item.platform, item.upstream.digest) not in have:
            same = [other for other in found if (other.name, other.platform) == (item.name, item.platform)]
            now = [f"{other.upstream.digest} from {other.url}" for other in same]
            raise DigestMismatch(
                f"{item.filename}: upstream no longer serves what was locked"
                f"\n  locked  {item.upstream.digest} from {item.url}\n  now     {', '.join(now) or 'nothing'}",
                hint="if the change is upstream's and expected, run airgap lock again and look at the difference",
            )


def _carried(item: FileArtifact, online: Online) -> Carried:
    """How the bundle carries this file."""
    if item.form == "as-is":
        return Carried(artifact=item, blob=item.upstream, frames=())
    made = content.packed(item.upstream, item.form, online.store, online.notes, source=item.url)
    if made.content != item.content:
        raise DigestMismatch(f"{item.filename}: its content is {made.content.digest}, but {item.content.digest} was locked")
    return Carried(artifact=item, blob=made.blob, frames=made.frames)


def _payload(lock: Lock, carried: tuple[Carried, ...], store: Store) -> Iterator[tuple[Digest, int]]:
    """Digest and size of every blob but the lock."""
    for item in carried:
        yield item.blob.digest, item.blob.size
    for image in lock.images:
        yield image.root.digest, image.root.size
        for child in image.manifests:
            yield child.digest, child.size
            data = store.read(child.digest, limit=4 << 20)
            for blob in ImageManifest.parse(data, name=str(child.digest), error=FetchError).blobs:
                yield blob.digest, blob.size


