"""Getting bytes from strangers: bounded, hashed on the way into the store, resumed at the byte, tried again, never trusted.

`exchange` makes requests, `answers` says what a status means, `download` joins the parts of a file. A killed process loses
nothing that was written: it is in the store's partial file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeVar, final

from airgap.bundle.store import Store
from airgap.errors import DigestMismatch, FetchError
from airgap.lock import Blob
from airgap.oci import Digest
from airgap.online.answers import NotThere, gathered
from airgap.online.download import Download, Expects, Job, Meter, Unwritable, disk
from airgap.online.exchange import Door, Exchange, Page
from airgap.online.headers import public
from airgap.online.transport import Failure, Stopped, Transport
from airgap.progress import Gauge, Progress

__all__ = ["LAST", "Door", "Failure", "Fetched", "NotThere", "Page", "Stopped", "Web", "gathered"]

T = TypeVar("T")

LAST: Final = (Stopped, Unwritable)
"""What ends everything: no other source would help."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file in the store, the address it came from (without secrets), and the server's word for that version of it."""

    url: str
    blob: Blob
    validator: str


@final
class Web(Exchange):
    """Requests, and downloads into `store`."""

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
        super().__init__(
            progress=progress, connect=connect, stall=stall, retries=retries, backoff=backoff, transport=transport, pause=pause,
            now=now,
        )  # fmt: skip
        self.store = store

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
                    self.patiently(lambda: download.attempt(url, intake), title=job.what, progressed=lambda: intake.offset)
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

    def text(self, urls: Sequence[str], *, limit: int) -> tuple[bytes, str]:
        """The first of these documents that can be had, and its address. Raises NotThere if none is there, or FetchError."""
        page = self._first(urls, lambda url: self.get(url, limit=limit), "the document")
        return page.data, page.url
