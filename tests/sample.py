"""A small bundle with everything in it, made by the real writer: what the tests of the bundle start from."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airgap.bundle import frames
from airgap.bundle.archive import write_bundle
from airgap.bundle.layout import Carried, Index
from airgap.bundle.readme import readme
from airgap.bundle.store import Store
from airgap.errors import BundleError
from airgap.lock import MEDIA_TYPE, Blob, FileArtifact, ImageArtifact, Lock, Voucher
from airgap.oci import CONFIG, INDEX, MANIFEST, Descriptor, Digest, ImageManifest, Platform, Reference

if TYPE_CHECKING:
    from pathlib import Path

AMD64, ARM64 = Platform.of("linux", "amd64"), Platform.of("linux", "arm64")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = "docker.io/library/tiny:1"


def tar(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    """A tar of these files, or of any TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o755
                made.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def descriptor(store: Store, data: bytes, media_type: str, platform: Platform | None = None) -> Descriptor:
    return Descriptor(media_type=media_type, digest=store.add(data), size=len(data), platform=platform)


def one_platform(store: Store, platform: Platform, *layers: bytes, media_type: str = LAYER) -> Descriptor:
    """A manifest in the store, with its config and these layers."""
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(gzip.decompress(x) if x[:2] == b"\x1f\x8b" else x)) for x in layers]}
    config = json.dumps({"os": platform.os, "architecture": platform.architecture, "config": {}, "rootfs": rootfs}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(store, config, CONFIG).to_json(),
        "layers": [descriptor(store, layer, media_type).to_json() for layer in layers],
    }
    return descriptor(store, json.dumps(document).encode(), MANIFEST, platform)


def image(store: Store, name: str = NAME, *, text: bytes = b"hello\n") -> ImageArtifact:
    """A two-platform image whose platforms share a layer."""
    shared = gzip.compress(tar(("etc/motd", text)), mtime=0)
    children = tuple(
        one_platform(store, platform, shared, gzip.compress(tar(("bin/tool", str(platform).encode() * 99)), mtime=0))
        for platform in (AMD64, ARM64)
    )
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [item.to_json() for item in children]}
    root = descriptor(store, json.dumps(index).encode(), INDEX)
    return ImageArtifact(
        kinds=("image",), reference=Reference.parse(name), root=root, manifests=children, size=root.size,
        url="https://registry.test/v2/", voucher=Voucher("published", "registry.test"),
    )  # fmt: skip


def file(store: Store, name: str, data: bytes, *, form: str = "file", platform: Platform | None = AMD64) -> Carried:
    """A file in the store as a bundle carries it."""
    digest = store.add(data)
    blob = Blob(digest, len(data))
    packed = None if form == "as-is" else frames.compress(store.path(digest), store, gzipped=form == "tgz", name=name)
    artifact = FileArtifact(
        kind="plugin", name=name, version="1.0", platform=platform, filename=f"{name}.bin", url=f"https://upstream.test/{name}",
        form=form, upstream=blob, content=packed.content if packed else blob, voucher=Voucher("first-seen", "nobody"),
    )  # fmt: skip
    return Carried(artifact, packed.blob, packed.frames) if packed else Carried(artifact, blob, ())


@dataclass(frozen=True)
class Ingredients:
    """All that write_bundle takes."""

    store: Store
    index: Index
    members: dict[str, bytes]
    lock: bytes
    blobs: dict[Digest, int]

    def write(self, path: Path, **more: object) -> Path:
        write_bundle(path, index=self.index, members=self.members, lock=self.lock, blobs=self.blobs, store=self.store, **more)
        return path


def ingredients(folder: Path, *, serial: int = 7, files: dict[str, bytes] | None = None, images: int = 1) -> Ingredients:
    store = Store(folder / "store")
    files = {"tool": b"\x7fELF tool " * 500, "other": b"\x7fELF other" * 300} if files is None else files
    carried = [file(store, name, data) for name, data in files.items()]
    carried.append(file(store, "engine", gzip.compress(tar(("docker/dockerd", b"\x7fELF" * 99)), mtime=0), form="tgz"))
    carried.append(file(store, "wheel", b"PK wheel", form="as-is", platform=None))
    pictures = tuple(image(store, f"docker.io/library/tiny:{n + 1}", text=b"%d\n" % n) for n in range(images))
    artifacts = tuple(item.artifact for item in carried)
    lock = Lock(name="site", serial=serial, manifest={"airgap": 1}, files=artifacts, images=pictures)
    data = lock.dump()
    lock_blob = Descriptor(media_type=MEDIA_TYPE, digest=store.add(data), size=len(data))
    members = {"install.sh": b"#!/bin/sh\necho hello\n", "README.txt": readme(lock).encode()}
    index = Index.build(lock, carried, members=members, lock_blob=lock_blob)
    blobs = {item.blob.digest: item.blob.size for item in carried}
    for picture in pictures:
        blobs[picture.root.digest] = picture.root.size
        for child in picture.manifests:
            blobs[child.digest] = child.size
            parsed = ImageManifest.parse(store.read(child.digest, limit=1 << 20), name="x", error=BundleError)
            blobs.update({blob.digest: blob.size for blob in parsed.blobs})
    return Ingredients(store, index, members, data, blobs)
