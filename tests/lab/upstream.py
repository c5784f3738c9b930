"""The lab's upstream as a table from address to content: Docker's static folder, GitHub's releases and their listing.

Everything in it is Debian's own build of the real thing under upstream's names and in upstream's shape (../shared/upstream.md).
The versions are those of the suites on 2026-11-23; what a moving suite holds later is served under the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab import runtime
from tests.lab.cache import unpacked
from tests.lab.trees import File, Packed, packed, sha256

ENGINES = {"20.10.24": "bookworm", "26.1.5": "trixie", "28.5.2": "sid"}
BUILDX = {"0.13.1": "trixie", "0.29.1": "sid"}
COMPOSE = {"2.26.1": "trixie", "2.40.3": "sid"}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Go's word for an architecture, and uname's."""

DATES = {
    "v0.13.1": "2024-03-13", "v0.29.1": "2025-10-02", "v2.26.1": "2024-03-29", "v2.40.3": "2025-10-30",
    runtime.DATE: "2025-11-24",
}  # fmt: skip

Content = Path | bytes
Tree = dict[str, Content]
"""Path (with its leading slash) to what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A GitHub release: its files by name."""

    repository: str
    tag: str
    assets: Mapping[str, Content]

    def tree(self) -> Iterator[tuple[str, Content]]:
        """Where GitHub serves them."""
        for name, content in self.assets.items():
            yield f"/{self.repository}/releases/download/{self.tag}/{name}", content

    def to_json(self, base: str) -> dict[str, object]:
        """As the REST API lists it, with the digests it has since June 2025."""
        return {
            "tag_name": self.tag,
            "name": self.tag,
            "draft": False,
            "prerelease": False,
            "published_at": f"{DATES[self.tag]}T12:00:00Z",
            "assets": [
                {
                    "name": name,
                    "size": len(content) if isinstance(content, bytes) else content.stat().st_size,
                    "digest": f"sha256:{_digest(content)}",
                    "browser_download_url": f"{base}/{self.repository}/releases/download/{self.tag}/{name}",
                }
                for name, content in sorted(self.assets.items())
            ],
        }


def engine_files(version: str, arch: str) -> dict[str, Path]:
    """The executables of an engine of this generation, by their names in upstream's tarball (upstream.md 1.3)."""
    suite = ENGINES[version]
    daemon = unpacked("docker.io", suite=suite, arch=arch)
    client = daemon if suite == "bookworm" else unpacked("docker-cli", suite=suite, arch=arch)
    containerd = unpacked("containerd", suite=suite, arch=arch)
    found = {
        "docker": client / "usr/bin/docker",
        "dockerd": daemon / "usr/sbin/dockerd",
        "docker-proxy": daemon / "usr/sbin/docker-proxy",
        "docker-init": unpacked("tini", suite="bookworm", arch=arch) / "usr/bin/tini-static",
        "containerd": containerd / "usr/bin/containerd",
        "containerd-shim-runc-v2": containerd / "usr/bin/containerd-shim-runc-v2",
        "ctr": containerd / "usr/bin/ctr",
        # The newer suites' runc needs a newer glibc than the lab's host has.
        "runc": unpacked("runc", suite="bookworm", arch=arch) / "usr/sbin/runc",
    }
    if version.startswith("20.10."):
        found["containerd-shim"] = containerd / "usr/bin/containerd-shim"
    return found


def engine(version: str, arch: str) -> Packed:
    """The static host's tarball."""
    return packed({f"docker/{name}": File(path) for name, path in engine_files(version, arch).items()})


def static(engines: Iterable[str], arches: Iterable[str]) -> Tree:
    """`/stable/<arch>/docker-<version>.tgz` and the pages that list them, as below download.docker.com/linux/static."""
    tree: Tree = {}
    arches = tuple(arches)
    pairs = [(arch, version) for arch in arches for version in engines]
    with ThreadPoolExecutor() as pool:  # zlib lets other threads run
        for (arch, version), made in zip(pairs, pool.map(lambda pair: engine(pair[1], pair[0]), pairs), strict=True):
            tree[f"/stable/{MACHINES[arch]}/docker-{version}.tgz"] = made.path
    for arch in arches:
        folder = f"/stable/{MACHINES[arch]}/"
        tree[folder] = _page(folder, [name.removeprefix(folder) for name in tree if name.startswith(folder)])
    tree["/stable/"] = _page("/stable/", [f"{MACHINES[arch]}/" for arch in arches])
    tree["/"] = _page("/", ["stable/"])
    return tree


def _page(folder: str, names: Iterable[str]) -> bytes:
    rows = ['<a href="../">../</a>', *(f'<a href="{name}">{name}</a>   2025-11-05 14:23:44 74.6 MiB' for name in sorted(names))]
    title, body = f"Index of linux/static{folder}", "\n".join(rows)
    return f"<html><head><title>{title}</title></head><body>\n<h1>{title}</h1>\n<pre>{body}\n</pre></body></html>\n".encode()


def buildx(version: str, arch: str) -> Path:
    """The plugin's binary."""
    return unpacked("docker-buildx", suite=BUILDX[version], arch=arch) / "usr/libexec/docker/cli-plugins/docker-buildx"


def compose(version: str, arch: str) -> Path:
    """The plugin's binary."""
    return unpacked("docker-compose", suite=COMPOSE[version], arch=arch) / "usr/libexec/docker/cli-plugins/docker-compose"


def releases(arches: Iterable[str], *, with_runtime: bool) -> Iterator[Release]:
    """Every release of the lab, newest first for each repository. The runtime's first call compiles CPython, for minutes."""
    arches = tuple(arches)
    for version in reversed(BUILDX):
        assets: dict[str, Content] = {}
        for arch in arches:
            name = f"buildx-v{version}.linux-{arch}"
            assets[name] = buildx(version, arch)
            for sidecar in ("provenance", "sbom"):
                assets[f"{name}.{sidecar}.json"] = json.dumps({"lab": sidecar, "subject": name}).encode()
        # From 0.10.0 on: `sha256sum -b`, sidecars included (upstream.md 2.1).
        assets["checksums.txt"] = "".join(f"{_digest(item)} *{name}\n" for name, item in sorted(assets.items())).encode()
        yield Release(repository="docker/buildx", tag=f"v{version}", assets=assets)
    for version in reversed(COMPOSE):
        assets = {f"docker-compose-linux-{MACHINES[arch]}": compose(version, arch) for arch in arches}
        rows = {name: f"{_digest(item)} *{name}\n".encode() for name, item in sorted(assets.items())}
        assets.update({f"{name}.sha256": row for name, row in rows.items()})
        assets["checksums.txt"] = b"".join(rows.values())
        yield Release(repository="docker/compose", tag=f"v{version}", assets=assets)
    if with_runtime:
        assets = {runtime.filename(MACHINES[arch]): runtime.ensure(MACHINES[arch]) for arch in arches}
        assets["SHA256SUMS"] = "".join(f"{_digest(item)}  {name}\n" for name, item in sorted(assets.items())).encode()
        yield Release(repository="astral-sh/python-build-standalone", tag=runtime.DATE, assets=assets)


def _digest(content: Content) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else _file_digest(content)


@cache
def _file_digest(path: Path) -> str:
    return sha256(path)
