"""push: every image of a bundle into a registry that the site already has, with upstream's own bytes wherever it takes them.

Blobs go first, several at once, straight from the bundle: what is there is skipped, what another repository has is mounted. Then
each image's manifests by digest, and last its tag, so that a tag never means something that is not whole. Killed, it goes on: all
that is done is seen at the registry.

Upstream's index names platforms that a bundle may not carry, and most registries insist on all children (upstream.md 5.4). It is
offered as it is; only where it is refused, the tag gets an index with the children that are carried, whose digest is another.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from airgap.bundle.opened import Bundle
from airgap.bundle.streams import pieces_of
from airgap.document import Json
from airgap.errors import BundleError, FetchError
from airgap.lock import Blob, ImageArtifact
from airgap.oci import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    ImageIndex,
    ImageManifest,
)
from airgap.online import older
from airgap.online.depot import Depot, Refused
from airgap.online.target import tag
from airgap.online.transport import Outgoing
from airgap.progress import Gauge, Progress

AT_ONCE: Final = 4
PIECE: Final = 64 << 10
"""A socket must take each piece within the connect timeout: small, so that slow lines are no dead ones."""

Form = Literal["whole", "subset", "docker"]
"""As upstream made it; an index with the carried children only; Docker's older types without attestations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An image that is in the registry: its name in the bundle and there, the digest its tag means there, and upstream's."""

    reference: str
    name: str
    digest: Digest
    upstream: Digest
    form: Form
    moved: bool
    """Whether the tag meant something else, or nothing, before."""

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "reference": self.reference, "name": self.name, "digest": str(self.digest), "upstream": str(self.upstream),
            "form": self.form, "moved": self.moved,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did. Blobs are counted once for each repository; `size` is bytes of blobs that were sent."""

    registry: str
    pushed: int
    mounted: int
    skipped: int
    size: int
    images: tuple[Placed, ...]

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "registry": self.registry, "pushed": self.pushed, "mounted": self.mounted, "skipped": self.skipped, "size": self.size,
            "images": [item.to_json() for item in self.images],
        }  # fmt: skip


def push(bundle: Bundle, depot: Depot, *, progress: Progress, strict: bool = False) -> Pushed:
    """Afterwards every image of the bundle is in the registry, under its own tag; again, no blob moves.

    `strict` refuses to put anything but upstream's own bytes under a tag. Raises FetchError for whatever the registry or the
    network does, saying what was done; DigestMismatch or BundleError for a damaged bundle, of which nothing wrong was stored.
    """
    depot.greet()
    images = [_Image.read(bundle, item, depot) for item in bundle.lock.images]
    work: dict[Digest, _Work] = {}
    for image in images:
        for blob in image.blobs:
            places = work.setdefault(blob.digest, _Work(blob, [])).repositories
            if image.repository not in places:
                places.append(image.repository)
    total = sum(item.blob.size for item in work.values())
    with progress.gauge(f"push to {depot.target.host}", total) as gauge:
        run = _Run(bundle, depot, progress=progress, gauge=gauge, strict=strict)
        return _everything(run, images, work)


def _everything(run: _Run, images: Sequence[_Image], work: dict[Digest, _Work]) -> Pushed:
    placed: list[Placed] = []
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
        try:
            begun = {digest: pool.submit(run.blob, item) for digest, item in work.items()}
            for image in images:
                for blob in image.blobs:
                    begun[blob.digest].result()
                placed.append(run.image(image))
        except FetchError as cause:
            run.stop(pool)
            raise run.explained(cause, len(placed), len(images)) from cause
        except BaseException:
            run.stop(pool)
            raise
    return run.result(placed)


