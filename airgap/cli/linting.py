"""The verb of the site's developers: lint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap import errors
from airgap.cli.app import PATH, common, main, manifest_option
from airgap.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airgap.lock import Lock
    from airgap.manifest import Manifest
    from airgap.projects.holdings import Held


@main.command(
    epilog="Examples:  airgap lint ~/src/app                       on the site: what its last bundle lacks\n\n"
    "airgap lint -m site.yaml --build-arg BASE=alpine:3.22 .    what the next one will lack"
)
@click.argument("places", type=PATH, nargs=-1, metavar="[DIR|FILE]…")
@click.option("--bundle", type=PATH, help="Compare with this bundle.")
@click.option("--locked", type=PATH, help="Compare with this lock.")
@manifest_option
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME=VALUE", help="As docker build takes it; repeatable.")
@click.option("--build-context", "contexts", multiple=True, metavar="NAME[=…]", help="A name that builds replace; repeatable.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH,…", help="What is built for. Default: the site's.")
@click.option("--local", "local", multiple=True, metavar="REGISTRY", help="A registry of the site's own; repeatable.")
@common
def lint(
    console: Console, *, places: tuple[Path, ...], bundle: Path | None, locked: Path | None, manifest: Path | None,
    arguments: tuple[str, ...], contexts: tuple[str, ...], platforms: tuple[str, ...], local: tuple[str, ...],
) -> None:  # fmt: skip
    """Name the images that Dockerfiles, compose and bake files need and the site lacks."""
    from airgap.oci import Platform
    from airgap.projects import holdings
    from airgap.projects.files import find
    from airgap.projects.lint import check, manifest_lines, text

    if sum(item is not None for item in (bundle, locked, manifest)) > 1:
        raise click.UsageError("--bundle, --locked and -m are three answers to one question; give one of them")
    if wrong := [item for item in arguments if "=" not in item]:
        raise click.UsageError(f"--build-arg {wrong[0]}: write NAME=VALUE")
    try:
        built = [Platform.parse(item.strip()) for listed in platforms for item in listed.split(",")]
    except ValueError as cause:
        raise errors.UsageError(f"--platform: {cause}") from cause
    what, site, have = _site(bundle, locked, manifest)
    told = holdings.build(
        site, platforms=built, arguments=dict(item.split("=", 1) for item in arguments),
        contexts=[item.partition("=")[0] for item in contexts],
    )  # fmt: skip
    rows = check(find(places or [Path()], told), have, local=holdings.registries(site) | set(local))
    lines = manifest_lines(rows)
    facts = {"against": what, "images": [row.to_json() for row in rows], "manifest_lines": lines.splitlines()}
    console.result("lint", facts, f"Compared with {what}.\n{text(rows)}")
    if missing := [row.image for row in rows if row.lacks]:
        raise errors.ResolveError(
            f"{len(missing)} of the images asked for are not in {what}",
            hint="add the lines above to the manifest of the next bundle; name registries of the site's own with --local",
        )


def _site(bundle: Path | None, locked: Path | None, manifest: Path | None) -> tuple[str, Manifest, Sequence[Held]]:
    """What is compared with, in words and as values: what was named, else what this host holds, else the built-in manifest."""
    from airgap.cli.packing import read_manifest
    from airgap.manifest import Manifest
    from airgap.projects.holdings import asked, held

    named = _lock(bundle, locked) if manifest is None else None
    if named:
        what, lock = named
        return what, Manifest.from_json(lock.manifest), held(lock.images)
    site = read_manifest(manifest)
    return str(manifest or "the built-in manifest"), site, asked(site)


def _lock(bundle: Path | None, locked: Path | None) -> tuple[str, Lock] | None:
    from airgap.document import read_bounded
    from airgap.lock import Lock

    if bundle:
        from airgap.bundle.archive import Bundle

        with Bundle.at(bundle) as opened:
            return str(bundle), opened.lock
    if locked:
        return str(locked), Lock.parse(read_bounded(locked, error=errors.LockError), name=str(locked))

    from airgap.cli.hosting import this_host
    from airgap.offline import receipt

    host = this_host()
    found = receipt.read(host)
    return (f"what this host holds ({found.name}, serial {found.serial})", receipt.lock(host, found)) if found else None
