"""A registry, written to: blobs and manifests put where they lack, its refusals in words that say what to do.

Speaks the distribution API as docker's and containerd's own clients do: HEAD, a mount from a neighbour, else POST and one PUT of
the whole blob, streamed (OCI distribution-spec, "Pushing blobs"). A blob is sent again from its beginning; what is done is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final, Literal
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from airgap.errors import FetchError
from airgap.lock import Blob
from airgap.oci import DOCKER_LIST, DOCKER_MANIFEST, Digest
from airgap.online.answers import REDIRECTS, NotThere, quoted, registry_errors
from airgap.online.credentials import Credentials
from airgap.online.exchange import Door, Exchange, Page
from airgap.online.headers import origin, public
from airgap.online.registry import ACCEPT
from airgap.online.target import Target
from airgap.online.tokens import Keys
from airgap.online.transport import Body, Failure, Untrusted

Way = Literal["pushed", "mounted", "skipped"]

_FULL: Final = (b"no space left", b'"Err":28', b"ENOSPC")
"""What full disks make registries say; `Err` 28 is distribution's way to quote the system's ENOSPC."""


class Refused(FetchError):
    """The registry says no, and would say so again. `status` is HTTP's, `words` the registry's own, with their codes."""

    def __init__(self, message: str, *, hint: str | None, status: int, words: str) -> None:
        super().__init__(message, hint=hint)
        self.status, self.words = status, words

    @property
    def of_types(self) -> bool:
        """Whether it is about the types of a manifest, as far as registries say so: they share no code for it."""
        words = self.words.lower()
        signs = ("manifest_invalid", "unsupported", "media type", "mediatype", "content type")
        return self.status == 415 or (400 <= self.status < 500 and any(sign in words for sign in signs))


class Depot:
    """The registry of `target`, for several threads at once."""

    def __init__(self, target: Target, *, web: Exchange, credentials: Credentials) -> None:
        """Asks nobody anything yet."""
        self.target = target
        self._web, self._credentials = web, credentials
        self._keys = Keys(web=web, credentials=credentials, logins={})

    def cancel(self) -> None:
        """Make everything that runs end soon; nothing works afterwards."""
        self._web.cancel()

    def greet(self) -> None:
        """There is a registry, as far as can be seen without a login. Raises FetchError."""
        url = f"{self.target.root}/v2/"
        with self._explained(""):
            try:
                self._web.patiently(lambda: self._web.send("GET", url, good=frozenset({200, 401})), title="", retries=1)
            except NotThere as cause:
                raise FetchError(
                    f"{url}: there is a web server, but no registry (404)", hint="check the host and the port, as in docker push"
                ) from cause

    # ---- blobs -------------------------------------------------------------------------------------------------------

    def has(self, repository: str, digest: Digest) -> bool:
        """Whether the blob is in this repository. Raises FetchError."""
        return self._standing(repository, f"blobs/{digest}") is not None

    def deliver(self, repository: str, blob: Blob, body: Body, *, source: str = "") -> Way:
        """Afterwards the blob is in the repository, which lacked it; it comes from the repository `source` if that works.

        Raises FetchError, and what `body` raises.
        """
        tries = count()

        def attempt() -> Way:
            # The answer to a PUT may be lost after it was done.
            if next(tries) and self._head(repository, f"blobs/{blob.digest}"):
                return "skipped"
            place = self._begin(repository, blob.digest, source)
            if not place:
                return "mounted"
            fields = {"Content-Type": "application/octet-stream"}
            try:
                # The door's keys are by origin: a place on another host gets none of this one's.
                self._web.send("PUT", place, good=frozenset({201}), body=body, headers=fields, door=self._door(repository))
            except NotThere as cause:
                if any(code == "BLOB_UPLOAD_UNKNOWN" for code, _ in registry_errors(cause.body)):
                    # Its session is gone: several registries behind one name, or one that was started anew.
                    raise Failure(cause.message, again=True, status=404, body=cause.body) from cause
                raise
            return "pushed"

        with self._explained(repository):
            return self._web.patiently(attempt, title=f"{repository}, {str(blob.digest)[:19]}")

    def _begin(self, repository: str, digest: Digest, source: str) -> str:
        """Where to put the blob; empty if it could be mounted from `source`."""
        url = self._url(repository, "blobs/uploads/")
        page = self._mount(url, repository, digest, source) if source else None
        if page is None:
            page = self._web.send("POST", url, good=frozenset({202}), door=self._door(repository))
        return "" if page.status == 201 else self._place(url, page.headers.get("Location", ""), digest)

    def _mount(self, url: str, repository: str, digest: Digest, source: str) -> Page | None:
        query = urlencode({"mount": str(digest), "from": source})
        try:
            # Refused, it is a 202 with a place for an upload; some registries say no, and mean the mount only.
            door = self._keys.pushing(repository, source=source)
            return self._web.send("POST", f"{url}?{query}", good=frozenset({201, 202}), door=door)
        except NotThere:
            return None
        except Failure as cause:
            if cause.again:
                raise
            return None

    def _place(self, url: str, location: str, digest: Digest) -> str:
        """Where a Location leads, for this blob. Raises FetchError for a place to which nothing may be sent.

        Behind a proxy that ends TLS, registries name their own host with http: same host, same way as we came.
        """
        own = urlsplit(self.target.root)
        try:
            parts = urlsplit(urljoin(url, location))
            scheme, host, _ = origin(urlunsplit(parts))
        except ValueError:
            parts, scheme, host = own, "", ""
        if host == own.hostname:
            parts, scheme = parts._replace(scheme=own.scheme, netloc=own.netloc), own.scheme
        if not location or scheme not in ("http", "https") or (own.scheme == "https" and scheme == "http"):
            raise FetchError(
                f"{public(url)}: sends blobs to {public(location)!r}, where they may not go",
                hint="the registry does not know its own address: in Harbor external_url, in distribution http.host",
            )
        query = "&".join(item for item in (parts.query, urlencode({"digest": str(digest)})) if item)
        return urlunsplit(parts._replace(query=query, fragment=""))

    # ---- manifests ---------------------------------------------------------------------------------------------------

    def standing(self, repository: str, name: str) -> str | None:
        """The digest of the manifest that a tag or digest means now; empty if it is not told, None if there is none."""
        page = self._standing(repository, f"manifests/{name}")
        return None if page is None else page.headers.get("Docker-Content-Digest", "")

    def put(self, repository: str, name: str, media_type: str, data: bytes) -> None:
        """Afterwards the tag or digest `name` means this manifest. Raises Refused, or FetchError."""
        url, digest = self._url(repository, f"manifests/{name}"), Digest.of(data)

        def attempt() -> Page:
            return self._web.send(
                "PUT", url, good=frozenset({201, 202}), body=data, headers={"Content-Type": media_type},
                door=self._door(repository),
            )  # fmt: skip

        with self._explained(repository, media_type):
            said = self._web.patiently(attempt, title=f"{repository}:{name}").headers.get("Docker-Content-Digest", "")
        if said.startswith("sha256:") and said != str(digest):
            raise FetchError(
                f"{self.target.host}/{repository}:{name}: the registry changes what it is given: {digest} became {said[:71]}",
                hint="look for a conversion of images in its configuration; pins by digest would not work with it",
            )

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _url(self, repository: str, what: str) -> str:
        return f"{self.target.root}/v2/{repository}/{what}"

    def _door(self, repository: str) -> Door:
        return self._keys.pushing(repository)

    def _standing(self, repository: str, what: str) -> Page | None:
        with self._explained(repository):
            return self._web.patiently(lambda: self._head(repository, what), title=f"{repository}, {what}")

    def _head(self, repository: str, what: str) -> Page | None:
        """None also where we are refused: answers to HEAD have no words; what is written next meets the refusal with them."""
        try:
            url = self._url(repository, what)
            return self._web.send("HEAD", url, good=frozenset({200}), headers=ACCEPT, door=self._door(repository))
        except NotThere:
            return None
        except Failure as cause:
            if cause.again or not 400 <= cause.status < 500:
                raise
            return None

    @contextmanager
    def _explained(self, repository: str, media_type: str = "") -> Iterator[None]:
        try:
            yield
        except NotThere as cause:
            refusal = Failure(cause.message, again=False, status=404, body=cause.body)
            raise self._refused(repository, refusal, media_type) from cause
        except Untrusted as cause:
            raise FetchError(
                cause.message,
                hint=f"name its CA: --ca FILE, or put it where docker looks, {self._ca}; if the certificate has expired or is "
                "for another name, the registry needs a new one",
            ) from cause
        except Failure as cause:
            if not cause.status:
                raise
            raise self._refused(repository, cause, media_type) from cause

    @property
    def _ca(self) -> str:
        return f"/etc/docker/certs.d/{self.target.host}/ca.crt"

    def _refused(self, repository: str, cause: Failure, media_type: str) -> FetchError:
        status, words = cause.status, quoted(cause.body)
        what, hint = self._meaning(repository, cause, media_type)
        place = f"{self.target.host}/{repository}".rstrip("/")
        message = f"{place}: {what} ({status}){words}"
        if status >= 500 or status == 429:
            return FetchError(message, hint=hint or cause.hint)
        return Refused(message, hint=hint or cause.hint, status=status, words=words)

    def _meaning(self, repository: str, cause: Failure, media_type: str) -> tuple[str, str | None]:
        """What a refusal means in most registries, and what to do about it."""
        status, body = cause.status, cause.body
        if b"configured upper limit" in body:
            return "the project may not grow any more", "in Harbor raise the quota of the project"
        if b"BLOB_UPLOAD_UNKNOWN" in body:
            return "the registry forgets uploads under way", "instances behind one name need one storage and one http.secret"
        if status in (401, 403) or (status == 404 and not media_type):
            return self._kept_out(repository, status)
        if status == 412:
            return "the tag means something else and may not move", "lift the rule that makes it immutable, or push elsewhere"
        if status == 413:
            return "what stands before the registry takes no files of this size", "in nginx: client_max_body_size 0;"
        if status == 507 or (status >= 500 and any(sign in body for sign in _FULL)):
            return "the registry's disk is full", "make room there (Harbor: Clean Up; distribution: registry garbage-collect)"
        if status in REDIRECTS:
            there = public(urljoin(self.target.root, cause.headers.get("Location", "")))
            return f"it sends us on to {there}", "name the registry by its true address, with https"
        if status >= 500:
            return "the registry is not well", "look into its log"
        if media_type in (DOCKER_LIST, DOCKER_MANIFEST):
            return "the registry refuses the manifest", "if it takes OCI's types only: in zot, http.compat: [docker2s2]"
        return f"the registry refuses {'the manifest' if media_type else 'this'}", None

    def _kept_out(self, repository: str, status: int) -> tuple[str, str]:
        host, project = self.target.host, repository.partition("/")[0]
        known = self._credentials.find(host) is not None
        if status == 401 and not known:
            return "the registry wants a login, and docker's configuration has none for it", f"docker login {host}"
        wrong = "our login is not taken, or " if status == 401 else ""
        who = "our login may not push to it" if known else "nobody may push to it without a login"
        hint = (
            f"in Harbor create the project {project!r} (Projects, New Project), with the user among its developers; or push "
            f"below one that is there: airgap push BUNDLE {host}/PROJECT; or log in as somebody who may: docker login {host}"
        )
        return f"{wrong}there is no such project, or {who}", hint
