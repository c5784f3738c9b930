"""The lock: exactly which bytes a site's manifest means, and who vouched for them.

JSON, written in one canonical way, so that two locks are equal if their bytes are. It carries the manifest it
was made from (as asked, without secrets), because the installing side needs both and the bundle's trust runs
through this one document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast

from airgap.document import Json, Node, dump_json, parse_json
from airgap.errors import LockError
from airgap.oci import Descriptor, Digest, Platform, Reference, read_digest, read_platform, read_reference

VERSION: Final = 1
MEDIA_TYPE: Final = "application/vnd.airgap.lock.v1+json"

How = Literal["signed", "published", "first-seen"]
Form = Literal["tgz", "file", "as-is"]
"""How content comes from the fetched bytes: a tgz's tar, or the file itself (both compressed anew), or carried as fetched."""


def _word(node: Node) -> str:
    """Text that becomes part of file names on the host: nothing that could lead out of a folder."""
    text = node.text()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~!-]{0,199}", text):
        node.fail(f"{text[:80]!r} is not a plain word")
    return text


@dataclass(frozen=True, slots=True)
class Blob:
    """Some bytes, by digest and size."""

    digest: Digest
    size: int

    def to_json(self) -> dict[str, Json]:
        """As the lock writes it."""
        return {"digest": str(self.digest), "size": self.size}

    @classmethod
    def read(cls, node: Node) -> Blob:
        """From the lock."""
        blob = cls(read_digest(node.get("digest")), node.get("size").integer())
        node.done()
        return blob


@dataclass(frozen=True, slots=True)
class Voucher:
    """Who says that these are the right bytes: `signed` and `published` by upstream, or `first-seen` by nobody but us."""

    how: How
    by: str

    def to_json(self) -> dict[str, Json]:
        """As the lock writes it."""
        return {"how": self.how, "by": self.by}

    @classmethod
    def read(cls, node: Node) -> Voucher:
        """From the lock."""
        how = node.get("how").text()
        if how not in ("signed", "published", "first-seen"):
            node.get("how").fail(f"{how!r} is not one of signed, published, first-seen")
        voucher = cls(cast(How, how), node.get("by").text())
        node.done()
        return voucher


