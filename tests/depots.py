"""A registry to push to, as strict as the real ones, that fails as told; and Debian's distribution, where it is installed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

from airgap.oci import INDEX, INDEXES, MANIFEST
from tests.serving import _Server

BCRYPT_OF_PW = "$2y$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Door(BaseHTTPRequestHandler):
    """Requests into the depot. `trouble` of it may answer first."""

    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True
    depot: FakeDepot

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self.depot.lock:
            self.depot.log.append(f"{self.command} {unquote(self.path)}")
            self.depot.authorizations.append((parts.path, self.headers.get("Authorization", "")))
            trouble = next((item for item in self.depot.trouble if item.fits(self.command, unquote(self.path))), None)
            if trouble:
                trouble.times -= 1
        try:
            if trouble:
                trouble.act(self)
            elif parts.path == "/token":
                self.depot.token(self, parse_qs(parts.query))
            elif self.depot.admits(self, parts.path):
                self.depot.route(self, parts.path)
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return

    def body(self, most: int | None = None) -> bytes:
        size = int(self.headers.get("Content-Length", "0"))
        self.rest = size - min(size, most or size)
        return self.rfile.read(size - self.rest)

    def give(self, status: int, body: bytes = b"", /, **fields: str) -> None:
        if not hasattr(self, "rest") and self.command in ("PUT", "POST"):
            self.body()
        self.__dict__.pop("rest", None)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **fields}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str = "", /, **fields: str) -> None:
        self.give(status, json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode(), **fields)

    def reset(self) -> None:
        self.__dict__.pop("rest", None)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Trouble:
    """For the next `times` requests that fit: method, and a pattern for path and query."""

    method: str
    pattern: str
    act: Callable[[Door], None]
    times: int = 1

    def fits(self, method: str, target: str) -> bool:
        return self.times > 0 and method == self.method and bool(re.search(self.pattern, target))


def cut_after(count: int) -> Callable[[Door], None]:
    """Read so many bytes of the body, then break off."""

    def act(door: Door) -> None:
        door.body(count)
        door.reset()

    return act


def refusing(status: int, code: str, message: str = "") -> Callable[[Door], None]:
    return lambda door: door.refuse(status, code, message)


def giving(status: int, body: bytes = b"", **fields: str) -> Callable[[Door], None]:
    return lambda door: door.give(status, body, **fields)


@dataclass
class FakeDepot:
    """`auth` is "", "basic" or "bearer"; `users` by name. `insists` on all children of an index, `oci` takes OCI's types."""

    port: int = 0
    auth: str = ""
    users: dict[str, str] = field(default_factory=dict)
    insists: bool = True
    oci: bool = True
    mounts: bool = True
    location: str = ""
    terse: bool = False
    """Challenges name no scope."""
    trouble: list[Trouble] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    authorizations: list[tuple[str, str]] = field(default_factory=list)
    scopes_asked: list[list[str]] = field(default_factory=list)
    blobs: dict[str, set[str]] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def count(self, method: str, pattern: str = "") -> int:
        return sum(line.startswith(f"{method} ") and bool(re.search(pattern, line)) for line in self.log)

    def tags(self) -> dict[str, str]:
        """What each tag means."""
        return {
            f"{repository}:{name}": digest(data)
            for repository, found in self.manifests.items()
            for name, (_, data) in found.items()
            if not name.startswith("sha256:")
        }

    # ---- the API -----------------------------------------------------------------------------------------------------

    def route(self, door: Door, path: str) -> None:
        if path == "/v2/":
            door.give(200, b"{}")
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/", path):
            self.begin(door, match[1])
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/([^/]+)", path):
            self.finish(door, match[1], match[2])
        elif match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", path):
            with self.lock:
                there = match[2] in self.blobs.get(match[1], set())
            door.give(200) if there else door.refuse(404, "BLOB_UNKNOWN")
        elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            self.put(door, *match.groups()) if door.command == "PUT" else self.look(door, *match.groups())
        else:
            door.refuse(404, "NAME_UNKNOWN")

    def begin(self, door: Door, repository: str) -> None:
        assert door.command == "POST"
        source, wanted = door.query.get("from"), door.query.get("mount", "")
        with self.lock:
            if source and self.mounts and wanted in self.blobs.get(source, set()):
                self.blobs.setdefault(repository, set()).add(wanted)
                door.give(201, Location=f"/v2/{repository}/blobs/{wanted}", Docker_Content_Digest=wanted)
                return
            session = f"s{next(self.numbers)}"
            self.sessions[session] = repository
        door.give(202, Location=f"{self.location}/v2/{repository}/blobs/uploads/{session}?_state=a%2Bb")

    def finish(self, door: Door, repository: str, session: str) -> None:
        body = door.body()
        assert door.query["_state"] == "a+b"
        assert door.headers["Content-Type"] == "application/octet-stream"
        with self.lock:
            if self.sessions.pop(session, None) != repository:
                door.refuse(404, "BLOB_UPLOAD_UNKNOWN")
            elif digest(body) != door.query["digest"]:
                door.refuse(400, "DIGEST_INVALID")
            else:
                self.data[digest(body)] = body
                self.blobs.setdefault(repository, set()).add(digest(body))
                door.give(201, Location=f"/v2/{repository}/blobs/{digest(body)}")

    def look(self, door: Door, repository: str, name: str) -> None:
        with self.lock:
            found = self.manifests.get(repository, {}).get(name)
        if not found:
            door.refuse(404, "MANIFEST_UNKNOWN")
            return
        assert found[0] in door.headers["Accept"]
        door.give(200, b"" if door.command == "HEAD" else found[1], Content_Type=found[0], Docker_Content_Digest=digest(found[1]))

    def put(self, door: Door, repository: str, name: str) -> None:
        data, kind = door.body(), door.headers["Content-Type"]
        document = json.loads(data)
        assert document.get("mediaType", kind) == kind
        with self.lock:
            here = self.manifests.setdefault(repository, {})
            if kind in (INDEX, MANIFEST) and not self.oci:
                door.refuse(400, "MANIFEST_INVALID", "unrecognized manifest content type")
            elif not self.whole(repository, kind, document):
                door.refuse(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
            else:
                assert not name.startswith("sha256:") or name == digest(data)
                here[digest(data)] = here[name] = (kind, data)
                door.give(201, Docker_Content_Digest=digest(data))

    def whole(self, repository: str, kind: str, document: dict[str, Any]) -> bool:
        if kind in INDEXES:
            return not self.insists or {item["digest"] for item in document["manifests"]} <= self.manifests[repository].keys()
        return {item["digest"] for item in (document["config"], *document["layers"])} <= self.blobs.get(repository, set())

    # ---- who may -----------------------------------------------------------------------------------------------------

    def admits(self, door: Door, path: str) -> bool:
        """Tokens must have every scope that the request needs, as distribution's access controller has it."""
        scheme, _, word = door.headers.get("Authorization", "").partition(" ")
        match = re.match(r"/v2/(.+)/(?:blobs|manifests)/", path)
        needed = [f"repository:{match[1]}:{'pull,push' if door.command in ('PUT', 'POST') else 'pull'}"] if match else []
        if door.query.get("from"):
            needed.append(f"repository:{door.query['from']}:pull")
        if self.auth == "basic":
            user, _, password = base64.b64decode(word).decode().partition(":")
            if scheme == "Basic" and self.users.get(user) == password:
                return True
            door.refuse(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="depot"')
            return False
        if self.auth == "bearer":
            granted = json.loads(base64.b64decode(word)) if scheme == "Bearer" else []
            if all(self.covered(item, granted) for item in needed) and (granted or match):
                return True
            challenge = f'Bearer realm="http://{self.host}/token",service="depot",scope="{" ".join(needed)}"'
            challenge = challenge.partition(",scope")[0] if self.terse else challenge
            door.refuse(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
            return False
        return True

    @staticmethod
    def covered(scope: str, granted: list[str]) -> bool:
        resource, _, actions = scope.rpartition(":")
        mine = [item.rpartition(":")[2].split(",") for item in granted if item.rpartition(":")[0] == resource]
        return any(set(actions.split(",")) <= set(item) for item in mine)

    def token(self, door: Door, query: dict[str, list[str]]) -> None:
        """Who has a login gets what is asked for; others may pull."""
        scheme, _, word = door.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(word).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if user and self.users.get(user) != password:
            door.give(401)
            return
        scopes = query.get("scope", [])
        with self.lock:
            self.scopes_asked.append(scopes)
        granted = scopes if user else [item.replace("pull,push", "pull") for item in scopes]
        door.give(200, json.dumps({"token": base64.b64encode(json.dumps(granted).encode()).decode()}).encode())


@contextmanager
def depot_serving(**knobs: Any) -> Iterator[FakeDepot]:
    """A fake depot on loopback."""
    depot = FakeDepot(**knobs)
    server = _Server(("127.0.0.1", 0), type("Bound", (Door,), {"depot": depot}))
    depot.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield depot
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ---- the real one ----------------------------------------------------------------------------------------------------


@dataclass
class Distribution:
    """Debian's docker-registry, running."""

    port: int
    log: Path
    folder: Path
    scheme: str = "http"

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def asked(self, *methods: str) -> int:
        """Requests of these methods, as the server counted them."""
        lines = [line for line in self.log.read_text().splitlines() if '"HEAD ' in line or '"P' in line or '"GET ' in line]
        return sum(any(f'"{method} /v2/' in line for method in methods) for line in lines)

    def get(self, path: str, accept: str = "*/*") -> bytes:
        with urlopen(Request(f"{self.scheme}://{self.host}{path}", headers={"Accept": accept}), timeout=10) as answer:
            return bytes(answer.read())


@contextmanager
def distribution(folder: Path, *, extra: str = "", scheme: str = "http") -> Iterator[Distribution]:
    """distribution 2.8 with its storage in `folder`. `extra` is more of the `http` section's and of the top's YAML."""
    program = shutil.which("docker-registry")
    assert program
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config, log = folder / "config.yml", folder / "log"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
        f'http:\n  addr: "127.0.0.1:{port}"\n  secret: s\n{extra}'
    )
    with log.open("wb") as out:
        process = subprocess.Popen([program, "serve", str(config)], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield Distribution(port, log, folder, scheme)
    finally:
        process.terminate()
        process.wait(10)
