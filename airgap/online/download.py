"""One file from one address: which bytes to ask for, and whether what comes may join what came before."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final, Literal

from airgap.bundle.store import Intake
from airgap.errors import DigestMismatch, FetchError
from airgap.oci import Digest
from airgap.online import headers as field
from airgap.online.headers import public
from airgap.online.transport import Answer, Failure
from airgap.progress import Gauge, Progress

Expects = Literal["elf", "gzip"]
MAGIC: Final = {"elf": (b"\x7fELF", "an executable"), "gzip": (b"\x1f\x8b", "a gzip file")}
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Unwritable(FetchError):
    """Our own disk will not take it: no other source would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a file must be: its digest and size where they are known, the most it may have, and how it must begin."""

    what: str
    expected: Digest | None
    size: int | None
    limit: int
    expects: Expects | None


class Meter:
    """Tells a gauge how far a file is, also when it begins again; makes one, once the size is known, if none was given."""

    def __init__(self, stack: ExitStack, progress: Progress, what: str, gauge: Gauge | None) -> None:
        self._stack, self._progress, self._what, self._gauge = stack, progress, what, gauge
        self._told = 0

    def total(self, total: int | None) -> None:
        """The size is known now, or known not to be."""
        if self._gauge is None:
            self._gauge = self._stack.enter_context(self._progress.gauge(self._what, total))

    def at(self, offset: int) -> None:
        """So many bytes are there."""
        if self._gauge is not None and offset != self._told:
            self._gauge.advance(offset - self._told)
            self._told = offset


class Download:
    """Attempts at one file. `open` asks an address with header fields of ours; `accept` raises what a status means."""

    def __init__(
        self,
        job: Job,
        meter: Meter,
        *,
        open: Callable[[str, Mapping[str, str]], Answer],  # noqa: A002 - what it does
        accept: Callable[[Answer], None],
    ) -> None:
        self._job, self._meter, self._open, self._accept = job, meter, open, accept

    def attempt(self, url: str, intake: Intake) -> None:
        """One request; afterwards the intake holds everything. Raises Failure with `again` where the next one may go on.

        FetchError and DigestMismatch are for what no further attempt at this address would mend. OSError is the disk's.
        """
        job = self._job
        if intake.offset and not (job.expected or intake.validator):
            # Nothing says that the rest would be of the same file.
            intake.restart()
        if job.size is not None and intake.offset >= job.size > 0:
            if intake.offset == job.size:
                self._meter.at(intake.offset)
                return
            intake.restart()
        asked = {"Range": f"bytes={intake.offset}-"} if intake.offset else {}
        # Where a digest decides in the end, the rest may come from anyone: two mirrors never agree on a validator.
        if asked and not job.expected:
            asked["If-Range"] = intake.validator
        with closing(self._open(url, asked)) as answer:
            if answer.status == 416 and intake.offset:
                self._beyond(answer, intake)
            else:
                self._accept(answer)
                self._take(answer, intake)
        self._meter.at(intake.offset)

    def _beyond(self, answer: Answer, intake: Intake) -> None:
        """Status 416: either nothing was missing any more, or the file there is another one now."""
        there = field.content_range(answer.headers.get("Content-Range", ""))
        if there is None or there.total != intake.offset:
            intake.restart()
            raise Failure(f"{public(answer.url)}: is shorter than what came of it before", again=True)

    def _take(self, answer: Answer, intake: Intake) -> None:
        begin = b""
        if answer.status == 206:
            total = self._rest(answer, intake)
            self._promised(answer, total)
        else:
            total = field.content_length(answer.headers)
            self._promised(answer, total)
            begin = self._begin(answer)
            self._meter.at(0)
            intake.restart(field.validator(answer.headers))
        self._meter.total(total)
        self._meter.at(intake.offset)
        bound = total if total is not None else self._job.limit if self._job.size is None else self._job.size
        piece = begin or answer.read()
        while piece:
            if intake.offset + len(piece) > bound:
                intake.restart()
                raise self._too_big(answer)
            try:
                intake.write(piece)
            except OSError as cause:
                raise disk(cause, self._job.what, None if total is None else total - intake.offset) from cause
            self._meter.at(intake.offset)
            piece = answer.read()
        if total is not None and intake.offset != total:
            raise Failure(f"{public(answer.url)}: broke off after {intake.offset} of {total} bytes", again=True)

    def _rest(self, answer: Answer, intake: Intake) -> int | None:
        """The size of the whole of which this answer is the rest, if it is."""
        place, asked = public(answer.url), intake.offset
        if not asked:
            raise Failure(f"{place}: answers with a part, but the whole was asked for", again=False)
        there = field.content_range(answer.headers.get("Content-Range", ""))
        if there and there.first == asked and there.last is not None and there.total in (None, there.last + 1):
            return there.last + 1
        intake.restart()
        said = answer.headers.get("Content-Range", "nothing")
        raise Failure(f"{place}: answers with another part ({said}) than asked for (from byte {asked})", again=True)

    def _promised(self, answer: Answer, total: int | None) -> None:
        """Refuse by what the answer promises, before its bytes are waited for."""
        job, place = self._job, public(answer.url)
        if total is None and job.expected is None and job.size is None and not answer.headers.get("Transfer-Encoding"):
            raise FetchError(
                f"{place}: does not say how long the file is, so half of it could not be told from all of it",
                hint="name another source; a proxy between may be to blame",
            )
        if total is not None and job.size is not None and total != job.size:
            kind = answer.headers.get("Content-Type", "no stated type")
            raise DigestMismatch(
                f"{place}: not the bytes that were promised: {total} bytes of {kind}, where {job.size} bytes were expected",
                hint="look for a proxy, a login page or a mirror that changes files",
            )
        if total is not None and total > job.limit:
            raise self._too_big(answer)

    def _begin(self, answer: Answer) -> bytes:
        """The first bytes, after a look at them: a captive portal answers everything with 200 and a page."""
        begin, place = b"", public(answer.url)
        while len(begin) < 4 and (piece := answer.read()):
            begin += piece
        if self._job.expects is None:
            return begin
        magic, name = MAGIC[self._job.expects]
        if begin.startswith(magic):
            return begin
        said = answer.headers.get("Content-Type", "").lower()
        if "html" in said or begin.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise FetchError(
                f"{place}: answers with a web page where {name} was expected: a login page of this network, or of a proxy",
                hint="open the address in a browser on this machine, log in there, and run the same command again",
            )
        raise FetchError(f"{place}: is not {name}; it begins with {begin[:16]!r}", hint="name another source")

    def _too_big(self, answer: Answer) -> FetchError | DigestMismatch:
        job, place = self._job, public(answer.url)
        if job.size is not None and job.size <= job.limit:
            return DigestMismatch(f"{place}: sends more than the {job.size} bytes that were promised")
        return FetchError(
            f"{place}: is larger than the {job.limit} bytes that {job.what} may have",
            hint="look at what is there; it is not what it should be",
        )


def disk(cause: OSError, what: str, missing: int | None) -> Unwritable:
    """The disk's refusal in our words; `missing` are the bytes still to come, if that is known."""
    if cause.errno not in NO_ROOM:
        return Unwritable(f"{what}: cannot be written: {cause.strerror or cause}", hint="look at the disk that holds the store")
    needed = "the rest of it" if missing is None else f"the {missing} bytes still to come"
    return Unwritable(
        f"{what}: the disk that holds the store has no room for {needed} ({cause.strerror})",
        hint="make room, or name another place with --store; what came is kept",
    )
