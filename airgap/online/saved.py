"""Images that no registry has: taken from the local engine by `docker save` and given OCI's form.

Engines write two forms: since 25 an OCI layout with a manifest.json beside it, before that layers as
`<id>/layer.tar`. Only manifest.json is read, which both have, so that the result is the same: one manifest, the config as it
is (the image ID on classic stores is its digest), the layers uncompressed as the engine keeps them.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO

from airgap.bundle.store import PIECE, Store
from airgap.document import dump_json, parse_json
from airgap.errors import FetchError, ResolveError
from airgap.kinds.want import ImageWant
from airgap.lock import Blob, ImageArtifact, Voucher
from airgap.machine.daemon import Daemon
from airgap.oci import CONFIG, MANIFEST, Descriptor, Digest, Platform
from airgap.online.download import disk
from airgap.online.stream import Stream

LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def take(want: ImageWant, daemon: Daemon, store: Store) -> ImageArtifact:
    """The image in the store. Raises ResolveError if the engine does not have it or has it for another platform."""
    name = str(want.reference.familiar)
    if daemon.image(str(want.reference)) is None:
        raise ResolveError(
            f"{name}: the local engine has no such image", hint=f"docker pull or build it first; `docker image ls {name}`"
        )
    try:
        members, listing = _members(daemon.save(str(want.reference)), store, name=name)
    except (tarfile.TarError, EOFError) as cause:
        raise FetchError(f"{name}: what the engine saved is no whole archive ({cause})") from cause
    except OSError as cause:
        raise disk(cause, name, None) from cause
    first = next(parse_json(listing, name=f"{name}: manifest.json", error=FetchError).items(), None)
    if first is None:
        raise FetchError(f"{name}: what the engine saved lists no image")
    paths = (first.get("Config").text(), *first.get("Layers").texts())
    if lacking := [path for path in paths if path not in members]:
        first.fail(f"names {lacking[0]!r}, which the archive lacks")
    config, *layers = (members[path] for path in paths)
    facts = parse_json(store.read(config.digest, limit=8 << 20), name=f"{name}: config", error=FetchError)
    variant = facts.find("variant")
    platform = Platform.of(facts.get("os").text(), facts.get("architecture").text(), variant.text() if variant else "")
    if platform not in want.platforms:
        raise ResolveError(
            f"{name}: the local engine has it for {platform}, but {', '.join(map(str, sorted(want.platforms)))} was asked for",
            hint="name the platform under `platforms:` of this image",
        )
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(media_type=CONFIG, digest=config.digest, size=config.size).to_json(),
        "layers": [
            Descriptor(media_type=_layer_type(item, store), digest=item.digest, size=item.size).to_json() for item in layers
        ],
    }
    data = dump_json(document)
    root = Descriptor(media_type=MANIFEST, digest=store.add(data), size=len(data), platform=platform)
    blobs = {item.digest: item.size for item in (config, *layers)}
    return ImageArtifact(
        kinds=want.kinds, reference=want.reference, root=root, manifests=(root,), size=len(data) + sum(blobs.values()),
        url=f"docker-daemon:{want.reference}", voucher=Voucher("first-seen", "the engine of the machine that packed"),
    )  # fmt: skip


def _members(saved: Iterator[bytes], store: Store, *, name: str) -> tuple[dict[str, Blob], bytes]:
    """The archive's files in the store, by path, and the bytes of its manifest.json.

    A layer that an engine before 25 has written before is a symbolic link to it.
    """
    members: dict[str, Blob] = {}
    links: dict[str, str] = {}
    listing = b"null"
    with tarfile.open(fileobj=Stream(saved), mode="r|") as tar:
        for member in tar:
            path = posixpath.normpath(member.name)
            if member.issym() or member.islnk():
                folder = posixpath.dirname(path) if member.issym() else ""
                links[path] = posixpath.normpath(posixpath.join(folder, member.linkname))
            elif file := tar.extractfile(member) if member.isreg() else None:
                data = file.read() if path == "manifest.json" and member.size < PIECE else None
                listing = data or listing
                members[path] = _keep(data, file, store, key=f"saved-{Digest.of(f'{name} {path}'.encode()).hex}")
    members.update({path: members[target] for path, target in links.items() if target in members})
    return members, listing


def _keep(data: bytes | None, file: IO[bytes], store: Store, *, key: str) -> Blob:
    if data is not None:
        return Blob(store.add(data), len(data))
    with store.intake(key) as intake:
        intake.restart()
        while piece := file.read(PIECE):
            intake.write(piece)
        return store.commit(intake, source=key)


def _layer_type(blob: Blob, store: Store) -> str:
    with store.path(blob.digest).open("rb") as file:
        return LAYER_GZIP if file.read(2) == b"\x1f\x8b" else LAYER_TAR


