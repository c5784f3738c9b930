"""What was at a path, kept so that it can be there again: type, mode, owner, content or link target, extended attributes.

Content is copied to a folder under its own digest before anything is changed. The time of change is left out on purpose: a file
that was put back is newer than the service that reads it, which is what makes that service start again.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from airgap.document import Json, fsync_directory
from airgap.errors import HostUnsuitable
from airgap.offline.host import Host, User, write_all

PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """`kind` is none, file or link; `saved` the hex digest of a file's content; `folders` those that were not there either."""

    path: str
    kind: str
    mode: int = 0
    owner: tuple[int, int] = (0, 0)
    to: str = ""
    saved: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """As the journal writes it."""
        return {
            "path": self.path, "kind": self.kind, "mode": self.mode, "owner": list(self.owner), "to": self.to,
            "saved": self.saved, "attributes": dict(self.attributes), "folders": list(self.folders),
        }  # fmt: skip

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Snapshot:
        """From the journal, which only root can have written."""
        rest = {"owner": tuple(row["owner"]), "folders": tuple(row["folders"])}
        return cls(**{**row, **rest})


def take(host: Host, path: str, folder: Path, *, user: User | None = None) -> Snapshot:
    """What is at `path` now, as `user` sees it; a file's content is in `folder` and flushed when this returns.

    HostUnsuitable for anything that is neither file nor link nor nothing.
    """
    with ExitStack() as stack:
        with host.acting_as(user):
            folders = host.folders(path.rpartition("/")[0] or "/")
            place = host.path(path)
            try:
                found = place.lstat()
            except FileNotFoundError:
                return Snapshot(path=path, kind="none", folders=folders)
            owner = (found.st_uid, found.st_gid)
            if stat.S_ISLNK(found.st_mode):
                return Snapshot(path=path, kind="link", owner=owner, to=str(place.readlink()))
            if not stat.S_ISREG(found.st_mode):
                what = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, pipe or socket"
                raise HostUnsuitable(f"{path} is {what}, where a file has to be", hint=f"move it away: mv {path} {path}.old")
            file = stack.enter_context(place.open("rb"))
        # Read with the user's rights, saved with ours.
        return Snapshot(
            path=path, kind="file", mode=stat.S_IMODE(found.st_mode), owner=owner, saved=_save(file.fileno(), folder),
            attributes=_attributes(file.fileno()),
        )  # fmt: skip


def _save(fd: int, folder: Path) -> str:
    """Copies what is left to read into `folder`, under its digest; says the digest."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = folder / ".saving"
    digest = hashlib.sha256()
    with temporary.open("wb") as file:
        while piece := os.read(fd, PIECE):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o600)
    temporary.replace(folder / digest.hexdigest())
    fsync_directory(folder)
    return digest.hexdigest()


def _attributes(fd: int) -> dict[str, str]:
    with suppress(OSError):  # filesystems without them
        return {name: base64.b64encode(os.getxattr(fd, name)).decode() for name in sorted(os.listxattr(fd))}
    return {}


def restore(host: Host, snapshot: Snapshot, folder: Path, *, user: User | None = None) -> None:
    """Afterwards the path is as it was when the snapshot was taken; nothing is touched that is so already."""
    with ExitStack() as stack:
        saved = stack.enter_context((folder / snapshot.saved).open("rb")) if snapshot.kind == "file" else None
        with host.acting_as(user):
            place = host.path(snapshot.path)
            host.temporary(snapshot.path).unlink(missing_ok=True)
            if snapshot.kind == "none":
                place.unlink(missing_ok=True)
                for item in reversed(snapshot.folders):
                    host.remove_folder(item)
            elif snapshot.kind == "link":
                if not (place.is_symlink() and str(place.readlink()) == snapshot.to):
                    host.link(snapshot.path, snapshot.to)
                if place.lstat().st_uid != snapshot.owner[0]:
                    os.chown(place, *snapshot.owner, follow_symlinks=False)
            elif saved is not None and not _same(place, snapshot):
                _put(host, snapshot, saved.fileno())


def _same(place: Path, snapshot: Snapshot) -> bool:
    try:
        found = place.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) != snapshot.mode:
        return False
    return (found.st_uid, found.st_gid) == snapshot.owner and file_digest(place) == snapshot.saved


def is_back(host: Host, snapshot: Snapshot) -> bool:
    """Whether the path is as it was when the snapshot was taken, seen with our own rights."""
    place = host.path(snapshot.path)
    if snapshot.kind == "none":
        return not (place.exists() or place.is_symlink())
    if snapshot.kind == "link":
        return place.is_symlink() and str(place.readlink()) == snapshot.to
    return _same(place, snapshot)


def _put(host: Host, snapshot: Snapshot, source: int) -> None:
    with host.placing(snapshot.path, mode=snapshot.mode) as fd:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != snapshot.owner:
            os.fchown(fd, *snapshot.owner)
        while piece := os.read(source, PIECE):
            write_all(fd, piece)
        for name, value in snapshot.attributes.items():
            with suppress(OSError):  # a label of a policy that is gone must not keep the file away
                os.setxattr(fd, name, base64.b64decode(value))


def file_digest(path: Path) -> str:
    """The hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def snapshots(record: Mapping[str, Json], key: str = "files") -> tuple[Snapshot, ...]:
    """The snapshots that a journal's record holds."""
    return tuple(Snapshot.from_json(row) for row in cast("list[dict[str, Any]]", record.get(key, [])))
