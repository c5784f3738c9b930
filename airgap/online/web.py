"""Getting bytes from strangers: bounded, hashed on the way into the store, resumed at the byte, tried again, never trusted.

`transport` makes one exchange, `answers` says what a status means, `download` joins the parts of a file. Here is what lies
between: redirects, who gets to see secrets, and patience. A killed process loses nothing that was written: it is in the
store's partial file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, final
from urllib.parse import urlencode

from airgap.bundle.store import Store
from airgap.errors import DigestMismatch, FetchError
from airgap.lock import Blob
from airgap.oci import Digest
from airgap.online import headers as field
from airgap.online.answers import ERROR_BODY, REDIRECTS, NotThere, accept, gathered, redirected
from airgap.online.download import Download, Expects, Job, Meter, Unwritable, disk
from airgap.online.headers import public
from airgap.online.transport import Answer, Failure, Stopped, Transport
from airgap.progress import Gauge, Progress

__all__ = ["LAST", "Door", "Failure", "Fetched", "NotThere", "Page", "Stopped", "Web", "gathered"]

T = TypeVar("T")

LAST: Final = (Stopped, Unwritable)
"""What ends everything: no other source would help."""
PATIENCE: Final = 120.0
"""Seconds we wait at a server's wish; who asks for more (Docker Hub: hours) is told to the user instead."""
MOST_ATTEMPTS: Final = 1000
"""For one file from one address, however much each attempt brings."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file in the store, the address it came from (without secrets), and the server's word for that version of it."""

    url: str
    blob: Blob
    validator: str


@dataclass(frozen=True, slots=True)
class Page:
    """A small answer: the address asked for (without secrets), its header fields and its body."""

    url: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def validator(self) -> str:
        """The server's word for this version; empty if it has none that could be relied on."""
        return field.validator(self.headers)


class Door(Protocol):
    """Who knows how to be let in."""

    def headers(self, url: str) -> Mapping[str, str]:
        """What to send to this address; it goes to no other origin."""

    def admit(self, url: str, headers: Mapping[str, str], sent: Mapping[str, str]) -> bool:
        """After a 401 with these fields to a request that was `sent` so: whether there is now something new to send."""


