"""How each type of step changes a host and is undone: one row a type, and nothing else knows them one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airgap import steps
from airgap.offline.changes.base import Change, Contents, Context, Record
from airgap.offline.changes.builder import Built
from airgap.offline.changes.files import Linked, Placed, PlacedFromImage, Written
from airgap.offline.changes.groups import Employed, Grouped, Joined
from airgap.offline.changes.images import Loaded, Tagged
from airgap.offline.changes.merge import Merged
from airgap.offline.changes.registry import Stocked
from airgap.offline.changes.service import Served

__all__ = ["CHANGES", "Change", "Contents", "Context", "Record", "change_of"]

CHANGES: Final[Mapping[type, Change[Any]]] = {
    steps.PlaceFiles: Placed(),
    steps.PlaceImageFiles: PlacedFromImage(),
    steps.WriteFile: Written(),
    steps.Link: Linked(),
    steps.MergeJson: Merged(),
    steps.SystemGroup: Grouped(),
    steps.SystemUser: Employed(),
    steps.GroupMember: Joined(),
    steps.Service: Served(),
    steps.LoadImage: Loaded(),
    steps.TagImage: Tagged(),
    steps.ServeImage: Stocked(),
    steps.Builder: Built(),
}


def change_of(step: steps.Step) -> Change[Any]:
    """The row for this step."""
    return CHANGES[type(step)]
