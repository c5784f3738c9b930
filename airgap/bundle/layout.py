"""The index of a bundle: the one document from which everything else in it is named by digest and size.

index.json is an OCI image index. Its first manifest is the bundle's own artifact (an OCI image manifest whose config is the
lock and whose layers are the carried files); the others are the images, by name, for skopeo, crane and containerd. All of it
follows from the lock, from how each file was compressed, and from the bytes of install.sh and README.txt; so a reader builds
it anew and compares. What it accepts is therefore exactly what `pack` writes, and no byte of it can be changed unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from airgap.bundle.frames import Frame, Packed
from airgap.document import Json, Node, dump_json, parse_json
from airgap.errors import BundleError, DigestMismatch, LockError
from airgap.lock import MEDIA_TYPE as LOCK_TYPE
from airgap.lock import Blob, FileArtifact, Lock
from airgap.oci import (
    CONTAINERD_NAME,
    INDEX,
    MANIFEST,
    MANIFEST_LIMIT,
    REF_NAME,
    TITLE,
    Descriptor,
    Digest,
    ImageManifest,
    read_digest,
)

FORMAT: Final = "1"
ARTIFACT_TYPE: Final = "application/vnd.airgap.bundle.v1"
ZSTD_TYPE: Final = "application/vnd.airgap.file.v1+zstd"
FILE_TYPE: Final = "application/vnd.airgap.file.v1"

A_FORMAT: Final = "airgap.bundle.format"
A_REQUIRES: Final = "airgap.bundle.requires"
A_NAME: Final = "airgap.bundle.name"
A_SERIAL: Final = "airgap.bundle.serial"
A_MEMBER: Final = "airgap.bundle.member."
A_CONTENT: Final = "airgap.content.digest"
A_SIZE: Final = "airgap.content.size"
A_FRAMES: Final = "airgap.content.frames"

MEMBERS: Final = ("install.sh", "README.txt")
INDEX_LIMIT: Final = 16 << 20
LOCK_LIMIT: Final = 64 << 20

Reader = Callable[[Digest, int], bytes]
"""A blob's verified bytes, at most so many; raises BundleError."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A locked file, the blob that carries it, and the frames its content comes out of (none: the blob is the content)."""

    artifact: FileArtifact
    blob: Blob
    frames: tuple[Frame, ...]

    @property
    def packed(self) -> Packed:
        """As `frames.decompress` wants it."""
        return Packed(self.artifact.content, self.blob, self.frames)

    def descriptor(self) -> Descriptor:
        """The artifact manifest's layer for this file."""
        content = self.artifact.content
        notes = {TITLE: self.artifact.filename, A_CONTENT: str(content.digest), A_SIZE: str(content.size)}
        if self.frames:
            notes[A_FRAMES] = " ".join(f"{frame.content}:{frame.blob}" for frame in self.frames)
        return Descriptor(
            media_type=ZSTD_TYPE if self.frames else FILE_TYPE, digest=self.blob.digest, size=self.blob.size, annotations=notes
        )

    @classmethod
    def read(cls, node: Node, artifact: FileArtifact) -> Carried:
        """From a layer; the node's error if it is not for this file or its frames are not sound."""
        layer = Descriptor.read(node)
        frames = _frames(node, layer.annotations.get(A_FRAMES, ""))
        carried = cls(artifact, Blob(layer.digest, layer.size), frames)
        if frames:
            carried.packed.check(name=artifact.filename, error=node.error)
        elif carried.blob != artifact.content:
            node.fail(f"carries {layer.digest} for {artifact.filename}, whose content is {artifact.content.digest}")
        return carried


