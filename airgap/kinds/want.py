"""What a manifest asks an upstream for, before anyone has looked: the question that `online.resolve` answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airgap.lock import Form
from airgap.oci import Platform, Reference

SourceKey = Literal["docker_static", "github", "github_api"]
Shape = Literal["engine", "elf", "gzip"]


@dataclass(frozen=True, slots=True)
class Place:
    """A path below one of the manifest's sources."""

    source: SourceKey
    path: str

    @property
    def filename(self) -> str:
        """Its last part."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Borne:
    """The same files inside an image, for sites where the file's own source is blocked: paths in it by member name."""

    reference: Reference
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWant:
    """One file: tried at each of `places` on each of its source's addresses, then in each of `borne`.

    `checksums` are documents of upstream's that may name its sha256; `shape` is what the bytes must be, and
    `members` are what a tarball must hold. `limit` is in bytes. `listing` is where upstream lists its versions. `way` keeps to one of both.
    """

    kind: str
    name: str
    version: str
    platform: Platform
    places: tuple[Place, ...]
    checksums: tuple[Place, ...]
    form: Form
    shape: Shape
    members: tuple[str, ...] = ()
    borne: tuple[Borne, ...] = ()
    way: Literal["any", "file", "image"] = "any"
    listing: Place | None = None
    limit: int = 512 << 20

    @property
    def title(self) -> str:
        """What people call it: `docker 28.5.2 for linux/amd64`."""
        return f"{self.name} {self.version} for {self.platform}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWant:
    """One image. `platforms` are those to carry; with `strict` a missing one is an error, else it is left out and said."""

    kinds: tuple[str, ...]
    reference: Reference
    platforms: frozenset[Platform]
    strict: bool
    daemon: bool = False


Want = FileWant | ImageWant
