"""Steps as JSON and back, by their own annotations: the journal must be readable by the command after a crash."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Final, cast

from airgap import steps
from airgap.document import Json, Node
from airgap.errors import HostUnsuitable
from airgap.oci import Descriptor, Digest, Platform, Reference

TYPES: Final[dict[str, type[Any]]] = {item.__name__: item for item in typing.get_args(steps.Step)}
_WORDS: Final[dict[type, Any]] = {Digest: Digest.parse, Platform: Platform.parse, Reference: Reference.parse}


def step_to_json(step: steps.Step) -> dict[str, Json]:
    """The step's type and fields."""
    fields = {field.name: _encode(getattr(step, field.name)) for field in dataclasses.fields(step)}
    return {"type": type(step).__name__, **fields}


def step_from_json(row: dict[str, Json]) -> steps.Step:
    """The same step again; HostUnsuitable if an airgap that knows other steps wrote it."""
    kind = TYPES.get(str(row.get("type")))
    if kind is None:
        raise HostUnsuitable(f"the journal holds a step {row.get('type')!r}", hint="use the airgap that wrote it, or a newer one")
    hints = typing.get_type_hints(kind)
    try:
        return cast("steps.Step", kind(**{name: _decode(hints[name], value) for name, value in row.items() if name != "type"}))
    except (KeyError, TypeError, ValueError) as cause:
        raise HostUnsuitable(f"the journal's step {row.get('type')} cannot be read: {cause}") from cause


def _encode(value: Any) -> Json:
    if isinstance(value, Descriptor):
        return value.to_json()
    if isinstance(value, Digest | Platform | Reference):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value


def _decode(hint: Any, value: Json) -> Any:
    if hint is Descriptor:
        return Descriptor.read(Node(value, path="journal", error=HostUnsuitable))
    if hint in _WORDS:
        return _WORDS[hint](value)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        kinds = (inner[0],) * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_decode(kind, item) for kind, item in zip(kinds, value, strict=True))
    if origin is frozenset:
        return frozenset(value)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(next(item for item in inner if item is not type(None)), value)
    return value
