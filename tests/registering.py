"""A registry on a `Site`: images by tag and digest, behind no login, Basic, or tokens as Docker Hub's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from airgap.oci import CONFIG, INDEX, MANIFEST
from tests.serving import File, Handler, Seen, Site

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(data: bytes, media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


@dataclass
class FakeRegistry:
    """Serves below `site`'s /v2/. `auth` is "", "basic" or "bearer"; `users` by name; tokens are good for `uses` requests."""

    site: Site
    auth: str = ""
    users: dict[str, str] = field(default_factory=dict)
    private: bool = False
    uses: int = 1_000_000
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    blobs: dict[str, File] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    realm: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.site.fallback = self.answer
        self.site.routes["/token"] = self.token

    # ---- content -----------------------------------------------------------------------------------------------------

    def put(self, repository: str, data: bytes, media_type: str, *tags: str) -> dict[str, object]:
        """A manifest or index as given; returns its descriptor."""
        for name in (digest(data), *tags):
            self.manifests.setdefault(repository, {})[name] = (media_type, data)
        return described(data, media_type)

    def blob(self, data: bytes, media_type: str) -> dict[str, object]:
        self.blobs[digest(data)] = File(data, etag=f'"{digest(data)}"')
        return described(data, media_type)

    def image(
        self, repository: str, *tags: str, platform: str = "linux/amd64", layers: tuple[bytes, ...] = (b"layer",)
    ) -> dict[str, object]:
        """A lone manifest."""
        config = json.dumps(dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))).encode()
        document = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self.blob(config, CONFIG),
            "layers": [self.blob(layer, LAYER) for layer in layers],
        }  # fmt: skip
        return self.put(repository, json.dumps(document).encode(), MANIFEST, *tags)

    def index(
        self, repository: str, *tags: str, platforms: tuple[str, ...] = ("linux/amd64", "linux/arm64")
    ) -> dict[str, object]:
        """An index with one image and one attestation a platform."""
        children = []
        for platform in platforms:
            system, architecture = platform.split("/")[:2]
            child = self.image(repository, platform=platform, layers=(b"shared", f"layer of {repository} {platform}".encode()))
            children.append({**child, "platform": {"os": system, "architecture": architecture}})
            proof = self.image(repository, platform="unknown/unknown", layers=(f"proof {repository} {platform}".encode(),))
            notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": str(child["digest"])}
            children.append({**proof, "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": notes})
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
        return self.put(repository, json.dumps(document).encode(), INDEX, *tags)

    # ---- the API -----------------------------------------------------------------------------------------------------

    def answer(self, exchange: Handler, seen: Seen) -> None:
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/([^/?]+)(?:\?.*)?", seen.path)
        if not match:
            exchange.give(404)
            return
        repository, kind, name = match.groups()
        if not self.admitted(exchange, seen, repository):
            return
        if kind == "tags":
            self.tags(exchange, seen, repository)
        elif kind == "blobs" and name in self.blobs:
            self.blobs[name](exchange, seen)
        elif kind == "manifests" and (found := self.manifests.get(repository, {}).get(name)):
            media_type, data = found
            if media_type not in seen.headers.get("Accept", ""):
                exchange.give(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "accept header does not support it"}]}')
                return
            fields = {"Content-Type": media_type, "Docker-Content-Digest": digest(data), **self.fields}
            fields["Content-Length"] = str(len(data))
            exchange.head(200, {name: value for name, value in fields.items() if value})
            if seen.method == "GET":
                exchange.send(data)
        else:
            code = "MANIFEST_UNKNOWN" if repository in self.manifests else "NAME_UNKNOWN"
            exchange.give(404, json.dumps({"errors": [{"code": code, "message": "not known\x1b[31m"}]}).encode())

    def tags(self, exchange: Handler, seen: Seen, repository: str) -> None:
        names = sorted(name for name in self.manifests.get(repository, {}) if ":" not in name)
        query = parse_qs(urlsplit(seen.path).query)
        count, last = min(2, int(query.get("n", ["2"])[0])), query.get("last", [""])[0]
        page = [name for name in names if name > last][:count]
        more = page and page[-1] != names[-1]
        fields = {"Link": f'</v2/{repository}/tags/list?n={count}&last={page[-1]}>; rel="next"'} if more else {}
        exchange.give(200, json.dumps({"name": repository, "tags": page or None}).encode(), **fields)

    # ---- who may -----------------------------------------------------------------------------------------------------

    def admitted(self, exchange: Handler, seen: Seen, repository: str) -> bool:
        given = seen.headers.get("Authorization", "")
        if not self.auth or (self.user(given) if self.auth == "basic" else self.good(given, repository)):
            return True
        realm = self.realm or self.site.url("/token")
        challenge = {
            "basic": 'Basic realm="the registry"',
            "bearer": f'Bearer realm="{realm}",service="the.service",scope="repository:{repository}:pull"',
        }[self.auth]
        body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}'
        exchange.give(401, body, WWW_Authenticate=challenge)
        return False

    def user(self, given: str) -> str:
        scheme, _, word = given.partition(" ")
        if scheme != "Basic":
            return ""
        user, _, password = base64.b64decode(word).decode().partition(":")
        return user if self.users.get(user) == password else ""

    def good(self, given: str, repository: str) -> bool:
        with self.lock:
            scope, left = self.tokens.get(given.removeprefix("Bearer "), ("", 0))
            if scope != f"repository:{repository}:pull" or not left:
                return False
            self.tokens[given.removeprefix("Bearer ")] = (scope, left - 1)
            return True

    def token(self, exchange: Handler, seen: Seen) -> None:
        if seen.method == "POST":
            form = {key: values[0] for key, values in parse_qs(seen.body.decode()).items()}
            known = form["grant_type"] == "refresh_token" and form["refresh_token"] in self.users.values()
        else:
            form = {key: values[0] for key, values in parse_qs(urlsplit(seen.path).query).items()}
            given = seen.headers.get("Authorization", "")
            known = bool(self.user(given)) if given else not self.private
        if not known or form.get("service") != "the.service":
            exchange.give(401, b'{"details": "incorrect username or password"}')
            return
        with self.lock:
            token = f"t{len(self.tokens)}"
            self.tokens[token] = (form["scope"], self.uses)
        exchange.give(200, json.dumps({"access_token" if seen.method == "POST" else "token": token}).encode())
