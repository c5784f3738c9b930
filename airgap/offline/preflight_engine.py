"""What would fail, or hurt, about the engine: seen before anything changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from airgap.kinds import builder
from airgap.kinds import engine as kind
from airgap.kinds.site import EngineFacts, Site
from airgap.offline.foresee import Outlook, restarts
from airgap.offline.host import Host
from airgap.offline.row import Row, row
from airgap.steps import Builder, LoadImage, MergeJson, TagImage

DROP_INS: Final = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
BUILDERS: Final = "buildx_buildkit_"
# dockerd refuses to start if a key of daemon.json is on its command line too; its singular and short forms (cmd/dockerd).
FLAGS: Final = {
    "hosts": ("-H", "--host"), "data-root": ("--data-root", "-g", "--graph"), "storage-driver": ("--storage-driver", "-s"),
    "insecure-registries": ("--insecure-registry",), "registry-mirrors": ("--registry-mirror",), "log-opts": ("--log-opt",),
    "storage-opts": ("--storage-opt",), "exec-opts": ("--exec-opt",), "default-ulimits": ("--default-ulimit",),
    "labels": ("--label",),
}  # fmt: skip


def data_root(site: Site) -> str:
    """Where the engine will keep images."""
    asked = kind.configuration(site).get("data-root")
    found = site.facts.engine
    return str(asked) if asked else found.data_root if found else "/var/lib/docker"


def stopped(site: Site, outlooks: Sequence[Outlook]) -> tuple[str, ...]:
    """The running containers that this plan would stop and that are not builders', which start again by themselves."""
    engine = site.facts.engine
    if engine is None or engine.live_restore or not restarts(outlooks, engine.service or "docker.service"):
        return ()
    return tuple(name for name in engine.running if not name.startswith(BUILDERS))


def rows(host: Host, site: Site, outlooks: Sequence[Outlook]) -> Iterator[Row]:
    """Every need that has to do with the engine that is there, or is to be."""
    engine = site.facts.engine
    if any(isinstance(item.step, LoadImage | TagImage | Builder) for item in outlooks):
        idle = site.facts.idle_engine
        yield row(
            "engine", f"{engine.version} answers" if engine else f"{idle} does not answer" if idle else "none",
            "one that answers, or one in the bundle",
            "systemctl start docker, or --engine replace" if idle else "pack with `engine: {version: …}`, or start Docker",
            good=bool(engine) or site.replace,
        )  # fmt: skip
    if names := stopped(site, outlooks):
        what = "replaced" if site.replace else "restarted, to read its new daemon.json"
        yield row(
            "running containers", ", ".join(names), "none, or live-restore",
            f"they will be stopped while the engine is {what}; --engine keep or --only leaves them alone",
            good=False, otherwise="warn",
        )  # fmt: skip
    yield from _configuration(site, outlooks)
    if site.replace:
        yield from _drop_ins(host)
    else:
        yield from _kept(site, outlooks)
    yield from _buildx(site)


def _drop_ins(host: Host) -> Iterator[Row]:
    """A drop-in that says how dockerd starts would start the old one under our unit."""
    for folder in DROP_INS:
        for name in host.names(f"{folder}/docker.service.d"):
            path = f"{folder}/docker.service.d/{name}"
            if name.endswith(".conf") and re.search(r"^\s*ExecStart\s*=", host.text(path), re.MULTILINE):
                yield row(
                    "drop-in", f"{path} says ExecStart", "none that does",
                    f"move its options to engine.daemon in the manifest, then: mv {path} {path}.old", good=False,
                )  # fmt: skip


def _kept(site: Site, outlooks: Sequence[Outlook]) -> Iterator[Row]:
    engine = site.facts.engine
    merge = _merge(outlooks)
    if engine is None:
        return
    yield row(
        "engine version", engine.version, "18.09 or newer", "buildx needs API 1.39; use --engine replace",
        good=engine.generation >= (18, 9),
    )  # fmt: skip
    if engine.generation < (19, 3) and site.manifest.plugins:
        yield row(
            "CLI plugins", f"docker {engine.version} knows none", "19.03 or newer",
            "they run by their own names: buildx instead of docker buildx", good=False, otherwise="warn",
        )  # fmt: skip
    if merge and not engine.service:
        yield row(
            "engine's service", "no systemd unit runs it", "docker.service",
            f"restart the engine yourself afterwards: it reads {kind.DAEMON_JSON} when it starts", good=False, otherwise="warn",
        )  # fmt: skip
    if merge:
        yield from _flags(engine, merge)


def _merge(outlooks: Sequence[Outlook]) -> MergeJson | None:
    """What would be merged into daemon.json, if anything."""
    steps = (item.step for item in outlooks if item.changes)
    return next((step for step in steps if isinstance(step, MergeJson) and step.path == kind.DAEMON_JSON), None)


def _flags(engine: EngineFacts, merge: MergeJson) -> Iterator[Row]:
    words = {word.partition("=")[0] for word in engine.arguments}
    for key in sorted(merge.changes):
        if used := sorted(words & set(FLAGS.get(key, (f"--{key}",)))):
            yield row(
                "dockerd's flags", f"{used[0]} on its command line", f"{key} in {kind.DAEMON_JSON} only",
                "dockerd refuses to start with both; take the flag out of its unit (systemctl cat docker)", good=False,
            )  # fmt: skip


def _configuration(site: Site, outlooks: Sequence[Outlook]) -> Iterator[Row]:
    engine = site.facts.engine
    daemon = kind.configuration(site)
    hosts = daemon.get("hosts")
    if isinstance(hosts, list) and not any(str(item).startswith(("unix://", "fd://")) for item in hosts):
        yield row(
            "daemon's hosts", ", ".join(map(str, hosts)), "unix:///var/run/docker.sock among them",
            "add it to engine.daemon.hosts: docker and airgap talk to that socket", good=False,
        )  # fmt: skip
    moved = data_root(site)
    if engine and _merge(outlooks) and moved.rstrip("/") != engine.data_root.rstrip("/"):
        yield row(
            "data-root", f"the engine keeps its data in {engine.data_root}", moved,
            f"images, containers and volumes stay in {engine.data_root}, unseen: leave data-root as it is, or move them first",
            good=False, otherwise="warn" if site.replace else "refuse",
        )  # fmt: skip


def _buildx(site: Site) -> Iterator[Row]:
    """Pairs of buildx and engine that do not talk to each other (users.md 0.4)."""
    if site.file("plugin", "buildx") is None:
        return
    version, engine = builder.buildx_version(site), site.engine_version
    least = (25, 0) if (0, 31) <= version < (0, 33) else (19, 3) if version >= (0, 33) else (18, 9)
    yield row(
        "buildx and engine", f"buildx {version[0]}.{version[1]}, engine {_release(engine)}",
        f"engine {_release(least)} or newer for this buildx", "pack with plugins: {buildx: \"0.30.1\"}, which serves 18.09 to 29",
        good=engine >= least,
    )  # fmt: skip


def _release(version: tuple[int, int]) -> str:
    """As Docker writes it: 18.09 and 19.03 were months, 28.5 is a number."""
    return f"{version[0]}.{version[1]:02}" if version[0] < 20 else f"{version[0]}.{version[1]}"
