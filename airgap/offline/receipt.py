"""What a host holds, written when an install has been proven and read after a reboot, or by the next pack.

    /var/lib/airgap/receipt.json                     the receipt; goes back to the packer as its inventory
    /var/lib/airgap/generations/<serial>/lock.json   the lock it was installed from
    /var/lib/airgap/generations/<serial>/plan.json   every step that holds on this host: what `status` looks at

They are written as steps of the install's own journal, so that a rollback brings the older ones back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from airgap.document import Json, dump_json, parse_json
from airgap.errors import HostUnsuitable
from airgap.kinds.site import Site
from airgap.lock import Lock
from airgap.machine.daemon import DaemonError
from airgap.oci import Digest, read_digest
from airgap.offline.host import Host
from airgap.offline.journal import STATE
from airgap.offline.stepjson import step_from_json, step_to_json
from airgap.steps import Builder, LoadImage, PlaceFiles, ServeImage, Step, WriteFile

VERSION: Final = 1
RECEIPT: Final = f"{STATE}/receipt.json"


def folder(serial: int) -> str:
    """Where one generation's lock and plan are kept."""
    return f"{STATE}/generations/{serial}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as it is on disk; `document` is all of it."""

    name: str
    serial: int
    lock: Digest
    proven: bool
    document: Mapping[str, Json]


def read(host: Host) -> Receipt | None:
    """This host's receipt, or None if airgap installed nothing here. HostUnsuitable if it is damaged."""
    data = host.read(RECEIPT)
    if data is None:
        return None
    node = parse_json(data, name=RECEIPT, error=HostUnsuitable)
    version = node.get("airgap-receipt").integer()
    if version != VERSION:
        node.fail(
            f"is a receipt of format {version}; this airgap reads format {VERSION}", hint="use the airgap that installed it"
        )
    return Receipt(
        name=node.get("name").text(),
        serial=node.get("serial").integer(),
        lock=read_digest(node.get("lock")),
        proven=node.get("proven").flag(),
        document=node.mapping(),
    )


def lock(host: Host, receipt: Receipt) -> Lock:
    """The lock that the receipt speaks of; HostUnsuitable if it is gone or another one."""
    path = f"{folder(receipt.serial)}/lock.json"
    data = host.read(path)
    if data is None or Digest.of(data) != receipt.lock:
        found = f"{path} is not the lock" if data else f"{path}, the lock, is gone: not the one"
        raise HostUnsuitable(f"{found} that the receipt names ({receipt.lock})", hint="install the bundle again")
    return Lock.parse(data, name=path)


def steps(host: Host, serial: int) -> tuple[Step, ...]:
    """Every step that holds on this host since that generation; none if the file is not there."""
    path = f"{folder(serial)}/plan.json"
    data = host.read(path)
    if data is None:
        return ()
    node = parse_json(data, name=path, error=HostUnsuitable)
    return tuple(step_from_json(item.mapping()) for item in node.get("steps").items())


def writing(host: Host, site: Site, plan: Sequence[Step], *, partial: bool, proven: bool) -> tuple[Step, ...]:
    """The steps that write it all. With `partial` (`--only`), what held before and is not in the plan still holds."""
    before = read(host) if partial else None
    held = {step.target: step for step in steps(host, before.serial)} if before else {}
    held |= {step.target: step for step in plan}
    dumped = site.lock.dump()
    rows: dict[str, Json] = {"serial": site.lock.serial, "steps": [step_to_json(step) for step in held.values()]}
    where = folder(site.lock.serial)
    document = _document(host, site, tuple(held.values()), lock=Digest.of(dumped), proven=proven)
    return (
        WriteFile(path=f"{where}/lock.json", text=dumped.decode()),
        # Units and configuration of the site: for root only.
        WriteFile(path=f"{where}/plan.json", text=dump_json(rows).decode(), mode=0o600),
        WriteFile(path=RECEIPT, text=dump_json(document).decode()),
    )


def _document(host: Host, site: Site, held: Sequence[Step], *, lock: Digest, proven: bool) -> dict[str, Json]:
    try:
        engine = host.daemon.version()
    except DaemonError:
        engine = ""
    images = [step for step in held if isinstance(step, LoadImage)]
    served = [step for step in held if isinstance(step, ServeImage)]
    files = {step.content for step in held if isinstance(step, PlaceFiles)}
    artifacts = [item for item in site.lock.files if item.platform == site.facts.platform and item.content.digest in files]
    blobs = {*files, *(digest for step in images for digest in (step.root.digest, step.manifest.digest, step.config))}
    blobs |= {item.digest for step in served for item in (step.top, *step.manifests)}
    return {
        "airgap-receipt": VERSION,
        "name": site.lock.name,
        "serial": site.lock.serial,
        "lock": str(lock),
        "platform": str(site.facts.platform),
        "proven": proven,
        "engine": {"version": engine, "installed": any(item.kind == "engine" for item in artifacts)},
        "plugins": {item.name: item.version for item in sorted(artifacts, key=lambda item: item.name) if item.kind == "plugin"},
        "images": [
            {
                "reference": str(step.reference),
                "root": str(step.root.digest),
                "manifest": str(step.manifest.digest),
                "id": str(step.config),
            }
            for step in sorted(images, key=lambda step: str(step.reference))
        ],
        "served": sorted(f"{step.repository}:{step.tag or step.top.digest}" for step in served),
        "builders": [{"name": step.name, "user": step.user} for step in held if isinstance(step, Builder)],
        "blobs": [str(item) for item in sorted(blobs)],
    }
