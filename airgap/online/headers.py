"""What HTTP's addresses and header fields mean: pure functions over text that strangers wrote.

Everything here answers None or leaves out what it does not understand; what that means for a download is decided in `web`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

_PORTS: Final = {"http": 80, "https": 443}


def public(url: str) -> str:
    """The address as it may be shown and locked: without user, password, query and fragment, where secrets live."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "an address that is none"


def split_login(url: str) -> tuple[str, str]:
    """The address without user and password, and the Basic authorization they make; empty if it names none."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    user, _, password = login.partition(":")
    return urlunsplit(parts._replace(netloc=host)), basic(unquote(user), unquote(password))


def basic(user: str, password: str) -> str:
    """The Authorization field of this user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: secrets given for one origin are for no other. ValueError if the address is none."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def validator(headers: Mapping[str, str]) -> str:
    """What `If-Range` may name: a strong ETag, else a Last-Modified that is strong by RFC 9110 8.8.2.2; empty if none."""
    if etag := headers.get("ETag", "").strip():
        # A weak tag says "means the same", not "is the same bytes".
        return etag if re.fullmatch(r'"[\x21\x23-\x7e\x80-\xff]*"', etag) else ""
    modified = _seconds(headers.get("Last-Modified", ""))
    if modified is None:
        return ""
    date = _seconds(headers.get("Date", ""))
    # A file changed in the second in which it was served could change again within it.
    return headers["Last-Modified"].strip() if date is None or date - modified >= 1 else ""


def content_length(headers: Mapping[str, str]) -> int | None:
    """Bytes of the body as promised; None if it does not say, or chunks say it."""
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) and not headers.get("Transfer-Encoding") else None


@dataclass(frozen=True, slots=True)
class ContentRange:
    """`bytes first-last/total`; `total` None for `*`, first and last None for the `*` of status 416."""

    first: int | None
    last: int | None
    total: int | None


def content_range(text: str) -> ContentRange | None:
    """From the field's value; None if it is none of bytes, or contradicts itself."""
    match = re.fullmatch(r"bytes\s+(?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)", text.strip())
    if not match:
        return None
    first, last, total = (None if part in (None, "*") else int(part) for part in match.groups())
    if first is not None and last is not None and (last < first or (total is not None and last >= total)):
        return None
    return ContentRange(first, last, total)


def retry_after(text: str, *, now: float) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; `now` in seconds since the epoch."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    at = _seconds(text)
    return None if at is None else max(0.0, at - now)


def _seconds(date: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a 401 offers: the scheme in lower case, its parameters by name in lower case."""

    scheme: str
    parameters: Mapping[str, str]


_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for it
_PARAMETER: Final = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_SCHEME: Final = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)")


def challenges(text: str) -> tuple[Challenge, ...]:
    """All challenges of a WWW-Authenticate field (several fields joined by commas, quoted commas and quotes, RFC 9110 11.6.1)."""
    found: list[tuple[str, dict[str, str]]] = []
    place = 0
    while place < len(text):
        if found and (match := _PARAMETER.match(text, place)):
            quoted, plain = match[2], match[3]
            found[-1][1].setdefault(match[1].lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            place = match.end()
        elif match := _SCHEME.match(text, place):
            found.append((match[1].lower(), {}))
            place = match.end()
        else:
            place += 1
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def next_link(text: str) -> str:
    """The target of `rel="next"` in a Link field; empty if there is none."""
    for target, rest in re.findall(r"<([^<>]{1,2000})>([^<]*)", text):
        if re.search(r'(?:^|;)\s*rel\s*=\s*(?:"[^"]*\bnext\b[^"]*"|next\b)', rest, re.IGNORECASE):
            return str(target)
    return ""