def _frames(node: Node, text: str) -> tuple[Frame, ...]:
    found = []
    for word in text.split(" ") if text else ():
        content, colon, blob = word.partition(":")
        if not (colon and all(part.isascii() and part.isdigit() and len(part) < 16 for part in (content, blob))):
            node.fail(f"{word[:60]!r} is not a frame")
        found.append(Frame(int(content), int(blob)))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """`data` are the bytes of index.json, `artifact` those of the bundle's own manifest; both follow from the rest."""

    lock: Lock
    lock_blob: Descriptor
    carried: tuple[Carried, ...]
    members: Mapping[str, Digest]
    artifact: bytes
    data: bytes

    @classmethod
    def build(cls, lock: Lock, carried: Iterable[Carried], *, members: Mapping[str, bytes], lock_blob: Descriptor) -> Index:
        """The index of this lock; `members` holds the bytes of install.sh and README.txt. The same values give the same bytes."""
        by_file = {item.artifact: item for item in carried}
        files = tuple(by_file[item] for item in sorted(lock.files, key=_sorting))
        digests = {name: Digest.of(members[name]) for name in MEMBERS}
        artifact = dump_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": ARTIFACT_TYPE,
                "config": lock_blob.to_json(),
                "layers": [item.descriptor().to_json() for item in files],
            }
        )
        own = Descriptor(
            media_type=MANIFEST, digest=Digest.of(artifact), size=len(artifact), artifact_type=ARTIFACT_TYPE,
            annotations={TITLE: f"airgap-{lock.name}-{lock.serial}"},
        )  # fmt: skip
        document = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [own.to_json(), *_images(lock)],
            "annotations": {
                A_FORMAT: FORMAT,
                A_NAME: lock.name,
                A_SERIAL: str(lock.serial),
                **{A_MEMBER + name: str(digest) for name, digest in digests.items()},
            },
        }
        return cls(lock=lock, lock_blob=lock_blob, carried=files, members=digests, artifact=artifact, data=dump_json(document))

    @classmethod
    def parse(cls, data: bytes, *, members: Mapping[str, bytes], read: Reader, name: str) -> Index:
        """From a bundle's index.json and what it names. BundleError if it is not ours or of a newer kind, DigestMismatch if
        install.sh or README.txt are not the ones it names.
        """
        node = parse_json(data, name=f"{name}: index.json", error=BundleError, limit=INDEX_LIMIT)
        own = _own(node, name=name)
        notes = node.get("annotations")
        for member in MEMBERS:
            promised, found = read_digest(notes.get(A_MEMBER + member)), Digest.of(members[member])
            if promised != found:
                raise DigestMismatch(
                    f"{name}: {member} is not the one that was packed\n  expected {promised}\n  found    {found}",
                    hint="damaged or changed on its way: compare the bundle with the original, and carry it over again",
                )
        artifact = read(own.digest, MANIFEST_LIMIT)
        manifest = parse_json(artifact, name=f"{name}: its manifest", error=BundleError, limit=MANIFEST_LIMIT)
        lock_blob = Descriptor.read(manifest.get("config"))
        lock = _lock(read(lock_blob.digest, LOCK_LIMIT), name=name)
        layers = list(manifest.get("layers").items())
        if len(layers) != len(lock.files):
            manifest.fail(f"carries {len(layers)} files, but its lock names {len(lock.files)}")
        carried = [Carried.read(layer, item) for layer, item in zip(layers, lock.files, strict=True)]
        try:
            config = Descriptor(media_type=LOCK_TYPE, digest=lock_blob.digest, size=lock_blob.size)
            index = cls.build(lock, carried, members=members, lock_blob=config)
        except (KeyError, ValueError) as cause:
            raise BundleError(f"{name}: its lock cannot be written as it stands ({cause})") from cause
        if index.data != data:  # which holds the digest of the manifest, so that is compared, too
            raise BundleError(f"{name}: index.json or the bundle's manifest does not follow from its lock", hint=_NEWER)
        return index

    def required(self, read: Reader) -> dict[Digest, int]:
        """Every blob that must be in the bundle, and its size: the one rule of presence. BundleError if one has two sizes.

        A delta will leave out what its base has; this is where its absence will be allowed.
        """
        found: dict[Digest, int] = {}

        def name(digest: Digest, size: int) -> None:
            if found.setdefault(digest, size) != size:
                raise BundleError(f"{digest} is named with two sizes, {found[digest]} and {size}")

        name(self.lock_blob.digest, self.lock_blob.size)
        name(Digest.of(self.artifact), len(self.artifact))
        for item in self.carried:
            name(item.blob.digest, item.blob.size)
        for image in self.lock.images:
            name(image.root.digest, image.root.size)
            for child in image.manifests:
                name(child.digest, child.size)
                data = read(child.digest, MANIFEST_LIMIT)
                for blob in ImageManifest.parse(data, name=f"{image.reference}: {child.digest}", error=BundleError).blobs:
                    name(blob.digest, blob.size)
        return found

    def order(self, blobs: Iterable[Digest]) -> list[Digest]:
        """These blobs as they lie in the file: the lock, then what names others, then payload, each sorted."""
        documents = {Digest.of(self.artifact)}
        for image in self.lock.images:
            documents |= {image.root.digest, *(child.digest for child in image.manifests)}
        lock = self.lock_blob.digest
        return sorted(set(blobs), key=lambda digest: (digest != lock, digest not in documents, digest))


_NEWER = "it was made by a newer airgap, or changed: use the install.sh inside it, or a newer airgap"


def _sorting(item: FileArtifact) -> tuple[str, ...]:
    """The lock's own order (`Lock.dump`)."""
    return (item.kind, item.name, item.version, str(item.platform or ""), item.filename)


def _images(lock: Lock) -> list[Json]:
    """A descriptor for each image, under the names that skopeo (ref.name) and containerd look for."""
    found = []
    for image in sorted(lock.images, key=lambda item: str(item.reference)):
        names = {REF_NAME: str(image.reference), CONTAINERD_NAME: str(image.reference)}
        root = image.root
        found.append(
            Descriptor(
                media_type=root.media_type, digest=root.digest, size=root.size, platform=root.platform, annotations=names
            ).to_json()
        )
    return found


def _own(node: Node, *, name: str) -> Descriptor:
    """The bundle's own manifest, after the format was found to be one we know."""
    notes = node.find("annotations")
    said = notes.find(A_FORMAT) if notes else None
    if said is None:
        raise BundleError(f"{name}: an OCI archive, but no airgap bundle", hint="bundles are made by airgap pack")
    requires = notes.find(A_REQUIRES) if notes else None
    if said.text() != FORMAT:
        raise BundleError(
            f"{name}: made by a newer airgap, in format {said.text()[:40]}; this one reads format {FORMAT}",
            hint="use the install.sh inside it, which brings its own airgap",
        )
    if requires is not None:
        raise BundleError(
            f"{name}: made by a newer airgap; it requires {requires.text()[:80]}",
            hint="use the install.sh inside it, which brings its own airgap",
        )
    first: Sequence[Node] = list(node.get("manifests").items())[:1]
    if not first:
        node.fail("names no manifest")
    return Descriptor.read(first[0])


def _lock(data: bytes, *, name: str) -> Lock:
    try:
        return Lock.parse(data, name="its lock")
    except LockError as cause:
        raise BundleError(f"{name}: {cause.message}", hint=cause.hint) from cause
