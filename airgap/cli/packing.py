"""The verbs of the machine with internet: lock, pack."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from airgap import errors
from airgap.cli.app import PATH, common, main, manifest_option, sources_option
from airgap.console import Console, size_text

if TYPE_CHECKING:
    from airgap.lock import Lock
    from airgap.manifest import Manifest
    from airgap.online.resolve import Online

@main.command(epilog="Example:  airgap lock -m site.yaml -o site.lock.json")
@manifest_option
@sources_option
@click.option("-o", "--output", type=PATH, help="Where the lock goes. Default: beside the manifest, *.lock.json.")
@click.option("--serial", type=click.IntRange(min=1), help="The serial. Default: the minute; unchanged content keeps its own.")
@click.option("--store", type=PATH, help="Where fetched bytes are kept. Default: ~/.cache/airgap/store.")
@common
def lock(
    console: Console, *, manifest: Path | None, sources: Path | None, output: Path | None, serial: int | None, store: Path | None
) -> None:
    """Resolve versions and tags to exact bytes, and say who vouches for them."""
    from airgap.document import write_atomic

    asked = read_manifest(manifest)
    target = output or (manifest.with_suffix(".lock.json") if manifest else Path(f"{asked.name}.lock.json"))
    made = _resolve(asked, _online(console, asked, sources, store), serial=serial, known=target)
    write_atomic(target, made.dump())
    files, images = len(made.files), len(made.images)
    console.result(
        "lock",
        {"lock": str(target), "serial": made.serial, "files": files, "images": images},
        f"{target}: {files} files, {images} images, serial {made.serial}",
    )


@main.command(
    epilog="Examples:  airgap pack                        the built-in default manifest\n\n"
    "airgap pack -m site.yaml -o /media     your own\n\n"
    "airgap pack --locked site.lock.json    exactly these bytes again"
)
@manifest_option
@sources_option
@click.option("--locked", type=PATH, help="Pack exactly what this lock says.")
@click.option("-o", "--output", type=PATH, default=Path("bundles"), show_default=True, help="The folder that gets the bundle.")
@click.option("--serial", type=click.IntRange(min=1), help="The bundle's serial, with -m.")
@click.option("--store", type=PATH, help="Where fetched bytes are kept. Default: ~/.cache/airgap/store.")
@common
def pack(
    console: Console, *, manifest: Path | None, sources: Path | None, locked: Path | None, output: Path,
    serial: int | None, store: Path | None,
) -> None:  # fmt: skip
    """Fetch, check and write the one file."""
    from airgap.document import read_bounded, write_atomic
    from airgap.lock import Lock
    from airgap.manifest import Manifest
    from airgap.online.pack import pack as write

    if locked and (manifest or serial):
        raise click.UsageError("--locked says it all; leave out -m and --serial")
    if locked:
        made = Lock.parse(read_bounded(locked, error=errors.LockError), name=str(locked))
        online = _online(console, Manifest.from_json(made.manifest), sources, store)
    else:
        asked = read_manifest(manifest)
        online = _online(console, asked, sources, store)
        known = output / f"{asked.name}.lock.json"
        made = _resolve(asked, online, serial=serial, known=known)
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(known, made.dump())
    started = time.monotonic()
    packed = write(made, online, folder=output)
    console.result(
        "pack",
        {"bundle": str(packed.path), "size": packed.size, "serial": made.serial, "blobs": packed.blobs},
        f"{packed.path}: {size_text(packed.size)}, {packed.blobs} blobs, serial {made.serial}, "
        f"written in {time.monotonic() - started:.1f} s\n"
        f"carry it over, then:  tar -xf {packed.path.name} install.sh && sh install.sh {packed.path.name}",
    )


def read_manifest(path: Path | None) -> Manifest:
    """The manifest at this path; without one, the built-in one."""
    from airgap.document import read_bounded
    from airgap.manifest import Manifest, default_manifest

    if path is None:
        return Manifest.parse(default_manifest(), name="the built-in manifest")
    return Manifest.parse(read_bounded(path, error=errors.ManifestError, limit=1 << 20), name=str(path))


def _online(console: Console, asked: Manifest, sources: Path | None, store: Path | None) -> Online:
    from airgap.bundle.store import Store
    from airgap.document import read_bounded
    from airgap.machine.daemon import Daemon
    from airgap.machine.run import Runner
    from airgap.manifest import Sources
    from airgap.online.credentials import Credentials
    from airgap.online.notes import Notes
    from airgap.online.registry import Registry
    from airgap.online.resolve import Online
    from airgap.online.web import Web

    where = asked.sources
    if sources:
        where = where.overlaid(Sources.parse(read_bounded(sources, error=errors.ManifestError, limit=1 << 20), name=str(sources)))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Store(store or home / "airgap" / "store")
    runner = Runner()
    web = Web(store=place, progress=console)
    docker = os.environ.get("DOCKER_CONFIG")
    credentials = Credentials.load(Path(docker) / "config.json" if docker else None, runner)
    return Online(
        web=web,
        registry=Registry(web=web, credentials=credentials, hosts=where.registries),
        store=place,
        notes=Notes(place.root / "notes"),
        run=runner,
        daemon=Daemon(),
        progress=console,
        sources={"docker_static": where.docker_static, "github": where.github, "github_api": where.github_api},
    )


def _resolve(asked: Manifest, online: Online, *, serial: int | None, known: Path) -> Lock:
    """The lock, with the serial given, or the known lock's if nothing else changed, or the minute."""
    from dataclasses import replace

    from airgap.document import read_bounded
    from airgap.lock import Lock
    from airgap.online.resolve import resolve

    before = Lock.parse(read_bounded(known, error=errors.LockError), name=str(known)) if known.exists() else None
    minute = int(time.strftime("%Y%m%d%H%M", time.gmtime()))
    made = resolve(asked, online, serial=serial or minute)
    if before and serial is None:
        if replace(made, serial=before.serial).dump() == before.dump():
            return before
        made = replace(made, serial=max(minute, before.serial + 1))
    return made
