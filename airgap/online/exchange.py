"""Requests and small answers: redirects, who gets to see secrets, and patience.

`transport` makes one exchange, `answers` says what a status means; here is what lies between. `web` adds downloads to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import urlencode

from airgap.errors import FetchError
from airgap.online import headers as field
from airgap.online.answers import ERROR_BODY, GOOD, REDIRECTS, accept, redirected
from airgap.online.headers import public
from airgap.online.transport import Answer, Body, Failure, Transport
from airgap.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

FOLLOWED: Final = frozenset({"GET", "HEAD"})
"""What a redirect may send elsewhere; nothing else is meant for strangers."""
PATIENCE: Final = 120.0
"""Seconds we wait at a server's wish; who asks for more (Docker Hub: hours) is told to the user instead."""
MOST_ATTEMPTS: Final = 1000
"""For one file from one address, however much each attempt brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A small answer: the address asked for (without secrets), its status, its header fields and its body."""

    url: str
    status: int
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


class Exchange:
    """Requests, from several threads at once.

    `connect`, `stall` and `backoff` (doubled each time) are seconds; `retries` are those in a row that bring no new byte. `ca` is
    a file with the certificates to trust instead of those that the environment names.
    """

    def __init__(
        self,
        *,
        progress: Progress,
        connect: float = 15.0,
        stall: float = 60.0,
        retries: int = 5,
        backoff: float = 0.5,
        ca: str = "",
        transport: Transport | None = None,
        pause: Callable[[float], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.progress = progress
        self._transport = transport or Transport(connect=connect, stall=stall, ca=ca)
        self._retries, self._backoff, self._now = retries, backoff, now
        self._pause = pause or self._transport.pause

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def cancel(self) -> None:
        """Make everything that runs end soon with Stopped, and begin nothing new; what came is kept."""
        self._transport.cancel()

    def get(
        self,
        url: str,
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        door: Door | None = None,
    ) -> Page:
        """The whole answer. Raises NotThere, or FetchError, also for more than `limit` bytes."""
        return self.patiently(lambda: self._page("GET", url, limit, headers or {}, door), title="")

    def head(
        self, url: str, *, headers: Mapping[str, str] | None = None, door: Door | None = None, retries: int | None = None
    ) -> Page:
        """The header fields that a get would bring. Raises NotThere or FetchError."""
        return self.patiently(lambda: self._page("HEAD", url, 0, headers or {}, door), title="", retries=retries)

    def post(self, url: str, form: Mapping[str, str], *, limit: int) -> Page:
        """The answer to a form, which is never sent on to another address. Raises NotThere or FetchError."""
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        return self.patiently(lambda: self._page("POST", url, limit, fields, None, body=body), title="")

    def send(
        self,
        method: str,
        url: str,
        *,
        good: frozenset[int],
        body: Body = b"",
        headers: Mapping[str, str] | None = None,
        door: Door | None = None,
    ) -> Page:
        """The answer, whose status is one of `good`, to what changes something: sent once and to nowhere else.

        Raises NotThere or Failure; what may be tried again, the caller tries by `patiently`.
        """
        return self._page(method, url, ERROR_BODY, headers or {}, door, body=body, good=good)

    def _page(
        self, method: str, url: str, limit: int, headers: Mapping[str, str], door: Door | None, *, body: Body = b"",
        good: frozenset[int] = GOOD,
    ) -> Page:  # fmt: skip
        with closing(self._open(method, url, headers, door, body=body)) as answer:
            accept(answer, now=self._now(), good=good)
            data = answer.begin(limit + 1)
            if len(data) > limit:
                raise FetchError(f"{public(url)}: is larger than the {limit} bytes that such a document may have")
            return Page(url=public(url), status=answer.status, headers=answer.headers, data=data)

    # ---- one request, its redirects and its door ---------------------------------------------------------------------

    def _open(self, method: str, url: str, headers: Mapping[str, str], door: Door | None, *, body: Body = b"") -> Answer:
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
            if answer.status in REDIRECTS and location and method in FOLLOWED:
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

    def patiently(
        self, call: Callable[[], T], *, title: str, progressed: Callable[[], int] = lambda: 0, retries: int | None = None
    ) -> T:
        """What `call` returns, tried again where that makes sense; bytes that came count as a new beginning.

        Raises what `call` raises in the end, FetchError after very many attempts, Stopped.
        """
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

