"""What would fail, found before anything changes: a row for each need, with what was found and how to cure it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from airgap.errors import HostUnsuitable
from airgap.kinds import emulation, registry
from airgap.kinds.site import CURRENT, Site
from airgap.offline import preflight_engine as engine
from airgap.offline.foresee import Outlook, restarts, targets
from airgap.offline.host import Host
from airgap.offline.row import Row
from airgap.offline.row import row as _row
from airgap.steps import LoadImage, PlaceFiles, PlaceImageFiles, ServeImage

DOCKERD_KERNEL: Final = (3, 10)
HEADROOM: Final = 64 << 20
"""Bytes that stay free on every filesystem we write to: room for logs, journals and the next command."""


def check(host: Host, site: Site, outlooks: Sequence[Outlook]) -> tuple[Row, ...]:
    """Every need of this plan on this host; what is there already needs nothing."""
    return tuple(_rows(host, site, outlooks))


def refuse(rows: Sequence[Row]) -> None:
    """HostUnsuitable, naming every row that refuses."""
    bad = [row for row in rows if row.level == "refuse"]
    if bad:
        lines = [f"{row.name}: found {row.found}, needed {row.needed}\n    cure: {row.cure}" for row in bad]
        raise HostUnsuitable(
            "this host cannot take the bundle; nothing was changed\n  " + "\n  ".join(lines),
            hint="mend these, then run the same command again",
        )


def _rows(host: Host, site: Site, outlooks: Sequence[Outlook]) -> Iterator[Row]:
    yield _row("root", "yes" if host.is_root() else "no", "yes", "run it as root (sudo sh install.sh …)", good=host.is_root())
    yield _row(
        "platform", site.facts.platform, " or ".join(str(item) for item in site.manifest.platforms),
        "pack a bundle with this platform in `platforms:`", good=site.facts.platform in site.manifest.platforms,
    )  # fmt: skip
    systemd = site.facts.systemd
    yield _row("systemd", systemd or "none", "running", "airgap's services need systemd as PID 1", good=systemd > 0)
    yield from engine.rows(host, site, outlooks)
    if site.replace:
        yield from _for_new_engine(host, site)
    yield from _for_emulation(site)
    yield from _for_builders(site)
    yield from _for_registry(host, site, outlooks)
    yield from _space(host, site, outlooks)
    yield from _shadows(host, site)
    yield from _generation(host, site, outlooks)
    for item in outlooks:
        if item.refused:
            yield Row(name=item.step.target, found=item.refused, needed=item.step.describe(), cure=item.hint, level="refuse")


def _for_new_engine(host: Host, site: Site) -> Iterator[Row]:
    kernel = site.facts.kernel
    text = ".".join(map(str, kernel))
    yield _row("kernel", text, "3.10 or newer", "dockerd does not start on older kernels", good=kernel >= DOCKERD_KERNEL)
    iptables = host.which("iptables")
    yield _row(
        "iptables", iptables or "not in PATH", "in PATH",
        "install the package iptables, or set `iptables: false` under engine.daemon",
        good=bool(iptables) or (site.manifest.engine is not None and site.manifest.engine.daemon.get("iptables") is False),
    )  # fmt: skip
    overlay = "overlay" in host.filesystems() or host.module("overlay")
    yield _row(
        "overlay", "known to the kernel" if overlay else "not known", "overlay",
        "modprobe overlay; without it Docker copies whole images (vfs)", good=overlay, otherwise="warn",
    )  # fmt: skip
    version = host.cgroups()
    good = version != 0 and (version != 2 or site.engine_version >= (20, 10))
    yield _row(
        "cgroups", {0: "none", 1: "v1", 2: "v2"}[version], "v1, or v2 with engine 20.10 or newer",
        "mount cgroups, or choose an engine of 20.10 or newer", good=good,
    )  # fmt: skip
    if site.facts.foreign_containerd and not (site.facts.engine and site.facts.engine.ours):
        yield _row(
            "containerd", "another one listens at /run/containerd", "none", "Docker gets a containerd of its own beside it",
            good=False, otherwise="warn",
        )  # fmt: skip


def _for_registry(host: Host, site: Site, outlooks: Sequence[Outlook]) -> Iterator[Row]:
    asked = site.manifest.registry
    if asked is None:
        return
    yield _row(
        "registry image", "there" if asked.image in site.images else f"{asked.image} is not in the bundle", f"for {site.facts.platform}",
        "pack the registry's image for this platform", good=asked.image in site.images,
    )  # fmt: skip
    if not host.exists(registry.UNIT):
        taken = [str(port) for port in (asked.port, asked.port + 1) if port in host.listening()]
        yield _row(
            "registry ports", f"{', '.join(taken)} taken" if taken else "free", f"{asked.port} and {asked.port + 1}",
            "stop what listens there (ss -ltnp), or choose another `listen:` in the manifest", good=not taken,
        )  # fmt: skip
    for path in (asked.tls.cert, asked.tls.key, asked.tls.ca) if asked.tls else ():
        if path:
            yield _row("registry certificate", path, "there", f"put it at {path}", good=host.exists(path))
    if asked.tls is None and any(isinstance(item.step, ServeImage) and item.changes for item in outlooks):
        yield _row(
            "registry", f"plain HTTP at {site.depot}", "TLS", "give `tls: {cert: …, key: …, ca: …}` where others share this network",
            good=False, otherwise="warn",
        )  # fmt: skip


def _for_emulation(site: Site) -> Iterator[Row]:
    if site.manifest.emulation is None:
        return
    yield _row(
        "emulation", "kernel " + ".".join(map(str, site.facts.kernel)), "kernel 4.8 or newer",
        "kernels before 4.8 cannot hold emulators for containers (flag F); a build proves BuildKit's own emulators instead",
        good=emulation.possible(site), otherwise="warn",
    )  # fmt: skip
    if emulation.emulated(site) and site.manifest.emulation.image not in site.images:
        yield _row(
            "emulation image", f"{site.manifest.emulation.image} is not in the bundle", f"for {site.facts.platform}",
            "pack the image of the emulators for this platform", good=False,
        )  # fmt: skip


def _for_builders(site: Site) -> Iterator[Row]:
    if not site.manifest.builders:
        return
    if joined := [item.name for item in site.manifest.builders if item.nodes]:
        yield _row(
            "builder nodes", f"asked for by {', '.join(joined)}", "none",
            "this version makes builders of one node, on this host: add the others by hand with `docker buildx create --append`",
            good=False, otherwise="warn",
        )  # fmt: skip
    missing = sorted({str(item.image) for item in site.manifest.builders if item.image not in site.images})
    yield _row(
        "builder image", ", ".join(missing) or "there", f"for {site.facts.platform}",
        "pack the builder's image for this platform",
        good=not missing,
    )  # fmt: skip


def _space(host: Host, site: Site, outlooks: Sequence[Outlook]) -> Iterator[Row]:
    """Bytes needed by each filesystem that gets something, computed from the bundle."""
    data_root = engine.data_root(site)
    # An engine that is exchanged may not see the images that are there now: count them all.
    exchanged = site.replace and restarts(outlooks, "docker.service")
    needs: dict[str, tuple[int, set[str]]] = {}
    for item in outlooks:
        step = item.step
        if not (item.changes or (exchanged and isinstance(step, LoadImage))):
            continue
        if isinstance(step, PlaceFiles):
            place, size = "/opt/airgap", step.size
        elif isinstance(step, PlaceImageFiles):
            place, size = "/opt/airgap", 2 * site.images[step.reference].size
        elif isinstance(step, LoadImage):
            # docker load keeps a copy of the archive while it unpacks, and layers grow about threefold (perf.md 6).
            place, size = data_root, 4 * step.size
        elif isinstance(step, ServeImage):
            # An upper bound: images share layers, and the registry keeps each once.
            place, size = registry.ROOT, step.size
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


def _generation(host: Host, site: Site, outlooks: Sequence[Outlook]) -> Iterator[Row]:
    """What runs out of the current generation must be in the next one too: one link switches them all."""
    if not any(item.changes and item.step.target == f"file:{CURRENT}" for item in outlooks):
        return
    placed = [path for item in outlooks for path in targets(item.step)]
    lacking = [
        name for name in host.names(CURRENT) if not any(path.startswith(f"file:{site.generation}/{name}/") for path in placed)
    ]
    yield _row(
        "current generation", f"{', '.join(lacking) or 'nothing'} of it not in this bundle or left out by --only", "all of it",
        "leave out --only, or pack a bundle that brings these too", good=not lacking,
    )  # fmt: skip
