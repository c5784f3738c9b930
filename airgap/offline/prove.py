"""The proof: the host does what the bundle is for. Nothing here believes an exit code of a tool that is known to lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from airgap import elf
from airgap.errors import AirgapError, HostUnsuitable
from airgap.kinds import builder, emulation, registry
from airgap.kinds.site import Site
from airgap.machine.heads import head
from airgap.manifest import BuilderAsk
from airgap.oci import Platform
from airgap.offline.host import Host
from airgap.progress import Progress

PROBES: Final = "/var/lib/airgap/probe"
BUILD_SECONDS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One thing that was tried, and what came of it; `cure` says what to do if it failed."""

    name: str
    good: bool
    found: str
    cure: str = ""


def prove(host: Host, site: Site, *, only: frozenset[str] = frozenset(), progress: Progress) -> tuple[Proof, ...]:
    """Every proof that this site asks for, in the order of a build's own way; goes on after a failure."""
    proofs: list[Proof] = []
    for name, attempt, cure in _attempts(host, site, only):
        try:
            proof = Proof(name=name, good=True, found=attempt())
        except AirgapError as cause:
            proof = Proof(name=name, good=False, found=cause.message, cure=cause.hint or cure)
        progress.say("proof", f"{'proven' if proof.good else 'FAILED'}: {name}: {proof.found}", name=name, good=proof.good)
        proofs.append(proof)
    return tuple(proofs)


Attempt = tuple[str, Callable[[], str], str]


def _attempts(host: Host, site: Site, only: frozenset[str]) -> Iterator[Attempt]:
    def wanted(kind: str) -> bool:
        return not only or kind in only

    if wanted("registry") and site.manifest.registry:
        yield "registry", lambda: _registry(site), "systemctl status airgap-registry; journalctl -u airgap-registry"
    if (site.replace or site.facts.engine) and (wanted("engine") or wanted("image")):
        yield "engine", lambda: _engine(host), "systemctl status docker; journalctl -u docker"
    if wanted("plugin") and site.file("plugin", "buildx"):
        yield "buildx", lambda: _buildx(host, site), "look at `docker info` for plugins that shadow it"
    if wanted("emulation"):
        for platform in emulation.emulated(site):
            yield f"emulation of {platform}", _bind(_emulation, host, platform), "systemctl restart airgap-emulation; dmesg"
    if wanted("builder"):
        for item in site.manifest.builders:
            yield (
                f"builder {item.name}",
                _bind(_build, host, site, item),
                f"docker logs buildx_buildkit_{item.name}0",
            )


def _bind(function: Callable[..., str], *arguments: object) -> Callable[[], str]:
    return lambda: function(*arguments)


def _registry(site: Site) -> str:
    """Every image of the bundle under its name and upstream's digest, and the honest answer for one that is not there."""
    asked = site.manifest.registry
    tls = asked.tls if asked else None
    for image in site.lock.images:
        name = registry.repository(image.reference)
        path = f"/v2/{name}/manifests/{image.reference.tag or image.root.digest}"
        answer = head(site.depot, path, tls=tls is not None, ca=tls.ca if tls else "")
        if answer.status != 200 or answer.digest != str(image.root.digest):
            raise HostUnsuitable(f"{site.depot} answers {answer.status} {answer.reason} {answer.digest} for {image.reference.familiar}")
    answer = head(site.absent, "/v2/airgap/absent/manifests/probe?ns=docker.io")
    if answer.status != registry.ABSENT:
        raise HostUnsuitable(f"{site.absent} answers {answer.status} {answer.reason} for an image that is not there")
    return f"{site.depot} serves {len(site.lock.images)} images with upstream's digests" + ("" if tls else ", over plain HTTP")


def _engine(host: Host) -> str:
    info = host.daemon.info()
    return f"{info.version} answers, {info.store} image store"


def _buildx(host: Host, site: Site) -> str:
    result = host.run([*builder.buildx_command(site), "version"], timeout=30)
    return result.out.decode(errors="replace").strip()


def _emulation(host: Host, platform: Platform) -> str:
    """Run a program of that platform on the host: the kernel must find the emulator, and the emulator must work."""
    path = f"{PROBES}/{platform.architecture}"
    host.write(path, elf.probe(platform), mode=0o755)
    try:
        host.run([path], timeout=30)
    finally:
        host.remove(path)
    return "a program of that platform ran"


def platforms(site: Site, item: BuilderAsk) -> tuple[Platform, ...]:
    """What the builder is proven to build: what it was asked for, or else the site's platforms, if there is code to try."""
    asked = item.platforms or site.manifest.platforms
    return tuple(platform for platform in asked if platform.architecture in elf.BY_ARCHITECTURE)


def _build(host: Host, site: Site, item: BuilderAsk) -> str:
    """Build for every platform, RUN steps included, from nothing: no image, no registry, no network."""
    targets = platforms(site, item)
    folder = f"{PROBES}/build"
    lines = ["FROM scratch", "ARG TARGETARCH", "COPY probe-$TARGETARCH /probe", 'RUN ["/probe"]', ""]
    host.write(f"{folder}/Dockerfile", "\n".join(lines).encode())
    for platform in targets:
        host.write(f"{folder}/probe-{platform.architecture}", elf.probe(platform), mode=0o755)
    output = f"{folder}.tar"
    words = [
        *builder.buildx_command(site), "build", "--builder", item.name, "--progress", "plain", "--no-cache", "--provenance=false",
        "--platform", ",".join(str(platform) for platform in targets), "--output", f"type=oci,dest={output}", folder,
    ]  # fmt: skip
    if builder.buildx_version(site) < (0, 10):
        words.remove("--provenance=false")
    try:
        host.run(words, timeout=BUILD_SECONDS, env={"BUILDX_DEFAULT_POLICY": "0"})
        built = _platforms_of(host, output)
    finally:
        host.remove(output)
        host.remove(folder)
    if missing := {str(item) for item in targets} - built:
        raise AirgapError(f"the build passed but its result lacks {', '.join(sorted(missing))}")
    return f"built for {', '.join(sorted(built))}, RUN steps included, without a network"


def _platforms_of(host: Host, path: str) -> set[str]:
    """The platforms in an OCI archive: read from what was built, not from what was said."""
    import tarfile

    with tarfile.open(host.path(path)) as tar:

        def load(name: str) -> dict[str, list[dict[str, dict[str, str]]]]:
            file = tar.extractfile(name)
            found: dict[str, list[dict[str, dict[str, str]]]] = json.loads(file.read()) if file else {}
            return found

        found: set[str] = set()
        pending = list(load("index.json")["manifests"])
        while pending:
            item = pending.pop()
            place = item.get("platform")
            if place and place.get("os") != "unknown":
                found.add(str(Platform.of(place["os"], place["architecture"], place.get("variant", ""))))
            elif "index" in str(item.get("mediaType", "")):
                pending += load("blobs/" + str(item["digest"]).replace(":", "/"))["manifests"]
    return found
