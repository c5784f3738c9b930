"""The kinds of things a bundle brings, one module a kind, and the table that knows them all.

A kind is pure. `wants` says what to ask upstreams for; `steps` says what a host must be made to look like, as values of
`airgap.steps`. A new kind is one new module here and its name in `KINDS`; nothing else names kinds one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from airgap.kinds import builder, emulation, engine, image, plugin, registry, runtime
from airgap.kinds.site import Site
from airgap.kinds.want import Want
from airgap.manifest import Manifest
from airgap.steps import Step


class Kind(Protocol):
    """What a module of this package offers."""

    NAME: str

    def wants(self, manifest: Manifest) -> Iterator[Want]:
        """What this manifest asks upstreams for."""

    def steps(self, site: Site) -> Iterator[Step]:
        """What this host needs."""


KINDS: tuple[Kind, ...] = (runtime, registry, engine, plugin, emulation, image, builder)
"""In the order in which a host is served: nothing below works without what stands above it."""


def wants(manifest: Manifest) -> tuple[Want, ...]:
    """Everything this manifest asks upstreams for, in the order of `KINDS`."""
    return tuple(want for kind in KINDS for want in kind.wants(manifest))
