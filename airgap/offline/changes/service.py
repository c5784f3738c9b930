"""systemd services: enabled, and running what is on disk now. Spoken so that systemd 219 (CentOS 7) understands it."""

from __future__ import annotations

from dataclasses import dataclass

from airgap.errors import HostUnsuitable
from airgap.machine.run import RunError, last_lines
from airgap.offline.changes.base import Context, Record
from airgap.offline.host import Host
from airgap.offline.snapshot import file_digest
from airgap.steps import Service

ASKED = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID",
    "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic", "NeedDaemonReload",
)  # fmt: skip
POLL = 0.25
DAEMON_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What systemd knows of a unit. `started` is when its program was, in seconds of the host's clock; 0 if it is not active."""

    load: str
    active: str
    sub: str
    enabled: str
    pid: int
    started: float
    stale: bool

    @property
    def up(self) -> bool:
        """Whether it runs, or has done what it is for (oneshot with RemainAfterExit)."""
        return self.active == "active"


def unit(host: Host, name: str) -> Unit:
    """What systemd knows of this unit now."""
    # No --value (230), no --timestamp (247); properties come in systemd's order, not in ours.
    argv = ["systemctl", "show", name, *(word for item in ASKED for word in ("-p", item))]
    rows = dict(line.partition("=")[::2] for line in host.run(argv, timeout=DAEMON_SECONDS).text.splitlines())
    # Sockets run no program: they are as old as their being active.
    started = int(rows.get("ExecMainStartTimestampMonotonic") or rows.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    active = rows.get("ActiveState", "")
    return Unit(
        load=rows.get("LoadState", ""),
        active=active,
        sub=rows.get("SubState", ""),
        enabled=rows.get("UnitFileState", ""),
        pid=int(rows.get("MainPID") or 0),
        started=host.clock.now() - (host.clock.monotonic() - started) if started and active == "active" else 0,
        stale=rows.get("NeedDaemonReload") == "yes",
    )


def reasons(step: Service, now: Unit, host: Host) -> list[str]:
    """Why the service has to be started again; empty if it runs what is on disk."""
    if not now.up:
        return [f"it is {now.active or 'unknown'}"]
    found = ["its unit has changed"] if now.stale else []
    if step.program and not _runs(host, now.pid, step.program):
        found.append(f"it does not run {step.program}")
    return found + [f"{path} is newer" for path in step.files if _changed(host, path) > now.started]


def _runs(host: Host, pid: int, program: str) -> bool:
    """Whether the process runs the bytes that the program's path leads to; the same bytes elsewhere are as good."""
    exe = host.path(f"/proc/{pid}/exe")
    wanted = host.root / host.real(program)[1:]
    try:
        # stat goes through to the running file even if its name is gone or leads to another one now.
        if exe.stat().st_ino == wanted.stat().st_ino and exe.stat().st_dev == wanted.stat().st_dev:
            return True
        return file_digest(exe) == file_digest(wanted)
    except OSError:
        return False


def _changed(host: Host, path: str) -> float:
    """When the file, or the link that leads to it, was last written; 0 if it is not there."""
    places = (host.path(path), host.root / host.real(path)[1:])
    return max((place.lstat().st_mtime for place in places if place.is_symlink() or place.exists()), default=0)


class Served:
    """Service."""

    def before(self, step: Service, ctx: Context) -> Record | None:
        """Whether it has to be enabled or started; HostUnsuitable if it is masked."""
        now = unit(ctx.host, step.name)
        if now.load == "masked" or now.enabled.startswith("masked"):
            raise HostUnsuitable(f"{step.name} is masked on this host", hint=f"systemctl unmask {step.name}")
        sockets = [name for name in step.sockets if unit(ctx.host, name).up]
        if now.enabled == "enabled" and not sockets and not reasons(step, now, ctx.host):
            return None
        return {"active": now.up, "enabled": now.enabled == "enabled", "pid": now.pid, "sockets": sockets}

    def apply(self, step: Service, ctx: Context) -> None:
        """It is enabled and active; HostUnsuitable with its last journal lines if that takes longer than `step.seconds`."""
        host = ctx.host
        host.run(["systemctl", "daemon-reload"], timeout=DAEMON_SECONDS)
        now = unit(host, step.name)
        # One that is enabled already keeps its links as they are: undo need not know where they led.
        if now.enabled != "enabled":
            host.run(["systemctl", "enable", step.name], timeout=DAEMON_SECONDS)
        held = [name for name in step.sockets if unit(host, name).up]
        for name in held:
            # systemd knows by now that the service no longer needs it: only the socket stops.
            host.run(["systemctl", "stop", name], timeout=DAEMON_SECONDS)
        if why := [*(f"{name} held its socket" for name in held), *reasons(step, now, host)]:
            ctx.progress.say("service", f"starting {step.name}: {', '.join(why)}", name=step.name)
            _start(step, host, "restart" if unit(host, step.name).up else "start")
            pid = unit(host, step.name).pid
            if step.program and pid and not _runs(host, pid, step.program):
                raise HostUnsuitable(
                    f"{step.name} started something else than {step.program}",
                    hint=f"systemctl cat {step.name} shows the drop-in that says so",
                )

    def undo(self, step: Service, record: Record, ctx: Context) -> None:
        """What did not run is stopped, before its files go; what was not enabled is not. The rest waits for `settle`."""
        now = unit(ctx.host, step.name)
        if not record["active"] and now.load != "not-found" and now.active not in ("inactive", "failed"):
            ctx.host.run(["systemctl", "stop", step.name], timeout=step.seconds + DAEMON_SECONDS)
        if not record["enabled"] and now.enabled == "enabled":
            ctx.host.run(["systemctl", "disable", step.name], timeout=DAEMON_SECONDS)

    def settle(self, step: Service, record: Record, ctx: Context) -> None:
        """All files are back: systemd reads its units again, and what ran before runs again from them."""
        host = ctx.host
        host.run(["systemctl", "daemon-reload"], timeout=DAEMON_SECONDS)
        now = unit(host, step.name)
        if now.active == "failed" and now.load == "not-found":
            host.ask(["systemctl", "reset-failed", step.name])
        lost = [name for name in record.get("sockets", []) if not unit(host, name).up]
        if lost and now.up:
            # systemd starts no socket whose service runs; and the service has to take its socket from systemd again.
            host.run(["systemctl", "stop", step.name], timeout=step.seconds + DAEMON_SECONDS)
        for name in lost:
            host.run(["systemctl", "start", name], timeout=DAEMON_SECONDS)
        if not record["active"]:
            return
        now = unit(host, step.name)
        again = not now.up or now.pid != record["pid"] or now.stale
        if again or any(_changed(host, path) > now.started for path in step.files):
            _start(step, host, "restart" if now.up else "start")


def _start(step: Service, host: Host, verb: str) -> None:
    # A service that failed too often is refused for a while; this start is a new try.
    host.ask(["systemctl", "reset-failed", step.name])
    deadline = host.clock.monotonic() + step.seconds
    try:
        host.run(["systemctl", verb, step.name], timeout=step.seconds)
        while not (now := unit(host, step.name)).up:
            if now.active != "activating" or host.clock.monotonic() > deadline:
                raise HostUnsuitable(f"{step.name} is {now.active} ({now.sub})")
            host.clock.sleep(POLL)
    except (RunError, HostUnsuitable) as cause:
        said = _journal(step.name, host)
        raise HostUnsuitable(
            f"{step.name} did not start: {cause.message}" + (f"\n{said}" if said else ""), hint=f"journalctl -u {step.name}"
        ) from cause


def _journal(name: str, host: Host) -> str:
    """The last lines that the service wrote."""
    for argv in ("journalctl", "-u", name, "-o", "cat"), ("systemctl", "status", name):
        try:
            said = last_lines(host.ask([*argv, "-n", "15", "--no-pager"], timeout=DAEMON_SECONDS).out, 15)
        except RunError:
            continue
        if said:
            return said
    return ""
