"""The lab's upstream over HTTP, on loopback: Docker's static host, GitHub, its API and storage, a registry with Bearer tokens.

    with Upstream(arches=("amd64",), engines=("28.5.2",)) as upstream:
        upstream.sources                      # for a manifest, or `--sources`
        upstream.served["/stable/…/docker-28.5.2.tgz"]   # bytes that went out, to count what is fetched twice

Release downloads and registry blobs answer with a redirect to another host name, as the real ones do, and that host refuses
requests that bring credentials along.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.lab import upstream
from tests.lab.images import DOCKER_LIST, INDEX, Image, images

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = "127.0.0.1"
ELSEWHERE = "127.0.0.2"
"""Another host as clients see it: credentials must not follow there."""
CHUNK = 256 << 10
DATE = formatdate(1_760_000_000, usegmt=True)


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler needs of a request; header names are lower-case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. A path as body is served with ranges."""

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Traffic:
    """What went over the wire, by path without its query; all counters may be read at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: list[tuple[str, str, int]] = []
        self.bytes: Counter[str] = Counter()
        self.rate = 0
        """Bytes a second that a response is held to; 0 for as fast as it goes."""

    def asked(self, method: str, path: str, status: int) -> None:
        with self._lock:
            self.requests.append((method, path, status))

    def sent(self, path: str, size: int) -> None:
        with self._lock:
            self.bytes[path] += size


class Site:
    """One HTTP server on a free port of `host`, answering by `handler`, until closed."""

    def __init__(self, host: str, handler: Callable[[Request], Answer], traffic: Traffic) -> None:
        self._open: set[socket.socket] = set()
        site = self

        class Handler(_Handler):
            def setup(self) -> None:
                site._open.add(self.request)
                super().setup()

            def finish(self) -> None:
                super().finish()
                site._open.discard(self.request)

            def answer(self, request: Request) -> Answer:
                return handler(request)

        Handler.traffic = traffic
        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop, and end the connections that clients keep alive."""
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._open):
            with suppress(OSError):  # gone by itself
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lab"
    disable_nagle_algorithm = True
    traffic: Traffic

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        # The four Accept types may come as one header or as four.
        headers["accept"] = ", ".join(self.headers.get_all("Accept") or [])
        answer = self.answer(Request(self.command, path, parse_qs(parts.query), headers))
        size = len(answer.body) if isinstance(answer.body, bytes) else answer.body.stat().st_size
        status, first, last = answer.status, 0, size - 1
        extra = dict(answer.headers)
        if isinstance(answer.body, Path):
            extra = {"Accept-Ranges": "bytes", "ETag": etag(answer.body), "Last-Modified": DATE, **extra}
            status, first, last = _range(headers, size, extra.get("ETag", ""))
            if status == 206:
                extra["Content-Range"] = f"bytes {first}-{last}/{size}"
            elif status == 416:
                extra["Content-Range"] = f"bytes */{size}"
        self.traffic.asked(self.command, path, status)
        self.send_response(status)
        self.send_header("Content-Length", str(last - first + 1 if status != 416 else 0))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or status == 416:
            return
        try:
            if isinstance(answer.body, bytes):
                self.wfile.write(answer.body)
                self.traffic.sent(path, size)
            else:
                with answer.body.open("rb") as file:
                    self._send(path, file, first, last)
        except OSError:
            self.close_connection = True  # the client went away

    def _send(self, path: str, file: IO[bytes], first: int, last: int) -> None:
        begun, sent = time.monotonic(), 0
        while first <= last:
            done = os.sendfile(self.connection.fileno(), file.fileno(), first, min(CHUNK, last - first + 1))
            if done == 0:
                raise ConnectionResetError
            first += done
            sent += done
            self.traffic.sent(path, done)
            if self.traffic.rate:
                time.sleep(max(0.0, begun + sent / self.traffic.rate - time.monotonic()))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the traffic is counted."""


def etag(path: Path) -> str:
    """A strong validator that changes when the file does."""
    facts = path.stat()
    return f'"{facts.st_size:x}-{facts.st_mtime_ns:x}"'


def _range(headers: Mapping[str, str], size: int, validator: str) -> tuple[int, int, int]:
    """Status, first and last byte for a request's Range and If-Range; only the forms that download clients send."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
    if not found or ("if-range" in headers and headers["if-range"] not in (validator, DATE)):
        return 200, 0, size - 1
    first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    return (206, first, last) if first <= last else (416, 0, 0)


