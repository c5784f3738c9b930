"""From a manifest to a lock: every version and tag becomes exact bytes, and somebody's word for them.

Files are fetched on the way, because where upstream publishes no checksum only the bytes themselves can be pinned; images are
resolved down to their manifests, whose digests pin the rest. What is in the store already is not fetched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from airgap import upstreams
from airgap.bundle.store import Store
from airgap.document import parse_json
from airgap.errors import FetchError, ResolveError
from airgap.kinds import wants
from airgap.kinds.want import FileWant, ImageWant, Place
from airgap.lock import FileArtifact, ImageArtifact, Lock, Voucher
from airgap.machine.daemon import Daemon
from airgap.machine.run import Run
from airgap.manifest import Manifest
from airgap.oci import INDEXES, Digest, ImageIndex, ImageManifest, Platform, read_digest
from airgap.online import borne, content, saved, shape, wheels
from airgap.online.headers import public
from airgap.online.notes import Notes
from airgap.online.registry import Registry
from airgap.online.together import together
from airgap.online.web import LAST, Fetched, NotThere, Web
from airgap.progress import Progress

TEXT_LIMIT: Final = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """The collaborators of every online verb."""

    web: Web
    registry: Registry
    store: Store
    notes: Notes
    run: Run
    daemon: Daemon
    progress: Progress
    sources: Mapping[str, Sequence[str]]

    def urls(self, place: Place) -> list[str]:
        """The place at each of its source's addresses, in their order."""
        return [base.rstrip("/") + place.path for base in self.sources[place.source]]


def resolve(manifest: Manifest, online: Online, *, serial: int, pinned: Lock | None = None) -> Lock:
    """The lock of this manifest, every file of it in the store, every image down to its manifests.

    `pinned` keeps the Python packages of an earlier lock. Raises ResolveError for what upstream does not have and FetchError
    for what could not be had; the store keeps what came for the next try.
    """
    asked = wants(manifest)
    with together(online.web) as work:
        files = work.begin(partial(fetch_file, want, online) for want in asked if isinstance(want, FileWant))
        images = work.begin(
            partial(resolve_image, want, online) for want in merge([want for want in asked if isinstance(want, ImageWant)])
        )
        packages = wheels.resolve(
            python=manifest.runtime.python, platforms=manifest.platforms, store=online.store, run=online.run,
            pinned=tuple(pinned.of_kind(wheels.KIND)) if pinned else (),
        )  # fmt: skip
    lock = Lock(
        name=manifest.name,
        serial=serial,
        manifest=manifest.to_json(),
        files=(*(item.result() for item in files), *packages),
        images=tuple(item.result() for item in images),
    )
    return Lock.parse(lock.dump(), name="the new lock")


def merge(images: Sequence[ImageWant]) -> list[ImageWant]:
    """One want an image: the same image may be wanted by several kinds, for several platforms."""
    found: dict[str, ImageWant] = {}
    for want in images:
        key = f"{want.reference}{' (daemon)' if want.daemon else ''}"
        other = found.get(key, want)
        found[key] = replace(
            want,
            kinds=tuple(dict.fromkeys((*other.kinds, *want.kinds))),
            platforms=other.platforms | want.platforms,
            strict=other.strict and want.strict,
        )
    return list(found.values())


def fetch_file(want: FileWant, online: Online) -> FileArtifact:
    """The file in the store, checked against upstream's checksum where there is one, and looked at.

    Raises ResolveError with the nearest versions if upstream has no such file.
    """
    failures: list[FetchError | ResolveError] = []
    ways = tuple(_ways(want, online))
    for way in ways:
        try:
            return way()
        except LAST:
            raise
        except (FetchError, ResolveError) as cause:
            failures.append(cause)
        if len(failures) < len(ways) and not isinstance(failures[-1], NotThere):
            online.progress.say("source-failed", f"{failures[-1].message}; trying the next way", name=want.name)
    if failed := next((cause for cause in failures if not isinstance(cause, NotThere)), None):
        raise failed
    raise ResolveError(
        f"{want.title}: no source has it\n  " + "\n  ".join(cause.message for cause in failures),
        hint=_nearest(want, online) or "check the version, and the sources in the manifest",
    )


