"""What a site has for its builds: the images of a lock, or those that a manifest asks for, and what it builds for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airgap.lock import ImageArtifact
from airgap.manifest import Manifest
from airgap.oci import Digest, Platform, Reference
from airgap.projects.dockerfile import Build


@dataclass(frozen=True, slots=True)
class Held:
    """An image that the site has: for these platforms by its name, and for those beside a digest by that digest."""

    reference: Reference
    platforms: frozenset[Platform]
    digests: Mapping[Digest, frozenset[Platform]]


def held(images: Iterable[ImageArtifact]) -> tuple[Held, ...]:
    """The images of a lock."""
    found: list[Held] = []
    for image in images:
        platforms = frozenset(image.platforms)
        own = {item.digest: frozenset({item.platform}) for item in image.manifests if item.platform and not item.attestation_of}
        found.append(Held(image.reference, platforms, {**own, image.root.digest: platforms}))
    return tuple(found)


def asked(manifest: Manifest) -> tuple[Held, ...]:
    """The images that a bundle of this manifest will hold, if upstream has them for all that is asked."""
    hosts = frozenset(manifest.platforms)
    wanted = [(item.reference, frozenset(item.platforms) or frozenset(targets(manifest))) for item in manifest.images]
    wanted += [(item.image, hosts) for item in (manifest.emulation, manifest.registry, *manifest.builders) if item]
    return tuple(Held(name, platforms, {name.digest: platforms} if name.digest else {}) for name, platforms in wanted)


def targets(manifest: Manifest) -> tuple[Platform, ...]:
    """What the site builds for: its hosts' platforms and those it emulates."""
    emulated = manifest.emulation.platforms if manifest.emulation else ()
    return tuple(sorted({*manifest.platforms, *emulated}))


def build(
    manifest: Manifest, *, platforms: Iterable[Platform] = (), arguments: Mapping[str, str], contexts: Iterable[str] = ()
) -> Build:
    """What builds on this site are told; `platforms` instead of all that it builds for."""
    return Build(
        hosts=manifest.platforms, targets=tuple(platforms) or targets(manifest), arguments=arguments, contexts=frozenset(contexts)
    )


def registries(manifest: Manifest) -> frozenset[str]:
    """The registries of the site itself, for all that the manifest says: its own names, and those its builders know how to reach.

    One with mirrors is upstream's, reached another way.
    """
    told = {name for item in manifest.builders for name, ask in item.registries.items() if not ask.mirrors}
    return frozenset({*told, *(manifest.registry.names if manifest.registry else ())}) - {"docker.io"}
