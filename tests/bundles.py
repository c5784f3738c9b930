"""Small real bundles: an engine that is a few bytes of ELF, a plugin, images with one layer; written as `pack` writes them."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from airgap import upstreams
from airgap.bundle import archive, frames
from airgap.bundle.layout import Carried, Index
from airgap.bundle.store import Store
from airgap.document import dump_json
from airgap.lock import MEDIA_TYPE, Blob, FileArtifact, ImageArtifact, Lock, Voucher
from airgap.manifest import Manifest
from airgap.oci import CONFIG, INDEX, MANIFEST, Descriptor, Digest, Reference
from tests.fakes import AMD64, program

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

SITE = """\
airgap: 1
name: farm
platforms: [linux/amd64]
engine: {version: "28.5.2", daemon: {insecure-registries: [depot.site:5000]}}
plugins: {buildx: "0.29.1"}
emulation: {image: "tonistiigi/binfmt:qemu-v10.0.4", platforms: [linux/arm64]}
images: ["alpine:3.22"]
builders:
  - {name: mybuilder, image: "moby/buildkit:v0.25.1", use: true, platforms: [linux/amd64, linux/arm64]}
"""
KEPT = SITE.replace('{version: "28.5.2", ', "{keep: true, ")


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar with these files, the same bytes every time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            made.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class Packer:
    """Makes locks and bundles out of a store below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")

    def file(self, kind: str, name: str, version: str, data: bytes, *, filename: str) -> tuple[FileArtifact, Carried]:
        """A locked file and how it is carried; a tgz if its name says so."""
        gzipped = filename.endswith(".tgz")
        raw = gzip.compress(data, mtime=0) if gzipped else data
        upstream = self.store.add(raw)
        packed = frames.compress(self.store.path(upstream), self.store, gzipped=gzipped, name=filename)
        artifact = FileArtifact(
            kind=kind, name=name, version=version, platform=AMD64, filename=filename, url=f"https://up.site/{filename}",
            form="tgz" if gzipped else "file", upstream=Blob(upstream, len(raw)), content=packed.content,
            voucher=Voucher("first-seen", "the test"),
        )  # fmt: skip
        return artifact, Carried(artifact, packed.blob, packed.frames)

    def engine(self, version: str) -> tuple[FileArtifact, Carried]:
        required, optional = upstreams.engine_members(version)
        files = {f"docker/{name}": program(f"{name} version={version}") for name in (*required, *optional)}
        return self.file("engine", "docker", version, tar(files), filename=f"docker-{version}.tgz")

    def image(self, reference: str, files: Mapping[str, bytes], *, kinds: Sequence[str]) -> ImageArtifact:
        """An image of one platform and one layer."""
        store = self.store
        inner = tar(files)
        layer = gzip.compress(inner, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(inner))]},
                "of": reference,
            }
        ).encode()
        manifest = dump_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": Descriptor(media_type=CONFIG, digest=store.add(config), size=len(config)).to_json(),
                "layers": [Descriptor(media_type=LAYER, digest=store.add(layer), size=len(layer)).to_json()],
            }
        )
        child = Descriptor(media_type=MANIFEST, digest=store.add(manifest), size=len(manifest), platform=AMD64)
        root = dump_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child.to_json()]})
        return ImageArtifact(
            kinds=tuple(kinds), reference=Reference.parse(reference),
            root=Descriptor(media_type=INDEX, digest=store.add(root), size=len(root)), manifests=(child,),
            size=len(root) + len(manifest) + len(config) + len(layer), url="https://up.site/v2/",
            voucher=Voucher("published", "the test"),
        )  # fmt: skip

    def bundle(self, yaml: str = SITE, *, serial: int = 1, flavour: str = "") -> Path:
        """The bundle of this manifest. Another `flavour` gives images other bytes."""
        manifest = Manifest.parse(yaml.encode(), name="site.yaml")
        made = [self.engine(manifest.engine.version)] if manifest.engine and manifest.engine.version else []
        made += [
            self.file(
                "plugin", name, version, program(f"{name} {version}"), filename=upstreams.asset(name, version, AMD64).filename
            )
            for name, version in manifest.plugins.items()
        ]  # fmt: skip
        images = {str(item.reference): ({"etc/name": f"{item.reference}{flavour}".encode()}, "image") for item in manifest.images}
        for item in manifest.builders:
            images[str(item.image)] = ({"bin/buildkitd": program(f"buildkitd{flavour}")}, "builder")
        if manifest.emulation:
            images[str(manifest.emulation.image)] = ({"usr/bin/qemu-aarch64": program(f"qemu{flavour}")}, "emulation")
        if manifest.registry:
            images[str(manifest.registry.image)] = ({"bin/registry": program(f"registry{flavour}")}, "registry")
        lock = Lock(
            name=manifest.name, serial=serial, manifest=manifest.to_json(), files=tuple(item for item, _ in made),
            images=tuple(self.image(name, files, kinds=(kind,)) for name, (files, kind) in images.items()),
        )  # fmt: skip
        return self._write(lock, [carried for _, carried in made])

    def _write(self, lock: Lock, carried: list[Carried]) -> Path:
        data = lock.dump()
        members = {"install.sh": b"#!/bin/sh\n", "README.txt": b"read me\n"}
        descriptor = Descriptor(media_type=MEDIA_TYPE, digest=self.store.add(data), size=len(data))
        index = Index.build(lock, carried, members=members, lock_blob=descriptor)
        blobs = {item.blob.digest: item.blob.size for item in carried}
        for image in lock.images:
            for item in (image.root, *image.manifests):
                blobs[item.digest] = item.size
            for child in image.manifests:
                for blob in _blobs(self.store.read(child.digest, limit=1 << 20)):
                    blobs[blob.digest] = blob.size
        path = self.folder / f"airgap-{lock.name}-{lock.serial}.tar"
        archive.write_bundle(path, index=index, members=members, lock=data, blobs=blobs, store=self.store)
        return path


def _blobs(data: bytes) -> list[Blob]:
    row = json.loads(data)
    return [Blob(Digest.parse(item["digest"]), item["size"]) for item in (row["config"], *row["layers"])]