def _ways(want: FileWant, online: Online) -> Iterator[Callable[[], FileArtifact]]:
    """Every way to this file, best first; upstream's checksums are asked for once, before the first."""

    def published() -> dict[str, tuple[Digest, Voucher]]:
        if not known:
            known.append(_published(want, online))
        return known[0]

    known: list[dict[str, tuple[Digest, Voucher]]] = []
    for place in want.places if want.way != "image" else ():
        yield partial(_from_place, place, want, online, published)
    for other in want.borne if want.way != "file" else ():
        yield partial(borne.fetch, want, other, online.registry, online.store, online.notes)


def _from_place(
    place: Place, want: FileWant, online: Online, published: Callable[[], dict[str, tuple[Digest, Voucher]]]
) -> FileArtifact:
    expected, voucher = published().get(place.filename, (None, None))
    fetched = _fetch(place, want, online, expected=expected)
    try:
        _look(want, online, fetched)
        inner = content.of(fetched.blob, want.form, online.store, online.notes, source=fetched.url)
    except FetchError as cause:
        # What is no such file must not be found in the store next time; a full disk says nothing about the file.
        if not isinstance(cause.__cause__, OSError):
            online.store.path(fetched.blob.digest).unlink(missing_ok=True)
        raise
    if voucher is None:
        voucher = Voucher("first-seen", f"nobody: {fetched.url} was fetched and hashed by us; upstream publishes no checksum")
        online.progress.say(
            "first-seen", f"{want.title}: upstream publishes no checksum; locked as first seen: {fetched.blob.digest}",
            name=want.name, version=want.version, platform=str(want.platform), digest=str(fetched.blob.digest),
        )  # fmt: skip
    return FileArtifact(
        kind=want.kind, name=want.name, version=want.version, platform=want.platform, filename=place.filename,
        url=fetched.url, form=want.form, upstream=fetched.blob, content=inner, voucher=voucher,
    )  # fmt: skip


def _published(want: FileWant, online: Online) -> dict[str, tuple[Digest, Voucher]]:
    """The checksums that upstream publishes, by file name. That one is not there is no failure; that it cannot be had is."""
    found: dict[str, tuple[Digest, Voucher]] = {}
    for place in want.checksums:
        data, url = _document(place, online)
        if not url:
            continue
        default = place.filename.removesuffix(".sha256")
        for name, value in upstreams.parse_checksums(data.decode("utf-8", "replace"), default=default).items():
            found.setdefault(name, (Digest(value), Voucher("published", url)))
        if all(item.filename in found for item in want.places):
            break
    return found


def _document(place: Place, online: Online) -> tuple[bytes, str]:
    """The document and its address; nothing and no address if it is not there."""
    try:
        return online.web.text(online.urls(place), limit=TEXT_LIMIT)
    except NotThere:
        return b"", ""


def _fetch(place: Place, want: FileWant, online: Online, *, expected: Digest | None) -> Fetched:
    """The bytes at this place; those that are in the store by their published digest, or as the same address gave them before."""
    urls = online.urls(place)
    for url in urls:
        if found := _noted(url, online, expected=expected):
            return found
    if expected and online.store.has(expected):
        return online.web.stored(expected, url=urls[0])
    key = expected.hex if expected else "url-" + Digest.of(urls[0].encode()).hex
    fetched = online.web.download(
        urls, key=key, expected=expected, size=None, limit=want.limit, what=want.title,
        expects="elf" if want.shape == "elf" else "gzip",
    )  # fmt: skip
    online.notes.put("url", fetched.url, {"digest": str(fetched.blob.digest), "validator": fetched.validator})
    return fetched


def _noted(url: str, online: Online, *, expected: Digest | None) -> Fetched | None:
    """What this address gave before, if it is in the store and still what the address stands for."""
    note = online.notes.get("url", public(url))
    if note is None or not online.store.has(digest := read_digest(note.get("digest"))):
        return None
    if expected:
        return online.web.stored(digest, url=url) if digest == expected else None
    try:
        same = online.web.head(url).validator == note.get("validator").text() != ""
    except LAST:
        raise
    except FetchError:
        return None  # the download will say what is wrong
    return online.web.stored(digest, url=url) if same else None


def _look(want: FileWant, online: Online, fetched: Fetched) -> None:
    path = online.store.path(fetched.blob.digest)
    if want.shape == "engine":
        shape.check_engine(path, members=want.members, platform=want.platform, source=fetched.url)
    elif want.shape == "elf":
        shape.check_elf(path, platform=want.platform, source=fetched.url)


