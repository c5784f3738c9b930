"""What a host is before it is changed: read from its own files, its systemd and its engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from airgap.errors import HostUnsuitable
from airgap.kinds.site import EngineFacts, HostFacts
from airgap.machine.daemon import DaemonError
from airgap.machine.run import RunError
from airgap.offline.changes.service import Unit, unit
from airgap.offline.host import Host

OURS: Final = "/opt/airgap/"
SERVICE: Final = "docker.service"
SOCKETS: Final = ("docker.socket",)


def facts(host: Host, *, users: Sequence[str]) -> HostFacts:
    """What this host is. Raises HostUnsuitable for a user that does not exist."""
    homes: dict[str, str] = {}
    for user in dict.fromkeys(("root", *users)):
        entry = host.user(user)
        if entry is None:
            raise HostUnsuitable(
                f"the user {user} does not exist on this host", hint="create it first, or take it out of `users:` or --user"
            )
        homes[user] = entry.home
    systemd = host.systemd()
    engine = _engine(host, _unit(host, SERVICE) if systemd else None)
    dockerd = host.which("dockerd") or ""
    return HostFacts(
        platform=host.platform(),
        kernel=host.kernel(),
        systemd=systemd,
        engine=engine,
        foreign_containerd=host.exists("/run/containerd/containerd.sock"),
        idle_engine="" if engine or dockerd.startswith(OURS) else dockerd,
        sockets=tuple(name for name in SOCKETS if systemd and _known(_unit(host, name))),
        homes=homes,
    )


def _unit(host: Host, name: str) -> Unit | None:
    try:
        return unit(host, name)
    except RunError:
        return None


def _known(found: Unit | None) -> bool:
    return found is not None and found.load not in ("", "not-found")


def _engine(host: Host, service: Unit | None) -> EngineFacts | None:
    try:
        info = host.daemon.info()
    except DaemonError:
        return None
    pid = service.pid if service and service.up else 0
    return EngineFacts(
        version=info.version,
        api=info.api,
        store=info.store,
        data_root=info.data_root,
        ours=(_program(host, pid) or host.real("/usr/local/bin/dockerd")).startswith(OURS),
        cli=host.which("docker") or "docker",
        running=info.running,
        live_restore=info.live_restore,
        service=SERVICE if service and service.up else "",
        arguments=_arguments(host, pid),
    )


def _program(host: Host, pid: int) -> str:
    """What the kernel says this process runs; empty if it does not say."""
    if pid:
        with suppress(OSError):
            return str(host.path(f"/proc/{pid}/exe").readlink())
    return ""


def _arguments(host: Host, pid: int) -> tuple[str, ...]:
    return tuple(word for word in host.text(f"/proc/{pid}/cmdline").split("\0")[1:] if word) if pid else ()
