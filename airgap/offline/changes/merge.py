"""JSON files that belong to somebody else: our keys get in, everything else stays, and the way it was written stays too."""

from __future__ import annotations

import json
import re
from typing import cast

from airgap.document import Json
from airgap.errors import HostUnsuitable
from airgap.offline.changes.base import Context, Quiet, Record
from airgap.offline.host import Host, User
from airgap.offline.snapshot import restore, snapshots, take
from airgap.steps import MergeJson

MEND = "mend the file, then install again"


class Merged(Quiet):
    """MergeJson. With an owner, files are touched with the owner's rights only."""

    def before(self, step: MergeJson, ctx: Context) -> Record | None:
        """Whether any of the keys lacks any of its values."""
        user = _owner(step, ctx.host)
        with ctx.host.acting_as(user):
            wanted = _wanted(step, ctx.host)
            real = ctx.host.real(step.path)
        if wanted is None:
            return None
        # A link stays a link: the file it points to is the one that changes.
        return {"files": [take(ctx.host, real, ctx.saved, user=user).to_json()]}

    def apply(self, step: MergeJson, ctx: Context) -> None:
        """The keys are there; mode and owner of a file that was there before stay."""
        host, user = ctx.host, _owner(step, ctx.host)
        with host.acting_as(user):
            wanted = _wanted(step, host)
            if wanted is None:
                return
            real = host.real(step.path)
            place = host.path(real)
            found = place.stat() if place.exists() else None
            if found is None and user:
                host.make_folder(real.rpartition("/")[0] or "/", mode=0o700)
            mode = found.st_mode & 0o7777 if found else step.mode
            owner = (found.st_uid, found.st_gid) if found else None
            host.write(real, wanted, mode=mode, owner=owner)

    def undo(self, step: MergeJson, record: Record, ctx: Context) -> None:
        """The file is byte for byte what it was."""
        if step.owner and ctx.host.user(step.owner) is None:
            return  # gone since then, and its home with it
        for snapshot in snapshots(record):
            restore(ctx.host, snapshot, ctx.saved, user=_owner(step, ctx.host))


def _owner(step: MergeJson, host: Host) -> User | None:
    if not step.owner:
        return None
    user = host.user(step.owner)
    if user is None:
        raise HostUnsuitable(f"{step.path}: its owner, {step.owner}, does not exist on this host")
    return user


def _wanted(step: MergeJson, host: Host) -> bytes | None:
    """The file's bytes as they should be; None if it has everything already."""
    data = host.read(step.path)
    text = _text(step.path, data or b"")
    known = _parse(step.path, text)
    merged = merge(known, step.changes)
    if data is not None and merged == known:
        return None
    indent = _indent(text)
    end = "\n" if not text or text.endswith("\n") else ""
    return (json.dumps(merged, indent=indent, ensure_ascii=False) + end).encode()


def _text(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as cause:
        line = data[: cause.start].count(b"\n") + 1
        raise HostUnsuitable(f"{path}: line {line} is not UTF-8 text", hint=MEND) from cause


def _parse(path: str, text: str) -> dict[str, Json]:
    if not text.strip():
        return {}
    try:
        known = json.loads(text)
    except json.JSONDecodeError as cause:
        place = f"{path}: line {cause.lineno}, column {cause.colno}"
        raise HostUnsuitable(f"{place}: not valid JSON: {cause.msg}", hint=MEND) from cause
    except (ValueError, RecursionError) as cause:
        raise HostUnsuitable(f"{path}: not valid JSON", hint=MEND) from cause
    if not isinstance(known, dict):
        raise HostUnsuitable(f"{path}: holds no mapping at its top", hint=MEND)
    return cast("dict[str, Json]", known)


def merge(known: dict[str, Json], changes: dict[str, Json]) -> dict[str, Json]:
    """`known` with `changes` in it: mappings merged, lists united in order, everything else replaced; the order of keys stays."""
    merged = dict(known)
    for key, value in changes.items():
        there = merged.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            merged[key] = merge(there, value)
        elif isinstance(value, list) and isinstance(there, list):
            merged[key] = [*there, *(item for item in value if item not in there)]
        else:
            merged[key] = value
    return merged


def _indent(text: str) -> str | int | None:
    """What the file is indented with: its first indented line says; None for a file of one line."""
    found = re.search(r"^[ \t]+(?=\S)", text, re.MULTILINE)
    if found:
        return found[0]
    return 2 if not text.strip() or "\n" in text.strip() else None
