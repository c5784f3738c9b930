"""Images for the engine and the site: base images, frontends, whatever the manifest lists."""

from __future__ import annotations

from collections.abc import Iterator

from airgap.kinds.site import Site
from airgap.kinds.want import ImageWant, Want
from airgap.manifest import Manifest
from airgap.steps import Step

NAME = "image"


def wants(manifest: Manifest) -> Iterator[Want]:
    """Each image, for the platforms it names or else for all that the site builds for."""
    built = frozenset(manifest.platforms) | frozenset(manifest.emulation.platforms if manifest.emulation else ())
    for item in manifest.images:
        yield ImageWant(
            kinds=(NAME,),
            reference=item.reference,
            platforms=frozenset(item.platforms) or built,
            strict=bool(item.platforms),
            daemon=item.daemon,
        )


def steps(site: Site) -> Iterator[Step]:
    """Loads of those images that have this host's platform; the others serve builds, through a registry."""
    for item in site.manifest.images:
        if image := site.images.get(item.reference):
            yield image.load()
