"""Whether downloaded bytes are what they were asked for: the last look before they are locked.

A checksum proves that the bytes are upstream's; where upstream publishes none, this is what stands between a site and
a login page, a tarball without a daemon, or an arm64 binary under an amd64 name.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

from airgap import elf
from airgap.errors import FetchError
from airgap.oci import Platform


def check_elf(path: Path, *, platform: Platform, source: str) -> None:
    """FetchError unless the file is an executable of this platform."""
    with path.open("rb") as file:
        _check_head(file.read(64), platform=platform, source=source)


def _check_head(head: bytes, *, platform: Platform, source: str) -> None:
    if elf.runs_on(head, platform):
        return
    machine = elf.machine_of(head)
    found = f"an executable for {machine.architecture}" if machine else f"no executable (it begins with {head[:16]!r})"
    raise FetchError(
        f"{source}: is {found}, but {platform} was asked for",
        hint="the mirror or the release has the wrong file under this name; try another source",
    )


def check_engine(path: Path, *, members: Iterable[str], platform: Platform, source: str) -> None:
    """FetchError unless the tgz holds all `members` as executables of this platform. Reads it once, unpacks nothing."""
    wanted = set(members)
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                if member.name in wanted and member.isreg():
                    file = tar.extractfile(member)
                    _check_head(file.read(64) if file else b"", platform=platform, source=f"{source}: {member.name}")
                    wanted.discard(member.name)
    except (tarfile.TarError, EOFError, OSError) as cause:
        raise FetchError(f"{source}: is not a whole .tgz ({cause})", hint="download it by hand and look at it") from cause
    if wanted:
        raise FetchError(
            f"{source}: lacks {', '.join(sorted(wanted))}",
            hint="it may be a client-only archive; name another version, or a source that has the engine",
        )
