"""Binaries out of images: where GitHub or the static host is blocked, a registry often is not, and upstream's images carry the same files.

What comes out is pinned like any file; its voucher is the image's digest.
"""

from __future__ import annotations

import tarfile

from airgap import elf
from airgap.bundle.image import image_file
from airgap.bundle.store import Intake, Store
from airgap.errors import BundleError, FetchError, ResolveError
from airgap.kinds.want import Borne, FileWant
from airgap.lock import Blob, FileArtifact, Voucher
from airgap.oci import INDEXES, Descriptor, Digest, ImageIndex, ImageManifest
from airgap.online import content
from airgap.online.download import disk
from airgap.online.notes import Notes
from airgap.online.registry import Registry


def fetch(want: FileWant, borne: Borne, registry: Registry, store: Store, notes: Notes) -> FileArtifact:
    """The file taken out of its image: one binary, or for an engine a tar of them in upstream's layout.

    Raises NotThere if the image does not exist, ResolveError if it lacks the platform, FetchError if it lacks the files.
    """
    manifest, digest, url = _manifest(want, borne, registry)
    key = f"{digest} {want.kind} {want.name}"
    note = notes.get("borne", key)
    if note and store.has(known := Digest.parse(note.get("digest").text())):
        blob = Blob(known, note.get("size").integer())
    else:
        for layer in manifest.layers:
            registry.blob(borne.reference, layer)
        try:
            blob = _take(want, borne, manifest, store, key=f"borne-{digest.hex}-{want.name}", url=url)
        except BundleError as cause:
            raise FetchError(f"{borne.reference.familiar} does not serve for {want.title}: {cause.message}") from cause
        except OSError as cause:
            raise disk(cause, want.title, None) from cause
        notes.put("borne", key, {"digest": str(blob.digest), "size": blob.size})
    with store.path(blob.digest).open("rb") as file:
        head = file.read(64)
    if want.shape == "elf" and not elf.runs_on(head, want.platform):
        raise FetchError(f"{url}: {borne.members[0][1]} is no executable for {want.platform}")
    return FileArtifact(
        kind=want.kind, name=want.name, version=want.version, platform=want.platform, filename=_filename(want), url=url, form="file",
        upstream=blob, content=content.of(blob, "file", store, notes, source=url),
        voucher=Voucher("published", f"the image {borne.reference.familiar}, manifest {digest}"),
    )  # fmt: skip


def _filename(want: FileWant) -> str:
    """As upstream's own file, but an engine is no tgz here."""
    name = want.places[0].filename
    return name.removesuffix(".tgz") + ".tar" if want.shape == "engine" else name


def _take(want: FileWant, borne: Borne, manifest: ImageManifest, store: Store, *, key: str, url: str) -> Blob:
    with store.intake(key) as intake:
        intake.restart()
        if want.shape == "engine":
            _tar(intake, want, borne, manifest, store)
        else:
            for data in image_file(lambda digest: store.path(digest).open("rb"), manifest, borne.members[0][1]):
                intake.write(data)
        return store.commit(intake, source=url)


def _manifest(want: FileWant, borne: Borne, registry: Registry) -> tuple[ImageManifest, Digest, str]:
    name = borne.reference.familiar
    root = registry.root(borne.reference)
    chosen: Descriptor = root.descriptor
    if root.descriptor.media_type in INDEXES:
        found = ImageIndex.parse(root.data, name=name, error=FetchError).choose(frozenset({want.platform}))
        if not found:
            raise ResolveError(f"{name} has no {want.platform}, so {want.name} {want.version} cannot be taken from it either")
        chosen = found[0]
    data = registry.manifest(borne.reference, chosen)
    return ImageManifest.parse(data, name=name, error=FetchError), chosen.digest, f"docker://{borne.reference}@{chosen.digest}"


def _tar(intake: Intake, want: FileWant, borne: Borne, manifest: ImageManifest, store: Store) -> None:
    """A deterministic tar of the members that the image has; the required ones must be there."""
    for member, path in sorted(borne.members):
        try:
            data = b"".join(image_file(lambda d: store.path(d).open("rb"), manifest, path))
        except BundleError as cause:
            if member in want.members:
                raise FetchError(f"{borne.reference.familiar} lacks {path}") from cause
            continue
        if not elf.runs_on(data[:64], want.platform):
            raise FetchError(f"{borne.reference.familiar}: {path} is no executable for {want.platform}")
        info = tarfile.TarInfo(member)
        info.size, info.mode = len(data), 0o755
        intake.write(info.tobuf(tarfile.USTAR_FORMAT))
        intake.write(data)
        intake.write(bytes(-len(data) % tarfile.BLOCKSIZE))
    intake.write(bytes(2 * tarfile.BLOCKSIZE))


