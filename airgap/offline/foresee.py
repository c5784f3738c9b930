"""What a plan would change, found without changing anything: so that a preview is true and a second install does nothing.

Every step is looked at as it would be just before it is applied. A service also starts again if anything it runs from changes
first, which looking at it alone cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from airgap.errors import AirgapError, HostUnsuitable
from airgap.kinds.site import CURRENT
from airgap.offline.changes import Context, change_of
from airgap.steps import Service, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """One step: whether it would change the host; `refused` says why it could not be applied at all."""

    step: Step
    changes: bool
    refused: str = ""
    hint: str = ""


def foresee(plan: Sequence[Step], ctx: Context) -> tuple[Outlook, ...]:
    """The plan's steps, each with what it would do. Only `ctx.saved` may be written meanwhile."""
    found: list[Outlook] = []
    changing: set[str] = set()
    for step in plan:
        item = _look(step, ctx)
        if not item.changes and isinstance(step, Service) and changing & _feeds(step):
            item = replace(item, changes=True)
        if item.changes:
            changing |= targets(step)
        found.append(item)
    return tuple(found)


def _look(step: Step, ctx: Context) -> Outlook:
    try:
        return Outlook(step=step, changes=change_of(step).before(step, ctx) is not None)
    except HostUnsuitable as cause:
        return Outlook(step=step, changes=True, refused=cause.message, hint=cause.hint or "")
    except (AirgapError, OSError):
        # The engine that this step asks is not there yet, or we may not look (no root): an earlier step, or the
        # preflight's own rows, deal with that.
        return Outlook(step=step, changes=True)


def _feeds(step: Service) -> set[str]:
    """The targets whose change makes this service start again."""
    found = {f"file:{path}" for path in step.files}
    if step.program.startswith(f"{CURRENT}/") or any(path.startswith(f"{CURRENT}/") for path in step.files):
        found.add(_SWITCH)
    return found


_SWITCH: Final = f"file:{CURRENT}"


def targets(step: Step) -> set[str]:
    """A step's own target, and every path it places: the first stands for all only where nobody else asks."""
    members: tuple[tuple[str, str], ...] = getattr(step, "members", ())
    return {step.target, *(f"file:{path}" for _, path in members)}


def restarts(outlooks: Sequence[Outlook], name: str) -> bool:
    """Whether this service would be started again."""
    return any(isinstance(item.step, Service) and item.step.name == name and item.changes for item in outlooks)
