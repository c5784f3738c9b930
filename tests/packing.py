"""An upstream that is small enough to lock and pack from in a test: static tarballs, releases, a registry, and a pip."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from airgap import upstreams
from airgap.bundle.store import Store
from airgap.machine.daemon import Daemon
from airgap.machine.run import Result
from airgap.manifest import Manifest
from airgap.oci import Digest, Platform
from airgap.online.credentials import Credentials
from airgap.online.notes import Notes
from airgap.online.registry import Registry
from airgap.online.resolve import Online
from airgap.online.web import Web
from tests.bundles import tar
from tests.fakes import Recorder, program
from tests.registering import FakeRegistry
from tests.serving import File, Site, serving

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
ENGINE = "/static/stable/x86_64/docker-28.5.2.tgz"
RELEASE = "/github/docker/buildx/releases/download/v0.29.1"
BUILDX = f"{RELEASE}/buildx-v0.29.1.linux-amd64"

MANIFEST = """
airgap: 1
name: lab
platforms: [linux/amd64]
engine: {version: "28.5.2"}
plugins: {buildx: "0.29.1"}
images: ["alpine:3.22"]
"""


def tgz(members: Mapping[str, bytes]) -> bytes:
    return gzip.compress(tar(members), mtime=0)


def engine(platform: Platform = AMD64, *names: str) -> bytes:
    required, _ = upstreams.engine_members("28.5.2")
    return tgz({f"docker/{name}": program(name, platform) for name in names or required})


def layer(members: Mapping[str, bytes]) -> bytes:
    return tgz({path.lstrip("/"): data for path, data in members.items()})


@dataclass
class Pip:
    """What `pip download` leaves behind, without an index: one wheel."""

    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], **_: object) -> Result:
        words = tuple(argv)
        self.calls.append(words)
        with zipfile.ZipFile(Path(words[words.index("--dest") + 1]) / "click-8.1.7-py3-none-any.whl", "w") as wheel:
            wheel.writestr(zipfile.ZipInfo("click/__init__.py"), b"")
        return Result(argv=words, code=0, out=b"", err=b"")


@dataclass
class Upstream:
    """The site, what it serves, and collaborators that know its addresses."""

    site: Site
    store: Store
    images: FakeRegistry
    recorder: Recorder
    pip: Pip
    web: Web
    online: Online

    def release(self, path: str, data: bytes) -> None:
        """A release's binary, and its line in checksums.txt."""
        self.site.routes[path] = File(data, etag=f'"{Digest.of(data).hex[:8]}"')
        folder, _, name = path.rpartition("/")
        self.site.routes[f"{folder}/checksums.txt"] = File(f"{Digest.of(data).hex} *{name}\n".encode())

    def bodies(self) -> dict[str, int]:
        """Bytes of body sent, by path."""
        return {item.path: self.site.sent(item.path) for item in self.site.seen if item.method == "GET"}


@contextmanager
def upstream(folder: Path, *, daemon: Daemon | None = None) -> Iterator[Upstream]:
    """Everything that `MANIFEST` asks for is there, over a store in `folder`."""
    recorder, store, pip = Recorder(), Store(folder / "store"), Pip()
    with serving() as site, Web(store=store, progress=recorder, stall=2, retries=1, pause=lambda seconds: None) as web:
        registry = Registry(
            web=web, credentials=Credentials({}, run=pip), hosts={"docker.io": [site.url("")]}
        )  # fmt: skip
        online = Online(
            web=web, registry=registry, store=store, notes=Notes(store.root / "notes"), run=pip, daemon=daemon or Daemon(),
            progress=recorder,
            sources={name: [site.url(path)] for name, path in
                     (("docker_static", "/static"), ("github", "/github"), ("github_api", "/api"))},
        )  # fmt: skip
        made = Upstream(site, store, FakeRegistry(site), recorder, pip, web, online)
        site.routes[ENGINE] = File(engine(), etag='"engine"')
        made.release(BUILDX, program("buildx"))
        asked = manifest().runtime
        runtime = upstreams.runtime_asset(asked.python, asked.date, AMD64)
        base = f"/github/astral-sh/python-build-standalone/releases/download/{asked.date}"
        python = tgz({"python/bin/python3": program("python")})
        site.routes[f"{base}/{runtime}"] = File(python)
        site.routes[f"{base}/SHA256SUMS"] = File(f"{Digest.of(python).hex}  {runtime}\n".encode())
        made.images.index("library/alpine", "3.22")
        yield made


def manifest(text: str = MANIFEST) -> Manifest:
    return Manifest.parse(text.encode(), name="site.yaml")


def listing(*versions: str) -> bytes:
    """GitHub's list of releases."""
    return json.dumps([{"tag_name": f"v{version}"} for version in versions]).encode()