@final
class Web:
    """Downloads into `store`, from several threads at once.

    `connect`, `stall` and `backoff` (doubled each time) are seconds; `retries` are those in a row that bring no new byte.
    """

    def __init__(
        self,
        *,
        store: Store,
        progress: Progress,
        connect: float = 15.0,
        stall: float = 60.0,
        retries: int = 5,
        backoff: float = 0.5,
        transport: Transport | None = None,
        pause: Callable[[float], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.progress = store, progress
        self._transport = transport or Transport(connect=connect, stall=stall)
        self._retries, self._backoff, self._now = retries, backoff, now
        self._pause = pause or self._transport.pause

    def __enter__(self) -> Web:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def cancel(self) -> None:
        """Make every running download end soon with Stopped, and begin no new one; what came is kept."""
        self._transport.cancel()

    # ---- files -------------------------------------------------------------------------------------------------------

    def stored(self, digest: Digest, *, url: str) -> Fetched:
        """The blob that is in the store already, said to be from `url`."""
        return Fetched(public(url), Blob(digest, self.store.size(digest)), "")

    def download(
        self,
        urls: Sequence[str],
        *,
        key: str,
        expected: Digest | None,
        size: int | None,
        limit: int,
        what: str,
        expects: Expects | None = None,
        gauge: Gauge | None = None,
        door: Door | None = None,
    ) -> Fetched:
        """Afterwards the file is in the store. Each address is tried in order; `key` names what came so far, for the next try.

        Raises NotThere if no address has it; DigestMismatch if what came is not what was `expected`; FetchError otherwise, also
        for more than `limit` bytes, for a full disk, and for bytes that do not begin as `expects` says.
        """
        job = Job(what=what, expected=expected, size=size, limit=limit, expects=expects)
        try:
            with ExitStack() as stack:
                meter = Meter(stack, self.progress, what, gauge)
                download = Download(
                    job, meter, open=lambda url, fields: self._open("GET", url, fields, door), accept=self._accept
                )  # fmt: skip
                return self._first(urls, lambda url: self._from(url, key, job, download, meter), what)
        except OSError as cause:
            # Those of the network have become Failures.
            raise disk(cause, what, size) from cause

    def _from(self, url: str, key: str, job: Job, download: Download, meter: Meter) -> Fetched:
        """From one address. What an earlier try left behind gets a second chance from byte 0 if the whole then proves wrong."""
        while True:
            with self.store.intake(key) as intake:
                if job.expected and self.store.has(job.expected):
                    self.store.drop(intake)
                    meter.at(self.store.size(job.expected))
                    return self.stored(job.expected, url=url)
                resumed = intake.offset > 0
                try:
                    self._retry(lambda: download.attempt(url, intake), title=job.what, progressed=lambda: intake.offset)
                    blob = self.store.commit(intake, expected=job.expected, size=job.size, source=public(url))
                    return Fetched(public(url), blob, intake.validator)
                except DigestMismatch:
                    meter.at(0)
                    if not resumed:
                        raise
                    self.store.drop(intake)

    def _first(self, urls: Sequence[str], call: Callable[[str], T], what: str) -> T:
        """What `call` returns for the first address for which it returns. Raises all their failures as one error."""
        failures: list[FetchError | DigestMismatch] = []
        for url in urls:
            try:
                return call(url)
            except LAST:
                raise
            except (FetchError, DigestMismatch) as cause:
                failures.append(cause)
            if len(failures) < len(urls):
                self.progress.say("source-failed", f"{failures[-1].message}; trying the next source", url=public(url))
        raise gathered(failures, what)

    # ---- small answers -----------------------------------------------------------------------------------------------

    def get(
        self,
        url: str,
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        door: Door | None = None,
    ) -> Page:
        """The whole answer. Raises NotThere, or FetchError, also for more than `limit` bytes."""
        return self._retry(lambda: self._page("GET", url, limit, headers or {}, door), title="")

    def head(
        self, url: str, *, headers: Mapping[str, str] | None = None, door: Door | None = None, retries: int | None = None
    ) -> Page:
        """The header fields that a get would bring. Raises NotThere or FetchError."""
        return self._retry(lambda: self._page("HEAD", url, 0, headers or {}, door), title="", retries=retries)

    def post(self, url: str, form: Mapping[str, str], *, limit: int) -> Page:
        """The answer to a form, which is never sent on to another address. Raises NotThere or FetchError."""
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        return self._retry(lambda: self._page("POST", url, limit, fields, None, body=body), title="")

    def text(self, urls: Sequence[str], *, limit: int) -> tuple[bytes, str]:
        """The first of these documents that can be had, and its address. Raises NotThere if none is there, or FetchError."""
        page = self._first(urls, lambda url: self.get(url, limit=limit), "the document")
        return page.data, page.url

    def _page(
        self, method: str, url: str, limit: int, headers: Mapping[str, str], door: Door | None, *, body: bytes = b""
    ) -> Page:  # fmt: skip
        with closing(self._open(method, url, headers, door, body=body)) as answer:
            self._accept(answer)
            data = answer.begin(limit + 1)
            if len(data) > limit:
                raise FetchError(f"{public(url)}: is larger than the {limit} bytes that such a document may have")
            return Page(public(url), answer.headers, data)

    # ---- one request, its redirects and its door ---------------------------------------------------------------------

    def _open(self, method: str, url: str, headers: Mapping[str, str], door: Door | None, *, body: bytes = b"") -> Answer:
        """The answer at the end of all redirects. Secrets go to the origin that was asked, and nowhere else."""
        asked, login = self._address(url)
        here, hops, admitted = asked, 0, False
        while True:
            sent = {"User-Agent": "airgap", **headers}
            if at_home := field.origin(here) == field.origin(asked):
                sent |= {"Authorization": login} if login else {}
                sent |= door.headers(asked) if door else {}
            answer = self._transport.open(method, here, sent, body)
            location = answer.headers.get("Location", "")
            if answer.status in REDIRECTS and location and method != "POST":
                with closing(answer):
                    answer.begin(ERROR_BODY)
                hops += 1
                here = redirected(here, location, hops)
            elif answer.status == 401 and door and at_home and not admitted:
                with closing(answer):
                    admitted = self._admitted(door, asked, answer, sent)
                here = asked
            else:
                return answer

    def _address(self, url: str) -> tuple[str, str]:
        try:
            field.origin(url)
            return field.split_login(url)
        except ValueError as cause:
            raise FetchError(f"{public(url)}: is no address", hint="write http:// or https://, a host and a path") from cause

    def _admitted(self, door: Door, asked: str, answer: Answer, sent: Mapping[str, str]) -> bool:
        """True if the door opened; otherwise raises what the 401 means."""
        if not door.admit(asked, answer.headers, sent):
            self._accept(answer)
        # Read to its end, the refusal leaves a connection that the next request can use.
        answer.begin(ERROR_BODY)
        return True

    def _accept(self, answer: Answer) -> None:
        accept(answer, now=self._now())

    def _retry(
        self, call: Callable[[], T], *, title: str, progressed: Callable[[], int] = lambda: 0, retries: int | None = None
    ) -> T:
        """What `call` returns, tried again where that makes sense; bytes that came count as a new beginning."""
        best, failed = progressed(), 0
        for _ in range(MOST_ATTEMPTS):
            try:
                return call()
            except Failure as cause:
                if progressed() > best:
                    best, failed = progressed(), 0
                failed += 1
                wait = self._backoff * 2 ** (failed - 1) if cause.after is None else cause.after
                if not cause.again or failed > (self._retries if retries is None else retries) or wait > PATIENCE:
                    raise
                text = f"{title}: {cause.message}" if title else cause.message
            self.progress.say("retry", f"{text}; again in {wait:g} s", seconds=wait)
            self._pause(wait)
            self._transport.check()
        raise FetchError(f"{title}: given up after {MOST_ATTEMPTS} attempts")