@dataclass(frozen=True, slots=True)
class _Document:
    """A manifest or index: its type and exact bytes."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)


@dataclass(frozen=True, slots=True)
class _Work:
    """A blob, and the repositories that need it."""

    blob: Blob
    repositories: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """An image out of the bundle and where it goes. `lacking` counts upstream's children that the bundle does not carry."""

    artifact: ImageArtifact
    repository: str
    name: str
    top: _Document
    children: tuple[tuple[Descriptor, _Document], ...]
    blobs: tuple[Blob, ...]
    lacking: int

    @classmethod
    def read(cls, bundle: Bundle, artifact: ImageArtifact, depot: Depot) -> _Image:
        shown = artifact.reference.familiar
        repository = depot.target.repository(artifact)
        top = _Document(artifact.root.media_type, bundle.read(artifact.root.digest, limit=MANIFEST_LIMIT))
        children: list[tuple[Descriptor, _Document]] = []
        blobs: dict[Digest, Blob] = {}
        for item in artifact.manifests:
            document = _Document(item.media_type, bundle.read(item.digest, limit=MANIFEST_LIMIT))
            for blob in ImageManifest.parse(document.data, name=f"{shown}: {item.digest}", error=BundleError).blobs:
                blobs[blob.digest] = Blob(blob.digest, blob.size)
            children.append((item, document))
        lacking = 0
        if top.media_type in INDEXES:
            named = ImageIndex.parse(top.data, name=shown, error=BundleError).manifests
            lacking = len({item.digest for item in named} - {item.digest for item in artifact.manifests})
        return cls(
            artifact=artifact, repository=repository, name=f"{depot.target.host}/{repository}:{tag(artifact)}", top=top,
            children=tuple(children) if top.media_type in INDEXES else (), blobs=tuple(blobs.values()), lacking=lacking,
        )  # fmt: skip

    @property
    def oci(self) -> bool:
        """Whether any of it is in a type that Docker's older registries do not know."""
        documents = (self.top, *(document for _, document in self.children))
        return any(item.media_type not in (DOCKER_LIST, DOCKER_MANIFEST) for item in documents)