def _not_found(what: str = "Not Found") -> Answer:
    return Answer(404, f"{what}\n".encode(), {"Content-Type": "text/plain"})


def _json(document: object, headers: Mapping[str, str] = {}, *, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document, indent=2).encode(), {"Content-Type": "application/json", **headers})


class Upstream:
    """All the servers, from `with` to its end. What they serve is made (once) before they start."""

    def __init__(
        self,
        *,
        arches: Iterable[str] = ("amd64", "arm64"),
        engines: Iterable[str] = ("28.5.2",),
        only_images: Iterable[str] = (),
        with_runtime: bool = True,
    ) -> None:
        arches = tuple(arches)
        self.traffic = Traffic()
        self._static = upstream.static(tuple(engines), arches)
        self._releases = list(upstream.releases(arches, with_runtime=with_runtime))
        self._assets = {path: content for release in self._releases for path, content in release.tree()}
        self._registry = Registry(images(arches, only=only_images))
        self._sites: list[Site] = []

    def __enter__(self) -> Self:
        elsewhere = self._start(ELSEWHERE, self._elsewhere)
        static = self._start(HERE, self._static_host)
        github = self._start(HERE, lambda request: self._github(request, elsewhere.url))
        api = self._start(HERE, lambda request: self._api(request, github.url))
        token = self._start(HERE, self._registry.token)
        registry = self._start(HERE, lambda request: self._registry.answer(request, token=token.url, blobs=elsewhere.url))
        self.registry = registry.url
        self.sources: dict[str, Any] = {
            "docker_static": [static.url],
            "github": [github.url],
            "github_api": [api.url],
            "registries": {"docker.io": [registry.url]},
        }
        return self

    def __exit__(self, *_: object) -> None:
        while self._sites:
            self._sites.pop().close()

    def _start(self, host: str, handler: Callable[[Request], Answer]) -> Site:
        site = Site(host, handler, self.traffic)
        self._sites.append(site)
        return site

    @property
    def served(self) -> Counter[str]:
        """Bytes of bodies that went out, by path; a blob's path is `/blobs/sha256:…`, an asset's `/<repository>/releases/…`."""
        return self.traffic.bytes

    def sources_yaml(self) -> str:
        """The sources as a file for `--sources`; JSON is YAML."""
        return json.dumps(self.sources, indent=2) + "\n"

    def _static_host(self, request: Request) -> Answer:
        content = self._static.get(request.path)
        if content is None:
            return _not_found()
        return Answer(200, content, {"Content-Type": "text/html" if isinstance(content, bytes) else "application/x-tar"})

    def _github(self, request: Request, elsewhere: str) -> Answer:
        if request.path not in self._assets:
            return _not_found()
        return Answer(302, headers={"Location": f"{elsewhere}{quote(request.path)}?sig={secrets.token_hex(8)}"})

    def _elsewhere(self, request: Request) -> Answer:
        """Storage behind signed addresses: it takes no other credentials, and says so as S3 does."""
        if "authorization" in request.headers:
            return Answer(400, b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>")
        if "sig" not in request.query:
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if request.path.startswith("/blobs/"):
            blob = self._registry.blob(request.path.removeprefix("/blobs/"))
            return Answer(200, blob, {"Content-Type": "application/octet-stream"}) if blob is not None else _not_found()
        content = self._assets.get(request.path)
        return Answer(200, content, {"Content-Type": "application/octet-stream"}) if content is not None else _not_found()

    def _api(self, request: Request, github: str) -> Answer:
        limits = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "59"}
        found = re.fullmatch(r"/repos/([^/]+/[^/]+)/releases(?:/(latest|tags/(.+)))?", request.path)
        rows = [release for release in self._releases if found and release.repository == found[1]]
        if not found or not rows:
            return _json({"message": "Not Found"}, limits, status=404)
        if not found[2]:
            page = int(request.query.get("page", ["1"])[0])
            return _json([row.to_json(github) for row in rows] if page == 1 else [], limits)
        if found[3]:
            rows = [row for row in rows if row.tag == found[3]]
        return _json(rows[0].to_json(github), limits) if rows else _json({"message": "Not Found"}, limits, status=404)


