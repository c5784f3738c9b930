"""What is installed and whether it works, now and after a reboot: read from the receipt, looked at on the host."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airgap.document import Json
from airgap.errors import HostUnsuitable
from airgap.kinds.site import HostImage, Site
from airgap.machine.daemon import DaemonError
from airgap.manifest import Manifest
from airgap.oci import Reference
from airgap.offline import receipt as receipts
from airgap.offline.changes import Context
from airgap.offline.facts import facts
from airgap.offline.foresee import Outlook, foresee
from airgap.offline.host import Host
from airgap.offline.prove import prove
from airgap.offline.receipt import Receipt
from airgap.offline.recover import pending_row
from airgap.progress import SILENT, Progress
from airgap.steps import Builder, LoadImage, ServeImage, Service, Step

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at; `cure` says what to do if it is not good."""

    name: str
    good: bool
    found: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is there and how each part of it is."""

    title: str
    checks: tuple[Check, ...]
    receipt: Mapping[str, Json] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether everything is as it was installed."""
        return all(item.good for item in self.checks)

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        checks = [{"name": item.name, "good": item.good, "found": item.found, "cure": item.cure} for item in self.checks]
        return {"good": self.good, "title": self.title, "checks": checks, "receipt": dict(self.receipt)}

    def text(self, table: Table) -> str:
        """For people: what is wrong comes with its cure, the first one first."""
        rows = [("ok" if item.good else "WRONG", item.name, item.found) for item in self.checks]
        cures = [f"{item.name}: {item.cure}" for item in self.checks if not item.good and item.cure]
        return "\n".join([self.title, "", table(("", "what", "found"), rows), *(["", *cures] if cures else [])])


def status(host: Host) -> Report:
    """What airgap installed here and whether it is as it was installed; changes nothing.

    HostUnsuitable if nothing is installed, or if the records are damaged.
    """
    found = _receipt(host)
    return Report(
        title=_title(found), checks=tuple(_checks(host, found, receipts.steps(host, found.serial))), receipt=found.document
    )


def doctor(host: Host, *, progress: Progress) -> Report:
    """As `status`, and then everything is proven again as the install proved it: programs are run, builders build."""
    found = _receipt(host)
    if not host.is_root():
        raise HostUnsuitable("only root can prove emulators and builders", hint="sudo airgap doctor")
    steps = receipts.steps(host, found.serial)
    checks = list(_checks(host, found, steps))
    where = _site(host, found, steps)
    kinds = _kinds(steps)
    proofs = prove(host, where, only=kinds, progress=progress)
    checks += [Check(name=f"proof: {proof.name}", good=proof.good, found=proof.found, cure=proof.cure) for proof in proofs]
    return Report(title=_title(found), checks=tuple(checks), receipt=found.document)


def _receipt(host: Host) -> Receipt:
    found = receipts.read(host)
    if found is None:
        raise HostUnsuitable("airgap has installed nothing on this host", hint="airgap install BUNDLE")
    return found


def _title(found: Receipt) -> str:
    return f"{found.name}, serial {found.serial}" + ("" if found.proven else ", kept although it was not proven")


def _checks(host: Host, found: Receipt, steps: Sequence[Step]) -> Iterator[Check]:
    for row in pending_row(host):
        yield Check(name=row.name, good=False, found=row.found, cure=row.cure)
    yield _engine(host, found)
    # What is served is looked at with the bundle at hand only: its links are too many to be remembered.
    looked = [step for step in steps if not isinstance(step, ServeImage)]
    with tempfile.TemporaryDirectory(prefix="airgap-") as private:
        outlooks = foresee(looked, Context(host=host, saved=Path(private), progress=SILENT))
    wrong = [item for item in outlooks if item.changes]
    if len(wrong) < len(outlooks):
        yield Check(
            name="installed", good=True, found=f"{len(outlooks) - len(wrong)} of {len(outlooks)} parts are as they were installed"
        )
    yield from (_wrong(item) for item in wrong)


def _engine(host: Host, found: Receipt) -> Check:
    try:
        info = host.daemon.info()
    except DaemonError as cause:
        return Check(name="engine", good=False, found=cause.message, cure=cause.hint or "systemctl start docker")
    was = found.document.get("engine", {}).get("version", "")
    changed = f"; it was {was} when the bundle was installed" if was and was != info.version else ""
    return Check(name="engine", good=True, found=f"{info.version} answers, {info.store} image store{changed}")


def _wrong(item: Outlook) -> Check:
    step = item.step
    if isinstance(step, Service):
        cure = f"systemctl status {step.name}; systemctl restart {step.name}"
    elif isinstance(step, Builder):
        cure = f"docker logs buildx_buildkit_{step.name}0; or install the bundle again, which makes it anew"
    else:
        cure = "install the bundle again, which puts it right"
    return Check(
        name=step.target, good=False, found=item.refused or f"not so any more: {step.describe()}", cure=item.hint or cure
    )


def _kinds(steps: Sequence[Step]) -> frozenset[str]:
    """Which kinds there is anything of to prove; an install with `--only` brought some only."""
    found = {"plugin", "emulation", "engine"}
    if any(isinstance(step, Builder) for step in steps):
        found.add("builder")
    return frozenset(found)


def _site(host: Host, found: Receipt, steps: Sequence[Step]) -> Site:
    lock = receipts.lock(host, found)
    manifest = Manifest.from_json(lock.manifest)
    users = {step.user for step in steps if isinstance(step, Builder)}
    images: dict[Reference, HostImage] = {
        step.reference: HostImage(
            reference=step.reference, root=step.root, manifest=step.manifest, config=step.config, size=step.size
        )
        for step in steps
        if isinstance(step, LoadImage)
    }
    return Site(
        manifest=manifest, lock=lock, facts=facts(host, users=sorted(users)), images=images,
        replace=bool(found.document.get("engine", {}).get("installed")),
    )  # fmt: skip
