"""What would fail, found before anything changes: a row for each need, with what was found and how to cure it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from airgap.document import Json
from airgap.errors import HostUnsuitable
from airgap.kinds import emulation
from airgap.kinds.site import EngineFacts, HostFacts, Site
from airgap.machine.daemon import DaemonError
from airgap.manifest import Manifest
from airgap.offline.host import Host
from airgap.steps import LoadImage, PlaceFiles, PlaceImageFiles, Step

Level = Literal["ok", "warn", "refuse"]

DOCKERD_KERNEL: Final = (3, 10)
HEADROOM: Final = 64 << 20
"""Bytes that stay free on every filesystem we write to: room for logs, journals and the next command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One need: `refuse` stops the install, `warn` is said, `ok` is for the record."""

    name: str
    found: str
    needed: str
    cure: str
    level: Level

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {name: getattr(self, name) for name in ("name", "found", "needed", "cure", "level")}


def facts(host: Host, manifest: Manifest, *, users: Sequence[str]) -> HostFacts:
    """What this host is. Raises HostUnsuitable for a user that does not exist."""
    homes: dict[str, str] = {}
    for user in ("root", *users):
        entry = host.user(user)
        if entry is None:
            raise HostUnsuitable(
                f"the user {user} does not exist on this host", hint="create it first, or take it out of `users:` or --user"
            )
        homes[user] = entry.home
    engine = _engine(host)
    return HostFacts(
        platform=host.platform(),
        kernel=host.kernel(),
        systemd=host.systemd(),
        engine=engine,
        foreign_containerd=host.exists("/run/containerd/containerd.sock"),
        homes=homes,
    )


def _engine(host: Host) -> EngineFacts | None:
    try:
        info = host.daemon.info()
    except DaemonError:
        return None
    cli = host.which("docker") or "docker"
    return EngineFacts(
        version=info.version,
        api=info.api,
        store=info.store,
        data_root=info.data_root,
        ours=cli.startswith("/opt/airgap/") or host.real("/usr/local/bin/dockerd").startswith("/opt/airgap/"),
        cli=cli,
        running=info.running,
        live_restore=info.live_restore,
    )


def check(host: Host, site: Site, steps: Sequence[Step]) -> tuple[Row, ...]:
    """Every need of this plan on this host."""
    return tuple(_rows(host, site, steps))


def refuse(rows: Sequence[Row]) -> None:
    """HostUnsuitable, naming every row that refuses."""
    bad = [row for row in rows if row.level == "refuse"]
    if bad:
        lines = [f"{row.name}: found {row.found}, needed {row.needed}\n    cure: {row.cure}" for row in bad]
        raise HostUnsuitable(
            "this host cannot take the bundle; nothing was changed\n  " + "\n  ".join(lines),
            hint="mend these, then run the same command again",
        )


def _row(name: str, found: object, needed: object, cure: str, *, good: bool, otherwise: Level = "refuse") -> Row:
    return Row(name=name, found=str(found), needed=str(needed), cure="" if good else cure, level="ok" if good else otherwise)


def _rows(host: Host, site: Site, steps: Sequence[Step]) -> Iterator[Row]:
    yield _row("root", "yes" if host.is_root() else "no", "yes", "run it as root (sudo sh install.sh …)", good=host.is_root())
    yield _row(
        "platform", site.facts.platform, " or ".join(str(item) for item in site.manifest.platforms),
        "pack a bundle with this platform in `platforms:`", good=site.facts.platform in site.manifest.platforms,
    )  # fmt: skip
    systemd = site.facts.systemd
    yield _row("systemd", systemd or "none", "running", "airgap's services need systemd as PID 1", good=systemd > 0)
    if site.replace:
        yield from _for_engine(host, site)
    yield from _for_emulation(site)
    yield from _for_builders(host, site)
    yield from _space(host, site, steps)
    yield from _shadows(host, site)


def _for_engine(host: Host, site: Site) -> Iterator[Row]:
    kernel = site.facts.kernel
    text = ".".join(map(str, kernel))
    yield _row("kernel", text, "3.10 or newer", "dockerd does not start on older kernels", good=kernel >= DOCKERD_KERNEL)
    iptables = host.which("iptables")
    yield _row(
        "iptables", iptables or "not in PATH", "in PATH", "install the package iptables, or set `iptables: false` under engine.daemon",
        good=bool(iptables) or (site.manifest.engine is not None and site.manifest.engine.daemon.get("iptables") is False),
    )  # fmt: skip
    filesystems = host.filesystems()
    yield _row(
        "overlay", "known to the kernel" if "overlay" in filesystems or host.module("overlay") else "not known", "overlay",
        "modprobe overlay; without it Docker copies whole images (vfs)", good="overlay" in filesystems or host.module("overlay"),
        otherwise="warn",
    )  # fmt: skip
    version = host.cgroups()
    good = version != 0 and (version != 2 or site.engine_version >= (20, 10))
    yield _row(
        "cgroups", {0: "none", 1: "v1", 2: "v2"}[version], "v1, or v2 with engine 20.10 or newer",
        "mount cgroups, or choose an engine of 20.10 or newer", good=good,
    )  # fmt: skip
    engine = site.facts.engine
    if engine and engine.running and not engine.live_restore:
        yield _row(
            "running containers", ", ".join(engine.running), "none, or live-restore",
            "they will be stopped while the engine is replaced; --engine keep leaves it alone", good=False, otherwise="warn",
        )  # fmt: skip
    if site.facts.foreign_containerd and not (engine and engine.ours):
        yield _row(
            "containerd", "another one listens at /run/containerd", "none", "Docker gets a containerd of its own beside it",
            good=False, otherwise="warn",
        )  # fmt: skip


def _for_emulation(site: Site) -> Iterator[Row]:
    if site.manifest.emulation is None:
        return
    yield _row(
        "emulation", "kernel " + ".".join(map(str, site.facts.kernel)), "kernel 4.8 or newer",
        "kernels before 4.8 cannot hold emulators for containers (flag F); BuildKit's own emulators are proven by a build instead",
        good=emulation.possible(site), otherwise="warn",
    )  # fmt: skip


def _for_builders(host: Host, site: Site) -> Iterator[Row]:
    if not site.manifest.builders:
        return
    missing = [str(item.image) for item in site.manifest.builders if item.image not in site.images]
    yield _row(
        "builder image", ", ".join(missing) or "there", f"for {site.facts.platform}", "pack the builder's image for this platform",
        good=not missing,
    )  # fmt: skip
    engine = site.facts.engine
    yield _row(
        "engine", f"{engine.version} answers" if engine else "none answers", "one that answers, or one in the bundle",
        "start Docker, or pack with `engine: {version: …}`", good=bool(engine) or site.replace,
    )  # fmt: skip
    if engine and not site.replace:
        yield _row(
            "engine version", engine.version, "18.09 or newer", "buildx needs API 1.39; use --engine replace",
            good=engine.generation >= (18, 9),
        )  # fmt: skip


def _space(host: Host, site: Site, steps: Sequence[Step]) -> Iterator[Row]:
    """Bytes needed by each filesystem that gets something, computed from the bundle."""
    engine = site.facts.engine
    data_root = "/var/lib/docker"
    if site.manifest.engine and "data-root" in site.manifest.engine.daemon:
        data_root = str(site.manifest.engine.daemon["data-root"])
    elif engine and not site.replace:
        data_root = engine.data_root
    needs: dict[str, tuple[int, set[str]]] = {}
    for step in steps:
        if isinstance(step, PlaceFiles):
            place, size = "/opt/airgap", step.size
        elif isinstance(step, PlaceImageFiles):
            place, size = "/opt/airgap", 2 * site.images[step.reference].size
        elif isinstance(step, LoadImage):
            # docker load keeps a copy of the archive while it unpacks, and layers grow about threefold (perf.md 6).
            place, size = data_root, 4 * step.size
        else:
            continue
        mount = host.mount_of(place)
        before, places = needs.get(mount, (0, set()))
        needs[mount] = (before + size, places | {place})
    for mount, (size, places) in sorted(needs.items()):
        free = host.free(mount)
        yield _row(
            f"space on {mount}", f"{free} bytes", f"{size + HEADROOM} bytes for {', '.join(sorted(places))}",
            f"free {max(0, size + HEADROOM - free)} bytes there, or move data-root", good=free >= size + HEADROOM,
        )  # fmt: skip


def _shadows(host: Host, site: Site) -> Iterator[Row]:
    """Copies of our plugins in home folders: docker finds those first."""
    for user, home in site.facts.homes.items():
        for name in site.manifest.plugins:
            path = f"{home}/.docker/cli-plugins/docker-{name}"
            if host.exists(path):
                yield _row(
                    f"plugin of {user}", path, "none", f"it hides the site's docker-{name}: mv {path} {path}.old", good=False,
                    otherwise="warn",
                )  # fmt: skip
