"""airgap itself on the host: a private CPython from python-build-standalone, unpacked by install.sh before anything else."""

from __future__ import annotations

from collections.abc import Iterator

from airgap import upstreams
from airgap.kinds.site import BIN, Site
from airgap.kinds.want import FileWant, Place, Want
from airgap.manifest import Manifest
from airgap.steps import Step, WriteFile

NAME = "runtime"


def wants(manifest: Manifest) -> Iterator[Want]:
    """One interpreter for every platform of the site."""
    asked = manifest.runtime
    for platform in manifest.platforms:
        filename = upstreams.runtime_asset(asked.python, asked.date, platform)
        base = f"/astral-sh/python-build-standalone/releases/download/{asked.date}"
        yield FileWant(
            kind=NAME,
            name="cpython",
            version=f"{asked.python}+{asked.date}",
            platform=platform,
            places=(Place("github", f"{base}/{filename}"),),
            checksums=(Place("github", f"{base}/SHA256SUMS"), Place("github", f"{base}/{filename}.sha256")),
            form="as-is",
            shape="gzip",
            listing=Place("github_api", "/repos/astral-sh/python-build-standalone/releases"),
        )


def steps(site: Site) -> Iterator[Step]:
    """The command. The interpreter itself is in place: by the time a plan is made, airgap runs from it."""
    if site.runtime:
        yield WriteFile(
            path=f"{BIN}/airgap", text=f'#!/bin/sh\n# Written by airgap.\nexec "{site.runtime}/airgap" "$@"\n', mode=0o755
        )
