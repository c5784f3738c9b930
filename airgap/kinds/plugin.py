"""CLI plugins: buildx and compose, each a versioned file with the name docker looks for linked beside it.

The versioned file keeps upstream's own name (`buildx-v0.29.1.linux-amd64`): docker reads names that begin with `docker-`
as plugins, and would complain about a second one with a version in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from airgap import upstreams
from airgap.kinds.site import BIN, CLI_PLUGINS, CURRENT, Site
from airgap.kinds.want import Borne, FileWant, Place, Want
from airgap.manifest import Manifest
from airgap.oci import Reference
from airgap.steps import Link, MergeJson, PlaceFiles, Step

NAME = "plugin"

REPOSITORY = {"buildx": "docker/buildx", "compose": "docker/compose"}
# The image that carries the same binary, and its path there.
BORNE = {"buildx": ("docker/buildx-bin", "/buildx"), "compose": ("docker/compose-bin", "/docker-compose")}


def wants(manifest: Manifest) -> Iterator[Want]:
    """The release binary of every plugin for every platform of the site."""
    for name, version in sorted(manifest.plugins.items()):
        for platform in manifest.platforms:
            asset = upstreams.asset(name, version, platform)
            base = f"/{REPOSITORY[name]}/releases/download/{asset.tag}"
            repository, path = BORNE[name]
            yield FileWant(
                kind=NAME,
                name=name,
                version=version,
                platform=platform,
                places=(Place("github", f"{base}/{asset.filename}"),),
                checksums=tuple(Place("github", f"{base}/{document}") for document in asset.checksums),
                form="file",
                shape="elf",
                borne=(Borne(Reference("docker.io", repository, version if name == "buildx" else f"v{version}"), (("", path),)),),
                listing=Place("github_api", f"/repos/{REPOSITORY[name]}/releases"),
            )


def steps(site: Site) -> Iterator[Step]:
    """The plugins in the folder that every CLI from 19.03 on reads; programs of their own name for older ones."""
    found = [item for name in sorted(site.manifest.plugins) if (item := site.file(NAME, name))]
    for item in found:
        folder = f"{site.generation}/cli-plugins"
        yield PlaceFiles(
            content=item.content.digest,
            size=item.content.size,
            members=(("", f"{folder}/{item.filename}"),),
            platform=site.facts.platform,
        )
        yield Link(f"{folder}/docker-{item.name}", item.filename)
        yield Link(f"{CLI_PLUGINS}/docker-{item.name}", f"{CURRENT}/cli-plugins/docker-{item.name}")
        if site.engine_version < (19, 3):
            # The CLI of 18.09 knows no plugins at all (upstream.md 2.2): they run by their own names.
            for name in (item.name, f"docker-{item.name}") if item.name == "buildx" else (f"docker-{item.name}",):
                yield Link(f"{BIN}/{name}", f"{CURRENT}/cli-plugins/docker-{item.name}")
    if found and (19, 3) <= site.engine_version < (20, 10):
        # 19.03 hides experimental plugins, as buildx then was, unless the user's client says so.
        for user in site.users:
            yield MergeJson(f"{site.home(user)}/.docker/config.json", {"experimental": "enabled"}, 0o600, user)