class _Run:
    """One push under way. `blob` runs in several threads, everything else in one."""

    def __init__(self, bundle: Bundle, depot: Depot, *, progress: Progress, gauge: Gauge, strict: bool) -> None:
        self._bundle, self._depot, self._progress, self._gauge, self._strict = bundle, depot, progress, gauge, strict
        self._lock = threading.Lock()
        self._counts = {"pushed": 0, "mounted": 0, "skipped": 0}
        self._size = 0
        self._docker_only = False

    # ---- blobs -------------------------------------------------------------------------------------------------------

    def blob(self, work: _Work) -> None:
        """Afterwards the blob is in all its repositories, and sent at most once if the registry can mount."""
        there = [item for item in work.repositories if self._depot.has(item, work.blob.digest)]
        self._count("skipped", len(there), 0)
        if there:
            self._gauge.advance(work.blob.size)
        source, gauge = (there[0], None) if there else ("", self._gauge)
        for repository in work.repositories:
            if repository in there:
                continue
            body = _Metered(self._bundle, work.blob, gauge)
            way = self._depot.deliver(repository, work.blob, Outgoing(work.blob.size, body.pieces), source=source)
            body.done()
            self._count(way, 1, work.blob.size if way == "pushed" else 0)
            source, gauge = source or repository, None

    def _count(self, way: str, number: int, size: int) -> None:
        with self._lock:
            self._counts[way] += number
            self._size += size

    # ---- images ------------------------------------------------------------------------------------------------------

    def image(self, image: _Image) -> Placed:
        """Afterwards the image is there under its tag; its blobs are there already."""
        if self._docker_only and image.oci:
            return self._docker(image, None)
        try:
            return self._whole(image)
        except Refused as cause:
            if not cause.of_types or not image.oci:
                raise
            self._docker_only = True
            return self._docker(image, cause)

    def _whole(self, image: _Image) -> Placed:
        try:
            return self._place(image, image.top, [document for _, document in image.children], form="whole")
        except Refused as cause:
            # A refused child is about the child; what is refused with all its children there may be refused for those that lack.
            if not image.lacking or cause.status not in (400, 404) or not self._all_there(image):
                raise
            return self._subset(image, cause)

    def _all_there(self, image: _Image) -> bool:
        return all(self._depot.standing(image.repository, str(document.digest)) is not None for _, document in image.children)

    def _subset(self, image: _Image, cause: Refused) -> Placed:
        """The tag gets an index of what is carried."""
        carried = frozenset(document.digest for _, document in image.children)
        data = older.subset(image.top.data, carried, name=image.artifact.reference.familiar)
        index = _Document(image.top.media_type, data)
        platforms = ", ".join(str(item) for item in image.artifact.platforms)
        said = f"upstream's index names {image.lacking} manifests that the bundle does not carry, and the registry insists on all"
        if self._strict:
            raise FetchError(
                f"{image.name}: {said}\n  {cause.message}",
                hint="carry all platforms (`platforms:` of the image), or leave out --strict, or let the registry take it "
                "(distribution 3: validation.manifests.indexes.platforms: none)",
            ) from cause
        placed = self._place(image, index, [], form="subset")
        text = f"{image.name}: {said}; its tag now means an index with {platforms} only" + _digests(placed)
        self._progress.say("subset", text, **placed.to_json())
        return placed

    def _docker(self, image: _Image, cause: Refused | None) -> Placed:
        """The image in Docker's types, without its attestations."""
        name, why = image.artifact.reference.familiar, f"\n  {cause.message}" if cause else ""
        said = "the registry does not take OCI's types"
        if self._strict:
            raise FetchError(
                f"{image.name}: {said}{why}",
                hint="leave out --strict, or use a registry that takes them (distribution 2.7, Harbor 2.0)",
            ) from cause
        kept = [(item, document.data) for item, document in image.children if not older.is_attestation(item)]
        images = [(item, older.docker_manifest(data, name=name)) for item, data in kept]
        children = [_Document(DOCKER_MANIFEST, data) for _, data in images]
        if image.children:
            top = _Document(DOCKER_LIST, older.docker_list(images))
        else:
            top = _Document(DOCKER_MANIFEST, older.docker_manifest(image.top.data, name=name))
        placed = self._place(image, top, children, form="docker")
        text = f"{image.name}: {said}: converted to Docker's, without attestations" + _digests(placed)
        self._progress.say("converted", text, **placed.to_json())
        return placed

    def _place(self, image: _Image, top: _Document, children: Sequence[_Document], *, form: Form) -> Placed:
        """Children first, each by its digest, then the tag. Raises Refused, the tag as it was."""
        depot, repository, last = self._depot, image.repository, tag(image.artifact)
        for item in children:
            if depot.standing(repository, str(item.digest)) is None:
                depot.put(repository, str(item.digest), item.media_type, item.data)
        moved = depot.standing(repository, last) != str(top.digest)
        if moved:
            depot.put(repository, last, top.media_type, top.data)
        return Placed(
            reference=image.artifact.reference.familiar, name=image.name, digest=top.digest, upstream=image.artifact.root.digest,
            form=form, moved=moved,
        )  # fmt: skip

    # ---- ends --------------------------------------------------------------------------------------------------------

    def stop(self, pool: ThreadPoolExecutor) -> None:
        """Let nothing new begin and what runs end soon."""
        self._depot.cancel()
        pool.shutdown(wait=False, cancel_futures=True)

    def explained(self, cause: FetchError, done: int, images: int) -> FetchError:
        """The failure, with what was done before it and how to go on."""
        again = "run the same command again, it goes on where it stopped"
        with self._lock:
            counts, size = dict(self._counts), self._size
        return FetchError(
            f"{cause.message}\n  done so far: {done} of {images} images; {counts['pushed']} blobs pushed ({size} bytes), "
            f"{counts['mounted']} mounted, {counts['skipped']} were there",
            hint=f"{cause.hint}; then {again}" if cause.hint else again,
        )

    def result(self, placed: Sequence[Placed]) -> Pushed:
        """What was done."""
        return Pushed(registry=self._depot.target.host, size=self._size, images=tuple(placed), **self._counts)


class _Metered:
    """A blob of the bundle as a body that may be sent more than once; the gauge shows what counts."""

    def __init__(self, bundle: Bundle, blob: Blob, gauge: Gauge | None) -> None:
        self._bundle, self._blob, self._gauge = bundle, blob, gauge
        self._sent = 0

    def pieces(self) -> Iterator[bytes]:
        """From the beginning. DigestMismatch in place of the last if the bundle is damaged: the upload never becomes whole."""
        self._advance(-self._sent)
        with self._bundle.open(self._blob.digest) as file:
            for piece in pieces_of(file, PIECE):
                yield piece
                self._advance(len(piece))

    def done(self) -> None:
        """It is there, whichever way."""
        self._advance(self._blob.size - self._sent)

    def _advance(self, size: int) -> None:
        self._sent += size
        if self._gauge and size:
            self._gauge.advance(size)


def _digests(placed: Placed) -> str:
    return f"\n  upstream's digest {placed.upstream}\n  digest there      {placed.digest}"
