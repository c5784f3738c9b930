"""A real HTTP server that misbehaves as told: resets, stalls, lies, and counts what it sends."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request as it arrived, and the bytes of body it was given."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    sent: int = 0


Route = Callable[["Handler", Seen], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True
    site: Site

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        seen = Seen(self.command, self.path, dict(self.headers.items()), self.rfile.read(size))
        self.seen = seen
        with self.site.lock:
            self.site.seen.append(seen)
        route = self.site.routes.get(self.path.partition("?")[0]) or self.site.fallback
        try:
            route(self, seen)
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = answer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return

    def give(self, status: int, body: bytes = b"", /, **fields: str) -> None:
        """A whole answer; header fields with _ for -."""
        self.head(status, {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in fields.items()}})
        if self.command != "HEAD":
            self.send(body)

    def head(self, status: int, fields: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.seen.sent += len(data)

    def reset(self) -> None:
        """The connection ends as if a box on the way had forgotten it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


class Site:
    """The server's memory: what it serves by path, and what it was asked for."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.fallback: Route = lambda exchange, seen: exchange.give(404, b"no such thing")
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.port = 0

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def asked(self, path: str, method: str = "GET") -> list[Seen]:
        return [item for item in self.seen if item.path.partition("?")[0] == path and item.method == method]

    def sent(self, path: str) -> int:
        """Bytes of body sent for this path, over all requests."""
        return sum(item.sent for item in self.asked(path))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serving() -> Iterator[Site]:
    """A site on loopback."""
    site = Site()
    server = _Server(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class File:
    """A file with ranges. Each item of `trouble` is called once, in order, with the exchange and the body it is to send."""

    data: bytes
    etag: str = '"v1"'
    ranges: bool = True
    fields: Mapping[str, str] = field(default_factory=dict)
    trouble: list[Callable[[Handler, bytes], None]] = field(default_factory=list)

    def __call__(self, exchange: Handler, seen: Seen) -> None:
        fields = {"Accept-Ranges": "bytes", **({"ETag": self.etag} if self.etag else {}), **self.fields}
        begin, status = 0, 200
        match = re.fullmatch(r"bytes=(\d+)-", seen.headers.get("Range", ""))
        if match and self.ranges and seen.headers.get("If-Range", self.etag) == self.etag:
            begin, status = int(match[1]), 206
            if begin >= len(self.data):
                exchange.give(416, b"", Content_Range=f"bytes */{len(self.data)}")
                return
            fields["Content-Range"] = f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}"
        body = self.data[begin:]
        fields.setdefault("Content-Length", str(len(body)))
        trouble = self.trouble.pop(0) if self.trouble else None
        exchange.head(status, fields)
        if seen.method == "HEAD":
            return
        if trouble:
            trouble(exchange, body)
        else:
            exchange.send(body)


def in_turn(*routes: Route) -> Route:
    """The first route answers the first request, and so on."""
    waiting = iter(routes)

    def route(exchange: Handler, seen: Seen) -> None:
        next(waiting)(exchange, seen)

    return route


def reset_after(count: int) -> Callable[[Handler, bytes], None]:
    """Send so many bytes, then reset."""

    def trouble(exchange: Handler, body: bytes) -> None:
        exchange.send(body[:count])
        time.sleep(0.05)  # what was sent must arrive before the reset overtakes it
        exchange.reset()

    return trouble


def end_after(count: int) -> Callable[[Handler, bytes], None]:
    """Send so many bytes, then end as if that were all."""

    def trouble(exchange: Handler, body: bytes) -> None:
        exchange.send(body[:count])
        exchange.close_connection = True

    return trouble


def stall_after(count: int, seconds: float = 5.0) -> Callable[[Handler, bytes], None]:
    """Send so many bytes, then nothing for long; ends when the client goes."""

    def trouble(exchange: Handler, body: bytes) -> None:
        exchange.send(body[:count])
        exchange.close_connection = True
        exchange.connection.settimeout(seconds)
        exchange.connection.recv(1)

    return trouble


def slowly(piece: int, seconds: float) -> Callable[[Handler, bytes], None]:
    """Send in pieces, with a pause after each."""

    def trouble(exchange: Handler, body: bytes) -> None:
        for start in range(0, len(body), piece):
            exchange.send(body[start : start + piece])
            time.sleep(seconds)

    return trouble