class Registry:
    """The pulling half of the distribution API as Docker Hub speaks it, over images in memory and blobs in the cache."""

    def __init__(self, offered: Iterable[Image]) -> None:
        self._repositories: dict[str, list[Image]] = {}
        for image in offered:
            self._repositories.setdefault(image.repository, []).append(image)
        self._tokens: dict[str, str] = {}

    def token(self, request: Request) -> Answer:
        """A token for the scope asked for, and for no other."""
        scope = request.query.get("scope", [""])[0]
        if request.path != "/token" or request.query.get("service") != ["registry.lab"]:
            return _not_found()
        token = secrets.token_urlsafe(24)
        self._tokens[token] = scope
        return _json({"token": token, "access_token": token, "expires_in": 300, "issued_at": "2026-11-24T00:00:00Z"})

    def blob(self, digest: str) -> bytes | Path | None:
        """The blob's content, whichever repository has it."""
        for rows in self._repositories.values():
            for image in rows:
                if found := image.blobs.get(digest):
                    return found.content
        return None

    def answer(self, request: Request, *, token: str, blobs: str) -> Answer:
        """As the distribution spec has it, with a challenge where there is no token for this repository."""
        version = {"Docker-Distribution-Api-Version": "registry/2.0"}
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)", request.path)
        scope = f"repository:{found[1]}:pull" if found else ""
        given = request.headers.get("authorization", "")
        if not given.startswith("Bearer ") or self._tokens.get(given.removeprefix("Bearer ")) != scope:
            challenge = f'Bearer realm="{token}/token",service="registry.lab"' + (f',scope="{scope}"' if scope else "")
            return _error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge, **version})
        if not found:
            return _json({}, version) if request.path == "/v2/" else _not_found()
        name, what, key = found.groups()
        rows = self._repositories.get(name)
        if rows is None:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry", version)
        if what == "tags":
            return _tags(name, sorted({tag for row in rows for tag in row.tags}), request, version)
        if what == "blobs":
            if not any(key in row.blobs for row in rows):
                return _error(404, "BLOB_UNKNOWN", "blob unknown to registry", version)
            return Answer(307, headers={"Location": f"{blobs}/blobs/{key}?sig={secrets.token_hex(8)}", **version})
        return _manifest(rows, key, request, version)


def _manifest(rows: Iterable[Image], key: str, request: Request, version: Mapping[str, str]) -> Answer:
    for row in rows:
        digest = row.root if key in row.tags else key
        if (blob := row.manifests.get(digest)) is None:
            continue
        accepted = {item.split(";")[0].strip() for item in request.headers.get("accept", "").split(",")}
        if blob.media_type == INDEX and not accepted & {INDEX, "*/*"}:
            message = "OCI index found, but accept header does not support OCI indexes"
            return _error(404, "MANIFEST_UNKNOWN", message, version)
        if blob.media_type == DOCKER_LIST and DOCKER_LIST not in accepted:
            # The real one answers with the manifest for linux/amd64 instead, and a digest that is not the list's.
            assert isinstance(blob.content, bytes)
            digest = json.loads(blob.content)["manifests"][0]["digest"]
            blob = row.manifests[digest]
        headers = {"Content-Type": blob.media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"', **version}
        if request.method == "GET":
            headers |= {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "99;w=21600", "Docker-RateLimit-Source": HERE}
        return Answer(200, blob.content, headers)
    return _error(404, "MANIFEST_UNKNOWN", "manifest unknown", version)


def _tags(name: str, tags: list[str], request: Request, version: Mapping[str, str]) -> Answer:
    """In pages, with the Link header to the next one."""
    after, count = request.query.get("last", [""])[0], int(request.query.get("n", ["100"])[0])
    rest = [tag for tag in tags if tag > after]
    more = {"Link": f'</v2/{name}/tags/list?last={quote(rest[count - 1])}&n={count}>; rel="next"'} if len(rest) > count else {}
    return _json({"name": name, "tags": rest[:count]}, {**version, **more})


def _error(status: int, code: str, message: str, headers: Mapping[str, str]) -> Answer:
    return _json({"errors": [{"code": code, "message": message, "detail": None}]}, headers, status=status)
