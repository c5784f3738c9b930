"""An image as a registry takes it that does not take upstream's own: with fewer children, or in Docker's older types.

Both have other digests than upstream's; whoever uses this says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from airgap.document import Json, dump_json, parse_json
from airgap.errors import FetchError
from airgap.oci import (
    ATTESTATION_TYPE,
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    ImageManifest,
)

DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_LAYERS: Final = {
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def subset(data: bytes, carried: frozenset[Digest], *, name: str) -> bytes:
    """The index with only its carried children, everything else as upstream wrote it. The same index gives the same bytes."""
    node = parse_json(data, name=name, error=FetchError, limit=MANIFEST_LIMIT)
    kept = [item.value for item in node.get("manifests").items() if Descriptor.read(item).digest in carried]
    return dump_json({**node.mapping(), "manifests": kept})


def is_attestation(item: Descriptor) -> bool:
    """Whether it speaks of another manifest, and runs nowhere."""
    return item.annotations.get(ATTESTATION_TYPE) == "attestation-manifest"


def docker_manifest(data: bytes, *, name: str) -> bytes:
    """The manifest in Docker's schema 2: the same config and layers under Docker's names for them; annotations have no place.

    FetchError for what Docker's types cannot say: zstd layers, and artifacts that are no images.
    """
    image = ImageManifest.parse(data, name=name, error=FetchError)
    layers: list[dict[str, Json]] = []
    for item in image.layers:
        if item.media_type not in _LAYERS or image.config.media_type not in (CONFIG, DOCKER_CONFIG):
            raise FetchError(
                f"{name}: the registry refuses OCI's types, and Docker's have none for {item.media_type}",
                hint="use a registry that takes OCI images (distribution 2.7, Harbor 2.0), or an image with gzip layers",
            )
        layers.append(_docker(item, _LAYERS[item.media_type]))
    config = _docker(image.config, DOCKER_CONFIG)
    return dump_json({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": layers})


def docker_list(children: Sequence[tuple[Descriptor, bytes]]) -> bytes:
    """Docker's manifest list of these manifests in Docker's form, each for the platform of its descriptor upstream."""
    rows = []
    for item, data in children:
        made = Descriptor(media_type=DOCKER_MANIFEST, digest=Digest.of(data), size=len(data), platform=item.platform)
        rows.append(made.to_json())
    return dump_json({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": rows})


def _docker(item: Descriptor, media_type: str) -> dict[str, Json]:
    return Descriptor(media_type=media_type, digest=item.digest, size=item.size).to_json()