def _nearest(want: FileWant, online: Online) -> str:
    """A sentence that names the versions closest to the one asked for; empty if upstream's list cannot be had either."""
    if want.listing is None:
        return ""
    try:
        data, url = online.web.text(online.urls(want.listing), limit=TEXT_LIMIT)
        if want.listing.source == "docker_static":
            known = upstreams.engine_versions(data.decode("utf-8", "replace"))
        else:
            tags = [item.get("tag_name").text() for item in parse_json(data, name=url, error=FetchError).items()]
            known = [tag.removeprefix("v") for tag in tags]
    except FetchError:
        return ""
    near = upstreams.nearest(want.version, known)
    return f"nearest there: {', '.join(near)}" if near else ""


def resolve_image(want: ImageWant, online: Online) -> ImageArtifact:
    """The image's root and the manifests of the platforms wanted, in the store; blobs are left for `pack`.

    Raises ResolveError if the tag or a platform that is insisted on does not exist.
    """
    name = want.reference.familiar
    if want.daemon:
        return saved.take(want, online.daemon, online.store)
    try:
        root = online.registry.root(want.reference)
    except NotThere as cause:
        near = upstreams.nearest(want.reference.tag, _tags(want, online)) if want.reference.tag else []
        raise ResolveError(
            f"{name}: {cause.message}",
            hint=f"nearest there: {', '.join(near)}" if near else "check the name, the tag, and whether it needs a login",
        ) from cause
    if root.descriptor.media_type in INDEXES:
        index = ImageIndex.parse(root.data, name=name, error=FetchError)
        chosen = index.choose(want.platforms)
        _complain(want, online, has={item.platform for item in index.manifests if item.platform and not item.attestation_of})
    else:
        platform = _platform(root.data, want, online)
        _complain(want, online, has={platform})
        chosen = (replace(root.descriptor, platform=platform),)
    blobs: dict[Digest, int] = {root.descriptor.digest: root.descriptor.size}
    for item in chosen:
        data = online.registry.manifest(want.reference, item)
        manifest = ImageManifest.parse(data, name=f"{name}@{item.digest}", error=FetchError)
        blobs[item.digest] = item.size
        blobs.update({blob.digest: blob.size for blob in manifest.blobs})
    return ImageArtifact(
        kinds=want.kinds, reference=want.reference, root=root.descriptor, manifests=chosen, size=sum(blobs.values()),
        url=root.url, voucher=_voucher(want, root.url),
    )  # fmt: skip


def _voucher(want: ImageWant, url: str) -> Voucher:
    if want.reference.digest:
        return Voucher("published", "the digest in the manifest")
    host = {"docker.io": "registry-1.docker.io"}.get(want.reference.registry, want.reference.registry)
    if url.startswith(f"https://{host}/"):
        return Voucher("published", f"{host}, which serves this tag")
    return Voucher("first-seen", f"nobody: the tag was resolved by a mirror, {url}")


def _complain(want: ImageWant, online: Online, *, has: set[Platform]) -> None:
    lacks = want.platforms - has
    shown = ", ".join(str(item) for item in sorted(has))
    if lacks and (want.strict or lacks == want.platforms):
        raise ResolveError(
            f"{want.reference.familiar} has no {', '.join(str(item) for item in sorted(lacks))}",
            hint=f"it has {shown}; name the ones you need under `platforms:` of this image",
        )
    if lacks:
        lacking, carried = (", ".join(str(item) for item in sorted(some)) for some in (lacks, has & want.platforms))
        online.progress.say(
            "platform-missing", f"{want.reference.familiar} has no {lacking}; carried for {carried}", reference=str(want.reference)
        )


def _platform(data: bytes, want: ImageWant, online: Online) -> Platform:
    """What a lone manifest runs on: only its config says so."""
    manifest = ImageManifest.parse(data, name=want.reference.familiar, error=FetchError)
    online.registry.blob(want.reference, manifest.config)
    node = parse_json(
        online.store.read(manifest.config.digest, limit=TEXT_LIMIT), name=f"config of {want.reference.familiar}", error=FetchError
    )
    variant = node.find("variant")
    return Platform.of(node.get("os").text(), node.get("architecture").text(), variant.text() if variant else "")


def _tags(want: ImageWant, online: Online) -> list[str]:
    try:
        return online.registry.tags(want.reference)
    except FetchError:
        return []
