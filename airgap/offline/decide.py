"""Which engine a host will run afterwards: the one it has, or the bundle's. Pure: a decision over facts, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from airgap.errors import HostUnsuitable, UsageError
from airgap.kinds.site import EngineFacts, HostFacts

EngineWish = Literal["auto", "keep", "replace"]
LEAST: Final = (18, 9)
"""The oldest engine that buildx can drive (API 1.39)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`replace` means that the bundle's engine is to run here; `text` says why."""

    replace: bool
    text: str


def decide(wish: EngineWish, facts: HostFacts, *, carried: str, wanted: bool = True) -> Decision:
    """What happens to the engine. `carried` is the version in the bundle for this platform, empty if it has none;
    `wanted` is false if this run is not about the engine at all (`--only`).

    Raises HostUnsuitable where there is nothing to keep, UsageError where there is nothing to replace it with.
    """
    engine = facts.engine
    if not wanted:
        return Decision(False, f"engine {engine.version} is left alone" if engine else "the engine is left alone")
    if wish == "keep":
        if engine is None:
            raise HostUnsuitable(
                "no engine answers on this host, so there is none to keep", hint="systemctl start docker, or --engine auto"
            )
        return Decision(False, f"engine {engine.version} is kept, as asked")
    if wish == "replace":
        if not carried:
            raise UsageError(
                "the bundle holds no engine for this host", hint="leave out --engine replace, or pack with `engine: {version: …}`"
            )
        return Decision(
            True, f"engine {engine.version} is replaced by {carried}, as asked" if engine else f"engine {carried} is installed"
        )
    return _auto(engine, facts.idle_engine, carried)


def _auto(engine: EngineFacts | None, idle: str, carried: str) -> Decision:
    if engine is None:
        if idle:
            # Somebody's engine that is only stopped: taking its place without being asked could cost its containers.
            return Decision(False, f"{idle} is an engine that does not answer; it is left alone")
        return Decision(bool(carried), f"engine {carried} is installed" if carried else "no engine here, and none in the bundle")
    if not carried:
        return Decision(False, f"engine {engine.version} is kept; the bundle holds none")
    if engine.ours:
        # Distributions add their own mark to the version (28.5.2+dfsg4).
        what = "stays" if engine.version.partition("+")[0] == carried else "gives way to"
        return Decision(
            True, f"engine {engine.version}, installed by airgap, {what}" + ("" if what == "stays" else f" {carried}")
        )
    if engine.generation < LEAST:
        return Decision(True, f"engine {engine.version} is older than 18.09, too old for buildx; {carried} takes its place")
    return Decision(
        False, f"engine {engine.version} was here before and is good enough: kept; --engine replace would install {carried}"
    )
