"""Out of an image: one file of its layers, or one archive that any engine loads. Streamed; nothing is copied to disk."""

from __future__ import annotations

import io
import json
from typing import IO, TYPE_CHECKING, Final, Protocol, cast

from airgap.bundle import frames
from airgap.bundle.layer import Entry, Layer, normal
from airgap.bundle.store import LAYOUT
from airgap.bundle.streams import ahead, gunzip, pieces_of
from airgap.bundle.ustar import END, header, padding
from airgap.document import dump_json
from airgap.errors import BundleError
from airgap.oci import CONTAINERD_NAME, INDEX, MANIFEST_LIMIT, REF_NAME, Descriptor, Digest, ImageManifest, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

MOST_LINKS: Final = 40
"""As many as the kernel follows."""

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"


class Blobs(Protocol):
    """Where an image's blobs come from. What `open` gives is verified: DigestMismatch in place of the last bytes of wrong
    ones."""

    def open(self, digest: Digest) -> IO[bytes]:
        """A blob."""

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A small blob."""


# ---- one file --------------------------------------------------------------------------------------------------------


Onward = tuple[str, int]
"""A link leads on: to this path, to be looked for from this layer down."""


def image_file(open_blob: Callable[[Digest], IO[bytes]], manifest: ImageManifest, path: str) -> Iterator[bytes]:
    """The bytes of the file at `path` as a container of this image would see it: the topmost layer wins, whiteouts hide,
    links inside the image are followed.

    BundleError if there is no such file. A layer is read to its end even after the file was found, because only then
    `open_blob` can tell that it is damaged: what the consumer makes of the pieces must not be used before the iterator is
    exhausted.
    """
    target, top = normal(path), len(manifest.layers) - 1
    for _ in range(MOST_LINKS):
        onward = yield from _search(open_blob, manifest, target, top)
        if onward is None:
            return
        target, top = onward
    raise BundleError(f"{path}: more than {MOST_LINKS} links lead on from it in the image")


def _search(
    open_blob: Callable[[Digest], IO[bytes]], manifest: ImageManifest, target: str, top: int
) -> Generator[bytes, None, Onward | None]:
    for number in range(top, -1, -1):
        descriptor = manifest.layers[number]
        with open_blob(descriptor.digest) as file:
            layer = Layer(ahead(_expanded(file, descriptor)), name=f"layer {descriptor.digest}")
            hidden = found = False
            onward: Onward | None = None
            for entry in layer.entries():
                if entry.path == target and entry.kind in "0\0" + "7":
                    if found:
                        raise BundleError(f"layer {descriptor.digest}: has {target} twice")
                    found = True
                    yield from layer.data()
                elif not found:
                    onward = onward or _leads(entry, target, number, len(manifest.layers) - 1)
                    hidden = hidden or _hides(entry, target)
            layer.drain()
        if found or onward:
            return None if found else onward
        if hidden:
            break
    raise BundleError(f"the image has no file {target}")


def _leads(entry: Entry, target: str, number: int, top: int) -> Onward | None:
    """Where a link at the target, or at a folder above it, sends the search."""
    if entry.path != target and not target.startswith(entry.path + "/"):
        return None
    if entry.kind == "1" and entry.path == target:
        # A hard link is the file that this very layer, or one below, has there; layers above do not change it.
        return normal(entry.link), number
    if entry.kind == "2":
        base = "" if entry.link.startswith("/") else entry.path.rpartition("/")[0]
        return normal(f"{base}/{entry.link}/{target[len(entry.path) :]}"), top
    return None


def _hides(entry: Entry, target: str) -> bool:
    """Whether layers below no longer count for the target."""
    folder, _, name = entry.path.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    if name == OPAQUE:
        return target.startswith(prefix)
    if name.startswith(WHITEOUT):
        gone = prefix + name.removeprefix(WHITEOUT)
        return target == gone or target.startswith(gone + "/")
    # Anything in the place of the target, and anything but a folder in the place of a folder above it.
    return target == entry.path or (entry.kind != "5" and target.startswith(entry.path + "/"))


def _expanded(file: IO[bytes], descriptor: Descriptor) -> Iterator[bytes]:
    """The layer's tar, whatever it is compressed with: told by its first bytes, because media types are not always right.

    OCI declares no size for it, so a bound is set: a hundred times the blob, or 1 GiB, which no layer of programs comes near.
    """
    name = f"layer {descriptor.digest}"
    source = io.BufferedReader(cast("io.RawIOBase", file))
    try:
        head = source.peek(4)[:4]
        if head[:2] == b"\x1f\x8b":
            pieces = gunzip(pieces_of(source), name=name, error=BundleError)
        elif head == b"\x28\xb5\x2f\xfd":
            pieces = frames.expand(source, name=name, error=BundleError)
        else:
            pieces = pieces_of(source)
        left = max(1 << 30, 100 * descriptor.size)
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                raise BundleError(f"{name}: unpacks to more than a hundred times its size")
            yield piece
        for _ in pieces_of(source):  # what is behind the compressed data counts for the digest, too
            pass
    finally:
        # The file is its opener's to close; left attached, it would go with `source`.
        source.detach()


# ---- one archive -----------------------------------------------------------------------------------------------------


def docker_archive(contents: Blobs, manifest: Descriptor, *, reference: Reference) -> Iterator[bytes]:
    """A tar that `docker load` takes into either image store: an OCI layout of this one manifest, and manifest.json beside it.

    That is what `docker save` writes since 25.0 (upstream.md 5.2). Blobs as they are stored: gzip layers go everywhere, zstd
    layers need an engine of 23 or newer. What names the image comes last, and every blob is verified while it streams:
    DigestMismatch ends the archive before the last piece of a wrong blob, so that the engine never sees a whole archive with
    a wrong byte in it.
    """
    data = contents.read(manifest.digest, limit=MANIFEST_LIMIT)
    image = ImageManifest.parse(data, name=f"{reference.familiar}: {manifest.digest}", error=BundleError)
    name = str(Reference(reference.registry, reference.repository, reference.tag, None)) if reference.tag else ""
    familiar = Reference(reference.registry, reference.repository, reference.tag, None).familiar
    described = Descriptor(
        media_type=manifest.media_type, digest=manifest.digest, size=len(data), platform=manifest.platform,
        annotations={CONTAINERD_NAME: name, REF_NAME: reference.tag} if name else {},
    )  # fmt: skip
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described.to_json()]}
    listing = [
        {
            "Config": _blob_path(image.config.digest),
            "RepoTags": [familiar] if name else [],
            "Layers": [_blob_path(layer.digest) for layer in image.layers],
        }
    ]
    yield _member("oci-layout", LAYOUT)
    yield _member(_blob_path(manifest.digest), data)
    for blob in image.blobs:
        yield header(_blob_path(blob.digest), blob.size)
        yield from ahead(_exactly(contents, blob))
        yield bytes(padding(blob.size))
    yield _member("index.json", dump_json(index))
    yield _member("manifest.json", json.dumps(listing).encode())
    yield END


def _exactly(contents: Blobs, blob: Descriptor) -> Iterator[bytes]:
    """The blob, which must have the size that the tar's header has just promised."""
    left = blob.size
    with contents.open(blob.digest) as file:
        for piece in pieces_of(file):
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise BundleError(f"{blob.digest}: has not the {blob.size} bytes that its manifest says")


def _blob_path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _member(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + bytes(padding(len(data)))
