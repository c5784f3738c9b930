"""From a bundle and a host's facts to the ordered steps: pure, so that what is shown is what is done.

Order is by what a step needs, not by kind: files first, then configuration, then the one link that switches generations,
then services, then what lives inside the engine. Two steps with one target are an error before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from airgap.bundle.archive import Bundle
from airgap.errors import BundleError
from airgap.kinds import KINDS
from airgap.kinds.site import CURRENT, HostFacts, HostImage, Site
from airgap.manifest import Manifest
from airgap.oci import MANIFEST_LIMIT, ImageManifest, Platform, Reference
from airgap.steps import (
    Builder,
    GroupMember,
    Link,
    LoadImage,
    MergeJson,
    PlaceFiles,
    PlaceImageFiles,
    ServeImage,
    Service,
    Step,
    SystemGroup,
    SystemUser,
    TagImage,
    WriteFile,
)

RANK: Final[Mapping[type, int]] = {
    SystemGroup: 0,
    SystemUser: 0,
    GroupMember: 0,
    PlaceFiles: 1,
    PlaceImageFiles: 1,
    WriteFile: 2,
    MergeJson: 2,
    Link: 3,
    ServeImage: 4,
    Service: 5,
    LoadImage: 6,
    TagImage: 7,
    Builder: 8,
}


def host_images(bundle: Bundle, platform: Platform) -> dict[Reference, HostImage]:
    """The bundle's images as a host of this platform can run them; those that lack it are left out."""
    found: dict[Reference, HostImage] = {}
    for item in bundle.lock.images:
        for child in item.manifests:
            if child.platform != platform or child.attestation_of:
                continue
            data = bundle.read(child.digest, limit=MANIFEST_LIMIT)
            manifest = ImageManifest.parse(data, name=str(item.reference), error=BundleError)
            found[item.reference] = HostImage(
                reference=item.reference,
                root=item.root,
                manifest=child,
                config=manifest.config.digest,
                size=sum(blob.size for blob in manifest.blobs),
            )
    return found


def site(bundle: Bundle, manifest: Manifest, facts: HostFacts, *, replace: bool, runtime: str) -> Site:
    """Everything a kind may know."""
    return Site(
        manifest=manifest,
        lock=bundle.lock,
        facts=facts,
        images=host_images(bundle, facts.platform),
        replace=replace,
        runtime=runtime,
    )


def plan(where: Site, *, only: frozenset[str] = frozenset()) -> tuple[Step, ...]:
    """The steps in the order in which they are to run; `only` keeps those of some kinds.

    Raises BundleError if the bundle asks for two things at one place.
    """
    steps = sorted(_steps(where, only), key=lambda step: RANK[type(step)])
    seen: dict[str, Step] = {}
    unique: list[Step] = []
    for step in steps:
        if (before := seen.get(step.target)) is None:
            seen[step.target] = step
            unique.append(step)
        elif before != step:
            # Kinds may ask for the same thing (an image that is loaded for two reasons), never for two things.
            raise BundleError(
                f"the bundle wants two things at {step.target}: {before.describe()}; {step.describe()}",
                hint="look at the manifest for two entries of one name",
            )
    return tuple(unique)


def _steps(where: Site, only: frozenset[str]) -> Iterator[Step]:
    programs = False
    for kind in KINDS:
        if only and kind.NAME not in only:
            continue
        for step in kind.steps(where):
            programs = programs or isinstance(step, PlaceFiles | PlaceImageFiles)
            yield step
    if programs:
        # Sorted among the links by rank, and before every service, which run what it points to.
        yield Link(CURRENT, where.generation)

