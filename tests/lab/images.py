"""The lab's images, made without any Docker: multi-platform indexes with gzip layers and attestations, in upstream's shape.

What is in them does the real thing's job with Debian's programs (../shared/lab.md): `moby/buildkit` hosts the engine's own
BuildKit, `tonistiigi/binfmt` holds Debian's emulators, `alpine` is a busybox, `registry` is distribution.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import elfs, upstream
from tests.lab.cache import unpacked
from tests.lab.trees import File, Folder, Link, Packed, Tree, packed

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
IN_TOTO = "application/vnd.in-toto+json"

HERE = Path(__file__).parent / "image"
CREATED = "2025-10-01T00:00:00Z"
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
LOADERS = {"amd64": ("lib64", "ld-linux-x86-64.so.2"), "arm64": ("lib", "ld-linux-aarch64.so.1")}
EMULATORS = ("aarch64", "arm", "i386", "ppc64le", "riscv64", "s390x", "x86_64")

_APPLETS = """
    [ ash awk basename cat chmod chown cp cut date dd df dirname du echo egrep env expr false find free grep gunzip gzip head
    hostname id install kill ln ls md5sum mkdir mknod mktemp mount mv nc od pidof ping ps pwd readlink realpath rm rmdir sed seq
    sh sha256sum sleep sort stat sync tail tar tee test touch tr true umount uname uniq vi wc wget which whoami xargs yes
"""


@dataclass(frozen=True, slots=True)
class Blob:
    """What a registry serves by digest."""

    media_type: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A repository's tags, all of the same root, and every blob and manifest below it, by digest (`sha256:…`)."""

    repository: str
    tags: tuple[str, ...]
    root: str
    manifests: Mapping[str, Blob]
    blobs: Mapping[str, Blob]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an image is made: its layers for an architecture, lowest first, and what its config says."""

    repository: str
    tags: tuple[str, ...]
    layers: Callable[[str], Sequence[Tree]]
    config: Mapping[str, object] = field(default_factory=dict)
    docker: bool = False
    """As the older Docker manifest list, which has no attestations."""
    everywhere: bool = False
    """For all architectures, whichever the hosts have: what is built upon, not run by hosts."""


def recipes() -> tuple[Recipe, ...]:
    """Every image of the lab."""
    path = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    return (
        Recipe(
            repository="library/alpine", tags=("3.22", "3.22.2", "latest"), layers=_alpine,
            config={**path, "Cmd": ["/bin/sh"]}, everywhere=True,
        ),
        Recipe(
            repository="moby/buildkit", tags=("v0.25.1", "buildx-stable-1"), layers=_buildkit,
            config={**path, "Entrypoint": ["buildkitd"], "Volumes": {"/var/lib/buildkit": {}}},
        ),
        Recipe(
            repository="tonistiigi/binfmt", tags=("qemu-v10.0.4", "qemu-v10.0.4-59"), layers=_binfmt,
            config={**path, "Entrypoint": ["/usr/bin/binfmt"]},
        ),
        Recipe(
            repository="library/registry", tags=("2", "2.8.2"), layers=_registry, docker=True,
            config={
                **path, "Entrypoint": ["/entrypoint.sh"], "Cmd": ["/etc/docker/registry/config.yml"],
                "Volumes": {"/var/lib/registry": {}}, "ExposedPorts": {"5000/tcp": {}},
            },
        ),
        *(
            Recipe(repository="docker/buildx-bin", tags=(version,), layers=_buildx_bin(version)) for version in upstream.BUILDX
        ),
    )  # fmt: skip


def images(arches: Iterable[str], *, only: Iterable[str] = ()) -> list[Image]:
    """The images for these architectures; `only` names repositories, else all are made. Same recipe, same digests."""
    wanted = set(only)
    arches = tuple(arches)
    with ThreadPoolExecutor() as pool:  # zlib lets other threads run
        return list(pool.map(lambda recipe: make(recipe, arches), [r for r in recipes() if not wanted or r.repository in wanted]))


# ---- what is in them -------------------------------------------------------------------------------------------------


def _shell(arch: str) -> dict[str, File | Link | Folder]:
    busybox = unpacked("busybox-static", suite="bookworm", arch=arch) / "bin/busybox"
    return {"bin/busybox": File(busybox), **{f"bin/{name}": Link("busybox") for name in _APPLETS.split()}}


def _ground(arch: str) -> Tree:
    """What programs take for granted: a shell, users, a /tmp. BuildKit finds no foreign platforms without the last."""
    return {
        **_shell(arch),
        "etc/passwd": File(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644),
        "etc/group": File(b"root:x:0:\ndocker:x:999:\nnobody:x:65534:\n", 0o644),
        "etc/nsswitch.conf": File(b"passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
        "tmp": Folder(0o1777),
        "root": Folder(0o700),
        "run": Folder(),
        "var/run": Link("../run"),
        "var/lib": Folder(),
        "usr/bin": Folder(),
    }


def _libraries(arch: str, *packages: str) -> Tree:
    """glibc, its loader, and the shared libraries of these packages."""
    triplet = TRIPLETS[arch]
    folder, loader = LOADERS[arch]
    found: dict[str, File | Link | Folder] = {}
    for package in ("libc6", *packages):
        root = unpacked(package, suite="bookworm", arch=arch)
        for place in (root / "lib" / triplet, root / "usr/lib" / triplet):
            for path in sorted(place.glob("*.so*")) if place.is_dir() else ():
                # A package of one folder may link to a library of the other; both are flattened into one here.
                found[f"lib/{triplet}/{path.name}"] = Link(str(path.readlink())) if path.is_symlink() else File(path)
    found[f"{folder}/{loader}"] = Link(f"/lib/{triplet}/{loader}")
    return found


def _alpine(arch: str) -> Sequence[Tree]:
    release = b'NAME="Alpine Linux (lab)"\nID=alpine\nVERSION_ID=3.22.2\nPRETTY_NAME="Alpine Linux v3.22 (lab: busybox)"\n'
    return ({**_ground(arch), "etc/os-release": File(release, 0o644), "etc/alpine-release": File(b"3.22.2\n", 0o644)},)


def _buildkit(arch: str) -> Sequence[Tree]:
    if given := os.environ.get("AIRGAP_LAB_BUILDKIT"):
        return (_ground(arch), _true_buildkit(Path(given), arch))
    engine = upstream.engine_files("28.5.2", arch)
    programs = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-init", "ctr")
    daemon = {
        "features": {"containerd-snapshotter": True},
        "builder": {"entitlements": {"network-host": True, "security-insecure": True}},
        "iptables": False, "ip6tables": False, "userland-proxy": False, "bip": "172.30.0.1/24",
    }  # fmt: skip
    libraries = ("libsystemd0", "libseccomp2", "liblzma5", "libzstd1", "liblz4-1", "libcap2", "libgcrypt20", "libgpg-error0")
    return (
        _ground(arch),
        {**_libraries(arch, *libraries), **{f"usr/bin/{name}": File(engine[name]) for name in programs}},
        {
            "usr/bin/buildkitd": File((HERE / "buildkitd").read_bytes()),
            "usr/bin/buildctl": File(elfs.program(HERE / "buildctl.c", arch=arch).read_bytes()),
            "etc/docker/daemon.json": File(json.dumps(daemon, indent=2).encode(), 0o644),
        },
    )


def _true_buildkit(folder: Path, arch: str) -> Tree:
    """The real programs, where somebody has them: `buildkitd`, `buildctl`, `runc` in `folder/<arch>/`, or in `folder` itself."""
    place = folder / arch if (folder / arch).is_dir() else folder
    found: dict[str, File | Link | Folder] = {
        f"usr/bin/{path.name}": File(path.read_bytes()) for path in sorted(place.iterdir()) if path.is_file()
    }
    if "usr/bin/buildkit-runc" not in found and "usr/bin/runc" not in found:
        found["usr/bin/runc"] = File(upstream.engine_files("28.5.2", arch)["runc"])
        found.update(_libraries(arch, "libseccomp2"))
    return found


def _binfmt(arch: str) -> Sequence[Tree]:
    package = unpacked("qemu-user-static", suite="bookworm", arch=arch)
    # Neither architecture's package has the rule for itself.
    rules: dict[str, str] = {}
    for other in TRIPLETS:
        place = unpacked("qemu-user-static", suite="bookworm", arch=other) / "usr/lib/binfmt.d"
        rules.update({path.stem: path.read_text() for path in place.glob("*.conf")})
    found: dict[str, File | Link | Folder] = {
        "usr/bin/binfmt": File((HERE / "binfmt").read_bytes()),
        "etc/binfmt/native": File(f"{arch}\n".encode(), 0o644),
    }
    for name in EMULATORS:
        magic = rules[f"qemu-{name}"].rsplit(":", 2)[0]
        found[f"usr/bin/qemu-{name}"] = File(package / f"usr/bin/qemu-{name}-static")
        found[f"etc/binfmt/qemu-{name}"] = File(f"{magic}:/usr/bin/qemu-{name}:CF\n".encode(), 0o644)
    return (_ground(arch), found)


def _registry(arch: str) -> Sequence[Tree]:
    config = """\
version: 0.1
log: {fields: {service: registry}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
http:
  addr: :5000
  headers: {X-Content-Type-Options: [nosniff]}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
"""
    start = b'#!/bin/sh\nset -e\ncase "$1" in\n*.yaml | *.yml) set -- registry serve "$@" ;;\nesac\nexec "$@"\n'
    program = unpacked("docker-registry", suite="bookworm", arch=arch) / "usr/bin/docker-registry"
    return (
        _ground(arch),
        {
            **_libraries(arch),
            "bin/registry": File(program),
            "etc/docker/registry/config.yml": File(config.encode(), 0o644),
            "entrypoint.sh": File(start),
            "var/lib/registry": Folder(),
        },
    )


def _buildx_bin(version: str) -> Callable[[str], Sequence[Tree]]:
    return lambda arch: ({"buildx": File(upstream.buildx(version, arch))},)


# ---- how they are put together ---------------------------------------------------------------------------------------


def make(recipe: Recipe, arches: Sequence[str]) -> Image:
    """The image of this recipe, with an index even for one architecture."""
    if recipe.everywhere:
        arches = tuple(TRIPLETS)
    blobs: dict[str, Blob] = {}
    manifests: dict[str, Blob] = {}
    children: list[dict[str, object]] = []
    for arch in arches:
        child = _one(recipe, arch, blobs, manifests)
        children.append({**child, "platform": {"architecture": arch, "os": "linux", **_variant(arch)}})
    if not recipe.docker:
        children += [_attestation(str(child["digest"]), blobs, manifests) for child in list(children)]
    media_type = DOCKER_LIST if recipe.docker else INDEX
    root = _put(manifests, media_type, {"schemaVersion": 2, "mediaType": media_type, "manifests": children})
    return Image(repository=recipe.repository, tags=recipe.tags, root=str(root["digest"]), manifests=manifests, blobs=blobs)


def _variant(arch: str) -> dict[str, str]:
    return {"variant": "v8"} if arch == "arm64" else {}


def _one(recipe: Recipe, arch: str, blobs: dict[str, Blob], manifests: dict[str, Blob]) -> dict[str, object]:
    layers = [packed(tree) for tree in recipe.layers(arch)]
    types = (DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST) if recipe.docker else (CONFIG, LAYER, MANIFEST)
    config_type, layer_type, media_type = types
    config = _put(blobs, config_type, {
        "architecture": arch, "os": "linux", **_variant(arch), "created": CREATED,
        "config": recipe.config,
        "history": [{"created": CREATED, "created_by": f"lab: layer {number}"} for number, _ in enumerate(layers)],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.inner_digest}" for layer in layers]},
    })  # fmt: skip
    return _put(manifests, media_type, {
        "schemaVersion": 2, "mediaType": media_type, "config": config,
        "layers": list(_layers(layers, layer_type, blobs)),
    })  # fmt: skip


def _layers(layers: Iterable[Packed], media_type: str, blobs: dict[str, Blob]) -> Iterator[dict[str, object]]:
    for layer in layers:
        blobs[f"sha256:{layer.digest}"] = Blob(media_type, layer.path)
        yield {"mediaType": media_type, "digest": f"sha256:{layer.digest}", "size": layer.size}


def _attestation(subject: str, blobs: dict[str, Blob], manifests: dict[str, Blob]) -> dict[str, object]:
    """What BuildKit adds for each platform: a manifest for no platform, told apart by its annotations."""
    kind = "https://slsa.dev/provenance/v0.2"
    statement = {"_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind, "subject": subject, "predicate": {}}
    layer = _put(blobs, IN_TOTO, statement)
    config = _put(blobs, CONFIG, {
        "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    })  # fmt: skip
    child = _put(manifests, MANIFEST, {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
        "layers": [{**layer, "annotations": {"in-toto.io/predicate-type": kind}}],
    })  # fmt: skip
    notes = {"vnd.docker.reference.digest": subject, "vnd.docker.reference.type": "attestation-manifest"}
    return {**child, "annotations": notes, "platform": {"architecture": "unknown", "os": "unknown"}}


def _put(where: dict[str, Blob], media_type: str, document: object) -> dict[str, object]:
    data = json.dumps(document, indent=2).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    where[digest] = Blob(media_type, data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}
