"""One need of a plan on a host, what was found, and how to cure it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airgap.document import Json

Level = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One need: `refuse` stops the install, `warn` is said, `ok` is for the record."""

    name: str
    found: str
    needed: str
    cure: str
    level: Level

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {name: getattr(self, name) for name in ("name", "found", "needed", "cure", "level")}


def row(name: str, found: object, needed: object, cure: str, *, good: bool, otherwise: Level = "refuse") -> Row:
    """The row: `ok` if `good`, or else `otherwise` with the cure."""
    return Row(name=name, found=str(found), needed=str(needed), cure="" if good else cure, level="ok" if good else otherwise)
