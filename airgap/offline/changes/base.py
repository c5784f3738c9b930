"""What a change is: how to look, what to remember, how to apply, how to undo. One row a step type; see `CHANGES`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from airgap.document import Json
from airgap.errors import HostUnsuitable
from airgap.oci import Digest
from airgap.offline.host import Host
from airgap.progress import SILENT, Progress

S_contra = TypeVar("S_contra", contravariant=True)
Record = dict[str, Json]
"""What undo needs, as JSON; bytes lie beside it in `Context.saved`."""


class Contents(Protocol):
    """What changes take from a bundle. All bytes are verified: DigestMismatch at the latest at the end of a stream."""

    def content(self, digest: Digest) -> Iterator[bytes]:
        """The uncompressed content that has this digest, in pieces."""

    def open(self, digest: Digest) -> IO[bytes]:
        """A blob as it is carried, to be read once from its beginning."""

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A small blob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What changes work with. `saved` is the journal's folder for bytes; there is no bundle when a dead install is put back."""

    host: Host
    saved: Path
    bundle: Contents | None = None
    progress: Progress = SILENT

    @property
    def contents(self) -> Contents:
        """The bundle, where there has to be one."""
        if self.bundle is None:
            raise HostUnsuitable("this step needs the bundle")
        return self.bundle


class Change(Protocol[S_contra]):
    """How one type of step changes a host.

    `before` says None if the host is as the step says, or else what undo needs; it changes nothing but `ctx.saved`.
    `apply` makes it so. `undo` makes it as it was, whether apply never ran, ran in part or ran; twice is as once.
    `settle` runs after everything was undone, in the order of the plan: what can only be put right then.
    """

    def before(self, step: S_contra, ctx: Context) -> Record | None:
        """Whether there is something to do, and all that undo needs."""

    def apply(self, step: S_contra, ctx: Context) -> None:
        """Afterwards the host is as the step says."""

    def undo(self, step: S_contra, record: Record, ctx: Context) -> None:
        """Afterwards the host is as the record says."""

    def settle(self, step: S_contra, record: Record, ctx: Context) -> None:
        """Afterwards what depends on other steps' undoing is as the record says, too."""


class Quiet:
    """A change that has nothing to settle."""

    def settle(self, step: Any, record: Record, ctx: Context) -> None:
        """Nothing depends on other steps."""
