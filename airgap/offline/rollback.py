"""The way back: what the newest bundle changed is undone, or what several did, or everything.

Journals are undone newest first, each as a transaction: reopened, put back, looked at. A killed rollback is gone on with by the
next command. All journals of one serial belong together, because installing a bundle again mends what had come loose since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from airgap.document import Json
from airgap.errors import HostUnsuitable, PutBackFailed, UsageError
from airgap.machine.daemon import DaemonError
from airgap.offline.changes.service import unit
from airgap.offline.host import Host
from airgap.offline.journal import Entry, Journal, exclusive
from airgap.offline.preflight_engine import BUILDERS
from airgap.offline.recover import recover
from airgap.offline.snapshot import Snapshot, is_back, snapshots
from airgap.progress import Progress
from airgap.steps import Service

Verb = Literal["rollback", "uninstall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """One transaction that was, or would be, taken back: its steps newest first."""

    number: int
    serial: int
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was taken back, newest first, and the serial that the host is at now: 0 for none."""

    verb: Verb
    undone: tuple[Undone, ...]
    serial: int
    plan_only: bool

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "plan_only": self.plan_only, "serial": self.serial,
            "undone": [{"journal": item.number, "serial": item.serial, "steps": list(item.steps)} for item in self.undone],
        }  # fmt: skip

    def text(self) -> str:
        """For people."""
        lines = []
        for item in self.undone:
            lines.append(f"serial {item.serial}, {len(item.steps)} steps {'would be ' if self.plan_only else ''}undone:")
            lines += [f"  {step}" for step in item.steps]
        where = f"at serial {self.serial}" if self.serial else "as it was before airgap"
        lines.append(f"nothing was changed (--plan); the host would be {where}" if self.plan_only else f"the host is {where}")
        if self.verb == "uninstall" and not self.plan_only:
            lines.append("airgap's own program and journals stay: rm -rf /opt/airgap /var/lib/airgap removes them too")
        return "\n".join(lines)


def rollback(
    host: Host, *, to: int | None = None, plan_only: bool = False, confirm: Callable[[str], bool], progress: Progress
) -> Report:
    """Afterwards the host is as it was before its newest bundle, or at serial `to`.

    Raises UsageError for a serial that was never installed, HostUnsuitable if there is nothing to take back, PutBackFailed if
    something could not be.
    """
    return _undo(
        host, "rollback", lambda journals: _newest(journals, to), plan_only=plan_only, confirm=confirm, progress=progress
    )


def uninstall(host: Host, *, plan_only: bool = False, confirm: Callable[[str], bool], progress: Progress) -> Report:
    """Afterwards the host is as it was before airgap; the engine's data stay. Raises as `rollback` does."""
    return _undo(host, "uninstall", tuple, plan_only=plan_only, confirm=confirm, progress=progress)


def _undo(
    host: Host,
    verb: Verb,
    choose: Callable[[Sequence[Journal]], tuple[Journal, ...]],
    *,
    plan_only: bool,
    confirm: Callable[[str], bool],
    progress: Progress,
) -> Report:
    if not host.is_root():
        raise HostUnsuitable(f"only root can {verb}; nothing was changed", hint=f"sudo airgap {verb}")
    if plan_only:
        committed = _committed(host)
        return _report(verb, choose(committed), committed, plan_only=True)
    with exclusive(host):
        recover(host, progress=progress)
        committed = _committed(host)
        chosen = choose(committed)
        report = _report(verb, chosen, committed, plan_only=False)
        _ask(host, chosen, confirm)
        for journal in chosen:
            progress.say("undo", f"taking back serial {journal.serial}, journal {journal.number}", serial=journal.serial)
            journal.reopen()
            journal.put_back(journal.context(progress=progress))
            _look(host, journal)
    return report


def _committed(host: Host) -> tuple[Journal, ...]:
    """What can be taken back, newest first."""
    found = tuple(item for item in reversed(Journal.every(host)) if item.state == "committed")
    if not found:
        raise HostUnsuitable("airgap has installed nothing on this host that could be taken back")
    return found


def _newest(journals: Sequence[Journal], to: int | None) -> tuple[Journal, ...]:
    newest = journals[0].serial
    if to is None:
        return tuple(takewhile(lambda item: item.serial == newest, journals))
    serials = sorted({item.serial for item in journals})
    if to not in serials or to == newest:
        older = ", ".join(str(item) for item in serials if item != newest) or "none"
        what = "is what is installed" if to == newest else "was never installed here, or was taken back"
        raise UsageError(f"--to {to}: serial {to} {what}", hint=f"older ones: {older}; airgap uninstall takes back all")
    return tuple(takewhile(lambda item: item.serial != to, journals))


def _report(verb: Verb, chosen: Sequence[Journal], committed: Sequence[Journal], *, plan_only: bool) -> Report:
    rest = committed[len(chosen) :]
    undone = tuple(
        Undone(
            number=journal.number, serial=journal.serial,
            steps=tuple(entry.step.describe() for entry in reversed(journal.entries())),
        )
        for journal in chosen
    )  # fmt: skip
    return Report(verb=verb, undone=undone, serial=rest[0].serial if rest else 0, plan_only=plan_only)


def _ask(host: Host, chosen: Sequence[Journal], confirm: Callable[[str], bool]) -> None:
    """Containers are stopped with an engine that goes, or that is exchanged without live-restore."""
    touched = [entry for journal in chosen for entry in journal.entries() if isinstance(entry.step, Service)]
    if not any(entry.step.name == "docker.service" for entry in touched if isinstance(entry.step, Service)):
        return
    try:
        info = host.daemon.info()
    except DaemonError:
        return
    names = [name for name in info.running if not name.startswith(BUILDERS)]
    if (
        names
        and not info.live_restore
        and not confirm(f"{len(names)} running containers will be stopped ({', '.join(names)}). Go on?")
    ):
        raise HostUnsuitable(
            f"these containers would be stopped: {', '.join(names)}; nothing was changed", hint="--yes stops them"
        )


def _look(host: Host, journal: Journal) -> None:
    """PutBackFailed if anything of it is not as its journal remembers: nothing is believed that was not looked at."""
    wrong = list(_differences(host, journal.entries()))
    if wrong:
        raise PutBackFailed(
            f"serial {journal.serial} was taken back, and yet this is not as it was:\n  " + "\n  ".join(wrong),
            hint=f"what it was is in {journal.path}",
        )


def _differences(host: Host, entries: Sequence[Entry]) -> Iterator[str]:
    """Two steps may have had a hand in one file (buildx's `current`, for each builder): the oldest memory of it counts."""
    remembered: dict[str, Snapshot] = {}
    services: dict[str, bool] = {}
    for entry in entries:
        owner = getattr(entry.step, "owner", "") or getattr(entry.step, "user", "")
        if owner and host.user(owner) is None:
            continue  # gone since then, and the home with it
        for snapshot in snapshots(entry.record):
            remembered.setdefault(snapshot.path, snapshot)
        if isinstance(entry.step, Service):
            services.setdefault(entry.step.name, bool(entry.record["active"]))
    for snapshot in remembered.values():
        if not is_back(host, snapshot):
            yield f"{snapshot.path} is not what it was ({snapshot.kind})"
    for name, active in services.items():
        if unit(host, name).up != active:
            yield f"{name} {'does not run, as it did' if active else 'runs, which it did not'}"
