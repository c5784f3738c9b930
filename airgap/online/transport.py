"""One HTTP exchange over requests, whose only importer this is; every exception of it and of urllib3 ends here.

No redirect, no retry, no cookie, no `.netrc`: what of it is wanted is decided in `web`. Proxies and certificates are
requests' own business, which means the environment's (`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`); TLS is never off.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import Final

import requests
import urllib3

from airgap.errors import FetchError
from airgap.online.headers import origin, public

PIECE: Final = 1 << 20
FOREIGN: Final = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError)
"""What an exchange may raise: ValueError stands for the few that urllib3 derives from nothing else (ProxySchemeUnsupported)."""


class Failure(FetchError):
    """A request that brought nothing. `again` if it may work when tried again, after `after` seconds if the server says so.

    `status` is 0 if there was no answer at all; `body` is the beginning of what came with an error.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        again: bool,
        after: float | None = None,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message, hint=hint)
        self.again, self.after, self.status, self.headers, self.body = again, after, status, headers or {}, body


class Untrusted(Failure):
    """A server whose certificate is none that we trust."""


class Stopped(FetchError):
    """Given up because something else failed or the user stopped it; what came is kept for the next run."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A body of `size` bytes that is sent as it is read; `pieces` begins anew at each call, once for each attempt.

    What it raises of ours ends the exchange and reaches the caller as it is.
    """

    size: int
    pieces: Callable[[], Iterator[bytes]]

    def __len__(self) -> int:
        """What requests takes for Content-Length."""
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        """As requests wants to read it."""
        return self.pieces()


Body = bytes | Outgoing


class Answer:
    """What a server answered; `read` until it returns nothing, and `close` in any case."""

    def __init__(self, response: requests.Response, *, url: str, transport: Transport) -> None:
        self._response = response
        self._transport = transport
        self.url = url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def read(self) -> bytes:
        """The next bytes, undecoded, as many as have come and at most a piece; nothing at the end. Raises Failure or Stopped."""
        # read1, not read: a connection that breaks takes what read() has gathered with it, and a kill as well.
        try:
            data = self._response.raw.read1(PIECE, decode_content=False) or b""
        except FOREIGN as cause:
            self._transport.check()
            raise failure(cause, self.url, during="while it was sent") from cause
        # After a cancel the socket may give us what was never meant to be read so.
        self._transport.check()
        return data

    def begin(self, limit: int) -> bytes:
        """The body as far as `limit` bytes; read to the end, its connection serves again."""
        data = b""
        while len(data) <= limit and (piece := self.read()):
            data += piece
        return data[:limit]

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.forget(self)
        self._response.close()

    def shut(self) -> None:
        """Wake a thread that waits in `read`; called from another one."""
        with suppress(RuntimeError, *FOREIGN):
            self._response.raw.shutdown()


class Transport:
    """Exchanges, for several threads at once.

    `connect` and `stall` are seconds: until a connection is there or takes the next piece of a body, and between two arrivals of
    bytes on it. `ca` is a file with the certificates to trust, instead of what the environment says.
    """

    def __init__(
        self, *, connect: float, stall: float, ca: str = "", adapter: requests.adapters.BaseAdapter | None = None
    ) -> None:
        self._timeout = (connect, stall)
        self._ca = ca
        # The session only prepares requests and reads the environment: its own `send` would read the whole body of a redirect.
        self._session = requests.Session()
        self._adapter = adapter or requests.adapters.HTTPAdapter(pool_connections=16, pool_maxsize=16)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._open: set[Answer] = set()

    def open(self, method: str, url: str, headers: Mapping[str, str], body: Body = b"") -> Answer:
        """The answer, whatever its status, with its body unread. Raises Failure or Stopped."""
        self.check()
        if isinstance(body, Outgoing):
            body = Outgoing(body.size, partial(self._checked, body))
        try:
            fields = {"Accept-Encoding": "identity", **headers}
            request = requests.Request(method, url, headers=fields, data=body or None, auth=_given)
            prepared = self._session.prepare_request(request)
            settings = self._session.merge_environment_settings(prepared.url or url, {}, True, self._ca or True, None)
            response = self._adapter.send(
                prepared, stream=True, timeout=self._timeout, verify=settings["verify"] or True, cert=settings["cert"],
                proxies=settings["proxies"],
            )  # fmt: skip
        except FOREIGN as cause:
            self.check()
            raise failure(cause, url) from cause
        answer = Answer(response, url=url, transport=self)
        with self._lock:
            self._open.add(answer)
        return answer

    def _checked(self, body: Outgoing) -> Iterator[bytes]:
        for piece in body:
            self.check()
            yield piece

    def forget(self, answer: Answer) -> None:
        """The answer needs no waking any more."""
        with self._lock:
            self._open.discard(answer)

    def check(self) -> None:
        """Raise Stopped after `cancel`."""
        if self._stop.is_set():
            raise Stopped("stopped before everything was fetched", hint="run the same command again; it goes on where it stopped")

    def pause(self, seconds: float) -> None:
        """Wait, but not after `cancel`."""
        self._stop.wait(seconds)

    def cancel(self) -> None:
        """Afterwards nothing new begins and what runs ends with Stopped; a wait for a first answer may last one `stall` more."""
        self._stop.set()
        with self._lock:
            running = tuple(self._open)
        for answer in running:
            answer.shut()

    def close(self) -> None:
        """Close idle connections."""
        self._adapter.close()
        self._session.close()