@dataclass(frozen=True, slots=True, kw_only=True)
class FileArtifact:
    """A file from an upstream: the bytes as served, and their content (a tgz's tar, or the file itself)."""

    kind: str
    name: str
    version: str
    platform: Platform | None
    filename: str
    url: str
    form: Form
    upstream: Blob
    content: Blob
    voucher: Voucher

    def to_json(self) -> dict[str, Json]:
        """As the lock writes it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            **({"platform": str(self.platform)} if self.platform else {}),
            "filename": self.filename,
            "url": self.url,
            "form": self.form,
            "upstream": self.upstream.to_json(),
            "content": self.content.to_json(),
            "voucher": self.voucher.to_json(),
        }

    @classmethod
    def read(cls, node: Node) -> FileArtifact:
        """From the lock."""
        form = node.get("form").text()
        if form not in ("tgz", "file", "as-is"):
            node.get("form").fail(f"{form!r} is not one of tgz, file, as-is")
        filename = node.get("filename").text()
        if "/" in filename or filename in ("", ".", ".."):
            node.get("filename").fail(f"{filename!r} is not a plain file name")
        place = node.find("platform")
        artifact = cls(
            kind=_word(node.get("kind")),
            name=_word(node.get("name")),
            version=_word(node.get("version")),
            platform=read_platform(place) if place else None,
            filename=filename,
            url=node.get("url").text(),
            form=cast(Form, form),
            upstream=Blob.read(node.get("upstream")),
            content=Blob.read(node.get("content")),
            voucher=Voucher.read(node.get("voucher")),
        )
        node.done()
        return artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageArtifact:
    """An image: upstream's root (an index, or a lone manifest) and the manifests chosen below it.

    `kinds` says what the site wants it for (a builder's image is loaded into the engine, a base image is served
    by the registry); `manifests` holds one descriptor a platform, attestations included, each with its platform.
    `size` is the sum in bytes of every blob the bundle carries for it, root and manifests included.
    """

    kinds: tuple[str, ...]
    reference: Reference
    root: Descriptor
    manifests: tuple[Descriptor, ...]
    size: int
    url: str
    voucher: Voucher

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms it can run on, sorted."""
        return tuple(sorted(m.platform for m in self.manifests if m.platform and not m.attestation_of))

    def to_json(self) -> dict[str, Json]:
        """As the lock writes it."""
        return {
            "kinds": list(self.kinds),
            "reference": str(self.reference),
            "root": self.root.to_json(),
            "manifests": [item.to_json() for item in self.manifests],
            "size": self.size,
            "url": self.url,
            "voucher": self.voucher.to_json(),
        }

    @classmethod
    def read(cls, node: Node) -> ImageArtifact:
        """From the lock."""
        artifact = cls(
            kinds=node.get("kinds").texts(),
            reference=read_reference(node.get("reference")),
            root=Descriptor.read(node.get("root")),
            manifests=tuple(Descriptor.read(item) for item in node.get("manifests").items()),
            size=node.get("size").integer(),
            url=node.get("url").text(),
            voucher=Voucher.read(node.get("voucher")),
        )
        node.done()
        return artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Everything one bundle holds. `serial` rises with every lock of a site; `manifest` is what was asked."""

    name: str
    serial: int
    manifest: dict[str, Json]
    files: tuple[FileArtifact, ...]
    images: tuple[ImageArtifact, ...]

    def of_kind(self, kind: str) -> Iterator[FileArtifact]:
        """The files of one kind, in the lock's order."""
        return (item for item in self.files if item.kind == kind)

    def image(self, reference: Reference) -> ImageArtifact | None:
        """The image locked for this reference, if any."""
        return next((item for item in self.images if item.reference == reference), None)

    def dump(self) -> bytes:
        """The canonical bytes of this lock: the same lock gives the same bytes, whoever made it and in what order."""
        files = sorted(self.files, key=lambda f: (f.kind, f.name, f.version, str(f.platform or ""), f.filename))
        images = sorted(self.images, key=lambda i: str(i.reference))
        return dump_json(
            {
                "airgap-lock": VERSION,
                "name": self.name,
                "serial": self.serial,
                "manifest": self.manifest,
                "files": [item.to_json() for item in files],
                "images": [item.to_json() for item in images],
            }
        )

    @classmethod
    def parse(cls, data: bytes, *, name: str) -> Lock:
        """From the bytes of a lock; LockError if anything in it is not as this version writes it."""
        node = parse_json(data, name=name, error=LockError)
        version = node.get("airgap-lock").integer()
        if version != VERSION:
            node.fail(
                f"is a lock of format {version}; this airgap reads format {VERSION}",
                hint="use the airgap that made it, or a newer one",
            )
        lock = cls(
            name=_word(node.get("name")),
            serial=node.get("serial").integer(least=1),
            manifest=node.get("manifest").mapping(),
            files=tuple(FileArtifact.read(item) for item in node.get("files").items()),
            images=tuple(ImageArtifact.read(item) for item in node.get("images").items()),
        )
        node.done()
        lock._agree(node)
        return lock

    def _agree(self, node: Node) -> None:
        """One digest has one size, wherever it stands: else a size could be checked here and another believed there."""
        blobs = [blob for item in self.files for blob in (item.upstream, item.content)]
        blobs += [Blob(one.digest, one.size) for item in self.images for one in (item.root, *item.manifests)]
        sizes = {blob.digest: blob.size for blob in blobs}
        for found in blobs:
            if sizes[found.digest] != found.size:
                node.fail(f"{found.digest} has two sizes: {found.size} and {sizes[found.digest]}")
