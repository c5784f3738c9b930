"""What an answer other than the thing asked for means: an error of ours, another address, or nothing to worry about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urljoin

from airgap.errors import DigestMismatch, FetchError
from airgap.machine.run import printable
from airgap.online import headers as field
from airgap.online.headers import public
from airgap.online.transport import Answer, Failure

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS: Final = 10
GOOD: Final = frozenset({200, 206})
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
"""What a server answers that is not well, or asks for patience."""
ERROR_BODY: Final = 8 << 10

_STATUS: Final = {
    401: "wants a login (401)",
    403: "refuses this request (403)",
    407: "the proxy wants a login (407)",
    429: "asks for patience: too many requests (429)",
}


class NotThere(FetchError):
    """The server is well and says that it has no such thing; `body` is how it says so."""

    def __init__(self, message: str, *, hint: str | None = None, body: bytes = b"") -> None:
        super().__init__(message, hint=hint)
        self.body = body


def accept(answer: Answer, *, now: float, good: frozenset[int] = GOOD) -> None:
    """Nothing for the good ones; NotThere or Failure for every other status. `now` is in seconds since the epoch."""
    status, place = answer.status, public(answer.url)
    if status in good:
        return
    body = answer.begin(ERROR_BODY)
    if status in (404, 410):
        raise NotThere(f"{place}: is not there ({status})", body=body)
    after = field.retry_after(answer.headers.get("Retry-After", ""), now=now)
    raise Failure(
        f"{place}: {_STATUS.get(status, f'answers with status {status}')}",
        hint=_cure(status, answer.headers, after),
        again=status in PASSING,
        after=after,
        status=status,
        headers=answer.headers,
        body=body,
    )


def _cure(status: int, headers: Mapping[str, str], after: float | None) -> str | None:
    if status == 429 or headers.get("X-RateLimit-Remaining") == "0":
        return f"wait{f' {after:.0f} s' if after else ' some time'}, and run the same command again; what came is kept"
    if status == 407:
        return "put the proxy's user and password into HTTPS_PROXY"
    if status in (401, 403):
        return "if it is a mirror, it may not serve this file or this network: name another under `sources:`"
    return None


def redirected(here: str, location: str, hops: int) -> str:
    """Where a redirect leads. Raises Failure for a circle, another scheme than the web's, and for leaving TLS."""
    place = public(here)
    if hops > MOST_REDIRECTS:
        raise Failure(f"{place}: more than {MOST_REDIRECTS} redirects", again=False)
    try:
        there = field.split_login(urljoin(here, location))[0]
        scheme, host, _ = field.origin(there)
    except ValueError as cause:
        raise Failure(f"{place}: redirects to what is no address", again=False) from cause
    if scheme not in ("http", "https") or not host:
        raise Failure(f"{place}: redirects to what is no web address", again=False)
    if here.startswith("https:") and scheme == "http":
        raise Failure(
            f"{place}: redirects from https to plain http ({public(there)}), which anyone on the way could change",
            hint="name another source, or this one as http:// if that is meant", again=False,
        )  # fmt: skip
    return there


def gathered(failures: Sequence[FetchError | DigestMismatch], what: str) -> FetchError | DigestMismatch:
    """One error of several sources': NotThere only if all say so, a mismatch before anything else, with every source's words."""
    if len(failures) == 1:
        return failures[0]
    if not failures:
        return FetchError(f"{what}: there is no source for it", hint="name one under `sources:`")
    message = f"{what}: no source has it\n  " + "\n  ".join(item.message.replace("\n", "\n  ") for item in failures)
    weight = [isinstance(item, DigestMismatch) - isinstance(item, NotThere) for item in failures]
    worst = failures[weight.index(max(weight))]
    kind = next(one for one in (DigestMismatch, NotThere, FetchError) if isinstance(worst, one))
    error = kind(message, hint=worst.hint)
    error.__cause__ = worst
    return error


def registry_errors(body: bytes) -> tuple[tuple[str, str], ...]:
    """Code and message of each error in the body of a registry's refusal, as far as it is any; both may be empty."""
    try:
        rows = json.loads(body)["errors"]
        return tuple((str(row.get("code") or ""), str(row.get("message") or "")) for row in rows)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ()


def quoted(body: bytes) -> str:
    """A registry's own words from the body of its refusal, in brackets; empty if there are none."""
    for row in registry_errors(body)[:1]:
        words = ": ".join(word for word in row if word)
        return f" ({printable(words.replace(chr(10), ' '), limit=200)})" if words else ""
    return ""
