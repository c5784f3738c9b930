"""airgap itself on the host: a private CPython from python-build-standalone, unpacked by install.sh before anything else.

install.sh names a runtime's folder by a digest over its pieces, so bundles with the same pieces share a folder, and no folder is
ever changed. One may be removed when no generation that can still be rolled back to has a command (`COMMAND`) that names it;
whoever removes generations looks there.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from airgap import upstreams
from airgap.kinds.site import BIN, Site
from airgap.kinds.want import FileWant, Place, Want
from airgap.steps import Step, WriteFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airgap.manifest import Manifest

NAME = "runtime"
COMMAND: Final = f"{BIN}/airgap"


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
        yield WriteFile(path=COMMAND, text=command_text(site.runtime), mode=0o755)


def command_text(runtime: str) -> str:
    """The command that starts the airgap in this runtime's folder, whatever characters its name has."""
    program = shlex.quote(f"{runtime}/airgap")
    return f'#!/bin/sh\n# Written by airgap.\nexec {program} "$@"\n'
