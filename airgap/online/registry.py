"""A registry, read only: tags to digests, manifests and blobs into the store, upstream's bytes untouched.

Speaks the distribution API to Docker Hub, distribution, Harbor and mirrors of them. A registry's name stands for one or more
addresses, tried in order; the digest decides, whoever answered. Nothing a registry says of itself is believed: digests are
computed here, from what came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from airgap.document import parse_json
from airgap.errors import DigestMismatch, FetchError, ManifestError
from airgap.machine.run import printable
from airgap.oci import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    INDEXES,
    MANIFEST,
    MANIFEST_LIMIT,
    MANIFESTS,
    Descriptor,
    Digest,
    Reference,
)
from airgap.online.answers import quoted
from airgap.online.credentials import Credentials, Login
from airgap.online.headers import next_link, origin
from airgap.online.tokens import Keys
from airgap.online.web import LAST, Failure, Fetched, NotThere, Page, Web, gathered
from airgap.progress import Gauge

T = TypeVar("T")

# All four, always: a registry that is not told of a type says that there is nothing, or converts and so changes the digest.
ACCEPT: Final = {"Accept": f"{INDEX}, {MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"}
SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
HUB: Final = "https://registry-1.docker.io"
TAGS_PAGE: Final = 8 << 20
MOST_PAGES: Final = 50
LOW: Final = 10
"""Pulls left at which the user is told; by default Docker Hub gives 100 in six hours."""


@dataclass(frozen=True, slots=True)
class Root:
    """What a reference means now: the descriptor, the exact bytes of its index or manifest, and the address they are from."""

    descriptor: Descriptor
    data: bytes
    url: str


@dataclass(frozen=True, slots=True)
class _Base:
    """One address of a registry: scheme and host, and what mirrors put before the repository (`m.daocloud.io/docker.io`)."""

    root: str
    prefix: str

    def url(self, repository: str, what: str) -> str:
        return f"{self.root}/v2/{self.prefix}{repository}/{what}"

    @property
    def host(self) -> str:
        return urlsplit(self.root).netloc


class Registry:
    """Reads images into the store of `web`. `hosts` gives a registry's addresses; others are at https:// and their name."""

    def __init__(self, *, web: Web, credentials: Credentials, hosts: Mapping[str, Sequence[str]]) -> None:
        self._web, self._store, self._progress = web, web.store, web.progress
        logins: dict[tuple[str, str, int | None], Login] = {}
        self._bases = {name: [_base(url, logins) for url in urls] for name, urls in hosts.items() if urls}
        self._keys = Keys(web=web, credentials=credentials, logins=logins)
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def root(self, reference: Reference) -> Root:
        """What the reference means now, in the store, its digest computed by us.

        Raises NotThere if there is no such repository or tag, DigestMismatch if the registry contradicts itself or the
        reference's digest, FetchError otherwise.
        """
        if reference.digest:
            # A tag beside a digest is for people.
            base = self._at(reference)[0]
            url = base.url(reference.repository, f"manifests/{reference.digest}")
            if self._store.has(reference.digest):
                return _root(self._store.read(reference.digest, limit=MANIFEST_LIMIT), "", url, reference)
        return self._each(reference, lambda base: self._look_up(reference, base))

    def _look_up(self, reference: Reference, base: _Base) -> Root:
        url = base.url(reference.repository, f"manifests/{reference.digest or reference.tag}")
        if not reference.digest and (known := self._known(url)):
            return _root(known, "", url, reference)
        page = self._manifest(url, base)
        digest = Digest.of(page.data)
        claimed = page.headers.get("Docker-Content-Digest", "")
        for said, who in ((str(reference.digest or ""), "asked for"), (claimed, "claimed by the registry")):
            if said.startswith("sha256:") and said != str(digest):
                raise DigestMismatch(
                    f"{url}: not the bytes that were promised"
                    f"\n  {who} {printable(said, limit=80)}\n  got {digest}, {len(page.data)} bytes",
                    hint="look for a proxy or mirror that changes manifests; try another source of this registry",
                )
        root = _root(page.data, page.headers.get("Content-Type", ""), url, reference)
        self._store.add(page.data)
        return root

    def _known(self, url: str) -> bytes | None:
        """The stored bytes that the tag still means. A HEAD is free at Docker Hub; the GET of a manifest counts as a pull."""
        try:
            page = self._web.head(url, headers=ACCEPT, door=self._keys, retries=0)
            digest = Digest.parse(page.headers.get("Docker-Content-Digest", ""))
        except LAST:
            raise
        except (FetchError, ValueError):
            return None  # the GET will say what is wrong
        return self._store.read(digest, limit=MANIFEST_LIMIT) if self._store.has(digest) else None

    def manifest(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """The exact bytes of this manifest or index, which are in the store afterwards. Raises as `root`."""
        if self._store.has(descriptor.digest):
            return self._store.read(descriptor.digest, limit=MANIFEST_LIMIT)

        def fetch(base: _Base) -> bytes:
            url = base.url(reference.repository, f"manifests/{descriptor.digest}")
            data = self._manifest(url, base).data
            if Digest.of(data) != descriptor.digest or len(data) != descriptor.size:
                raise DigestMismatch(
                    f"{url}: not the bytes that were promised\n  expected {descriptor.digest}, {descriptor.size} bytes"
                    f"\n  got      {Digest.of(data)}, {len(data)} bytes",
                    hint="look for a proxy or mirror that changes manifests; try another source of this registry",
                )
            self._store.add(data)
            return data

        return self._each(reference, fetch)

    def blob(self, reference: Reference, descriptor: Descriptor, *, gauge: Gauge | None = None) -> None:
        """Afterwards the blob is in the store. Raises as `root`."""
        if self._store.has(descriptor.digest):
            if gauge:
                gauge.advance(descriptor.size)
            return

        def fetch(base: _Base) -> Fetched:
            return self._web.download(
                [base.url(reference.repository, f"blobs/{descriptor.digest}")],
                key=descriptor.digest.hex,
                expected=descriptor.digest,
                size=descriptor.size,
                limit=descriptor.size,
                what=f"{reference.familiar}, {str(descriptor.digest)[:19]}",
                gauge=gauge,
                door=self._keys,
            )

        self._each(reference, fetch)

    def tags(self, reference: Reference) -> list[str]:
        """The repository's tags, in the registry's order, at most some fifty pages of them. Raises NotThere or FetchError."""
        return self._each(reference, lambda base: list(self._tags(reference, base)))

    def _tags(self, reference: Reference, base: _Base) -> Iterator[str]:
        url = base.url(reference.repository, "tags/list?n=1000")
        for _ in range(MOST_PAGES):
            page = self._web.get(url, limit=TAGS_PAGE, door=self._keys)
            listed = parse_json(page.data, name=page.url, error=FetchError, limit=TAGS_PAGE).find("tags")
            yield from listed.texts() if listed else ()
            following = next_link(page.headers.get("Link", ""))
            if not following:
                return
            # The next page is the same list: wherever else the link may point, we do not go.
            parts = urlsplit(urljoin(url, following))
            url = f"{url.partition('?')[0]}?{parts.query}"

    def _manifest(self, url: str, base: _Base) -> Page:
        page = self._web.get(url, limit=MANIFEST_LIMIT, headers=ACCEPT, door=self._keys)
        left = page.headers.get("ratelimit-remaining", "").partition(";")[0].strip()
        if left.isdecimal() and int(left) <= LOW:
            limit = page.headers.get("ratelimit-limit", "").partition(";")[0].strip()
            self._tell(base, f"{base.host} lets us pull {left} more images{f' of {limit}' if limit.isdecimal() else ''} for now")
        return page

    def _tell(self, base: _Base, text: str) -> None:
        with self._lock:
            if base.root in self._told:
                return
            self._told.add(base.root)
        self._progress.say("rate-limit", f"{text}; with `docker login` there are more", host=base.host)

    # ---- addresses and errors ----------------------------------------------------------------------------------------

    def _at(self, reference: Reference) -> Sequence[_Base]:
        default = HUB if reference.registry == "docker.io" else f"https://{reference.registry}"
        return self._bases.get(reference.registry) or [_Base(default, "")]

    def _each(self, reference: Reference, call: Callable[[_Base], T]) -> T:
        """What `call` returns for the first address that has it. Raises all addresses' failures as one error."""
        bases = self._at(reference)
        failures: list[FetchError | DigestMismatch] = []
        for base in bases:
            try:
                with self._explained(reference, base):
                    return call(base)
            except LAST:
                raise
            except (FetchError, DigestMismatch) as cause:
                failures.append(cause)
            if len(failures) < len(bases):
                self._progress.say("source-failed", f"{failures[-1].message}; trying the next source", host=base.host)
        raise gathered(failures, reference.familiar)

    @contextmanager
    def _explained(self, reference: Reference, base: _Base) -> Iterator[None]:
        """Failures get the name of the image and what to do about them at this registry."""
        name, login = reference.familiar, f"docker login {'' if base.root == HUB else base.host}".strip()
        try:
            yield
        except NotThere as cause:
            text = f"{name}: {base.host} has no such image{quoted(cause.body)}"
            raise NotThere(text, hint="check the name and the tag") from cause
        except Failure as cause:
            hint = cause.hint
            if cause.status in (401, 403):
                hint = f"check the name: registries answer so for repositories that do not exist; if it is private: {login}"
            if cause.status == 429:
                hint = f"wait until the limit is lifted, or `{login}` and run the same command again; what came is kept"
                self._tell(base, f"{base.host} lets us pull no more images for now")
            raise Failure(
                f"{name}: {cause.message}{quoted(cause.body)}", hint=hint, again=False, status=cause.status, headers=cause.headers
            ) from cause
        except DigestMismatch as cause:
            raise DigestMismatch(f"{name}: {cause.message}", hint=cause.hint) from cause


def _base(url: str, logins: dict[tuple[str, str, int | None], Login]) -> _Base:
    """From an address of the manifest's `sources`; a user and password in it are taken out and kept in `logins`."""
    try:
        parts = urlsplit(url)
        login, at, host = parts.netloc.rpartition("@")
        root = urlunsplit((parts.scheme, host, "", "", ""))
        key = origin(root)
    except ValueError:
        parts, host, at, login, root, key = urlsplit(""), "", "", "", "", ("", "", None)
    if parts.scheme not in ("http", "https") or not host:
        raise ManifestError("sources: registries: an address is none", hint="write https://host, or http://host where meant")
    if at:
        user, _, password = login.partition(":")
        logins[key] = Login(user=unquote(user), password=unquote(password))
    prefix = parts.path.strip("/")
    return _Base(root, f"{prefix}/" if prefix else "")


def _root(data: bytes, content_type: str, url: str, reference: Reference) -> Root:
    media_type = _media_type(data, content_type, name=reference.familiar)
    return Root(Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data)), data, url)