def _given(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An "authentication" that adds nothing: without one, requests looks into `.netrc`, whose `default` is for any stranger."""
    return request


def failure(cause: BaseException, url: str, *, during: str = "") -> Failure:
    """The cause in our words. Its own are never shown: they hold whole addresses, with the tokens that CDNs put there."""
    chain = tuple(_chain(cause))
    place = public(url)
    if shown := next((item for item in chain if isinstance(item, ssl.SSLCertVerificationError)), None):
        return Untrusted(
            f"{place}: its certificate is not trusted ({shown.verify_message or shown.reason})",
            hint="if a proxy of yours opens TLS, set REQUESTS_CA_BUNDLE to a file with its CA, "
            "often /etc/ssl/certs/ca-certificates.crt",
            again=False,
        )
    what, hint = _words(chain, origin_host(url))
    final = isinstance(cause, _OURS_TO_MEND) or _of_certificates(cause)
    return Failure(f"{place}: {what}{' ' + during if during and not final else ''}", hint=hint, again=not final)


_OURS_TO_MEND: Final = (
    requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader, urllib3.exceptions.LocationValueError, urllib3.exceptions.ProxySchemeUnsupported,
)  # fmt: skip


def _of_certificates(cause: BaseException) -> bool:
    """requests says so with a bare OSError; those of sockets have a number."""
    return type(cause) is OSError and cause.errno is None


def origin_host(url: str) -> str:
    """The host in this address, for messages."""
    try:
        return origin(url)[1] or "?"
    except ValueError:
        return "?"


def _words(chain: tuple[BaseException, ...], host: str) -> tuple[str, str | None]:
    """What to say of it, and what to do about it; the first that fits, so the narrow ones stand first."""
    for classes, what, hint in _KINDS:
        if any(isinstance(item, classes) for item in chain):
            return what.format(host=host), hint
    if tls := next((item for item in chain if isinstance(item, ssl.SSLError)), None):
        return f"TLS failed ({tls.reason or 'broken off'})", "is it really https there? If it is plain HTTP, write http://"
    for item in reversed(chain):
        # requests' own exceptions are OSErrors too, and some carry whole addresses as text.
        if isinstance(item, OSError) and not isinstance(item, requests.RequestException) and item.strerror:
            return item.strerror.lower(), None
    if _of_certificates(chain[0]):
        return "the certificates to trust cannot be read", "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names a file that is not there"
    return f"what came is no proper HTTP ({type(chain[-1]).__name__})", None


_NETWORK: Final = "check the network, and whether it needs a proxy (HTTPS_PROXY)"
_PROXY: Final = "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
_KINDS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str | None], ...]] = (
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), "the proxy does not let us through", _PROXY),
    (urllib3.exceptions.NameResolutionError, "the name {host} cannot be resolved", _NETWORK),
    # urllib3 counts a refused connection among the timeouts; its own reason says more.
    (ConnectionRefusedError, "the connection was refused", _NETWORK),
    (
        (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError),
        "it stalled: nothing came for too long",
        None,
    ),
    (
        (requests.exceptions.ConnectTimeout, TimeoutError),
        "no connection came about in time",
        _NETWORK,
    ),
    (_OURS_TO_MEND, "is no address, proxy or header that can be used", "write http:// or https://, a host and a path"),
    ((RemoteDisconnected, IncompleteRead, urllib3.exceptions.IncompleteRead), "the connection broke off", None),
)


def _chain(cause: BaseException) -> Iterator[BaseException]:
    """The exception and everything it wraps, outermost first; requests and urllib3 wrap by argument as often as by cause."""
    waiting, seen = [cause], set[int]()
    while waiting:
        item = waiting.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        inner = (*item.args, getattr(item, "reason", None), item.__cause__, item.__context__)
        waiting += [other for other in inner if isinstance(other, BaseException)]