def _media_type(data: bytes, content_type: str, *, name: str) -> str:
    """One of the four types: by the body's own word, else the registry's, else by its shape, which OCI lets speak for it.

    Raises FetchError for everything else, and for a body that could be read as an index and as a manifest (CVE-2021-41190).
    """
    node = parse_json(data, name=name, error=FetchError, limit=MANIFEST_LIMIT)
    stated = node.find("mediaType")
    index, lone = node.has("manifests"), node.has("layers") or node.has("config")
    sent = content_type.partition(";")[0].strip().lower()
    kind = stated.text() if stated else sent if sent in INDEXES | MANIFESTS else INDEX if index else MANIFEST
    if (not stated and sent.startswith(SCHEMA_1)) or kind.startswith(SCHEMA_1) or node.mapping().get("schemaVersion") == 1:
        raise FetchError(
            f"{name}: is an image of Docker's old schema 1, which newer engines and BuildKit do not read",
            hint="pull it with an old engine, push it again, and name the new image",
        )
    if kind not in INDEXES | MANIFESTS:
        raise FetchError(f"{name}: is not an image but {printable(kind, limit=100)}", hint="only images can be carried")
    if index == lone or (kind in INDEXES) != index:
        raise FetchError(f"{name}: says it is {kind}, but is not", hint="whoever made this image should make it anew")
    return kind
