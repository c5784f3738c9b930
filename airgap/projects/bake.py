"""What a bake file needs, in HCL or JSON: the images that stand for contexts, and the builds it asks for.

Source: docs/bake-reference.md of docker/buildx.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from airgap.document import Json
from airgap.projects.compose import IMAGE, is_elsewhere
from airgap.projects.dockerfile import Build, Need, Order, needs
from airgap.yamltext import Text

LONGEST: Final = 1 << 20
PARENTS: Final = 16

_TEMPLATE: Final = re.compile(r"\$?\$\{([^}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def read(document: Json, build: Build) -> tuple[list[Need], list[Order]]:
    """The needs of this document (bake's JSON form), and the builds of other files."""
    reader = _Reader(document if isinstance(document, dict) else {}, build)
    found: list[Need] = []
    orders: list[Order] = []
    for name in reader.targets:
        own, order = reader.target(name)
        found += own
        orders += [order] if order else []
    return found, orders


class _Reader:
    def __init__(self, document: Mapping[str, Json], build: Build) -> None:
        self._build = build
        self.targets = _mappings(document.get("target"))
        self._values: dict[str, str] = {}
        for name, variable in _mappings(document.get("variable")).items():
            # Bake takes a variable from the environment before its default.
            value = build.arguments.get(name, variable.get("default"))
            if isinstance(value, str):
                text, unknown = self._filled(value)
                self._values |= {} if unknown else {name: text[:4096]}
        self._merged: dict[str, dict[str, Json]] = {}

    def _filled(self, text: str) -> tuple[str, tuple[str, ...]]:
        """With its `${NAME}` replaced, and those that have no value; other expressions are not evaluated and count as such."""
        unknown: dict[str, None] = {}
        length = len(text)

        def value(match: re.Match[str]) -> str:
            nonlocal length
            if match[0].startswith("$$"):
                return match[0][1:]
            found = self._values.get(match[1].strip())
            if found is None or length > LONGEST:
                unknown[match[1].strip() if _NAME.fullmatch(match[1].strip()) else "?"] = None
                return match[0]
            length += len(found)
            return found

        return _TEMPLATE.sub(value, text), tuple(unknown)[:8]

    def _inherited(self, name: str, depth: int = 0) -> dict[str, Json]:
        """The target with what it takes from others: its own attributes first, mappings key by key."""
        if name in self._merged or depth > PARENTS:
            return self._merged.get(name, {})
        own = self.targets.get(name, {})
        # Known from now on, so that a circle ends.
        merged = self._merged[name] = {}
        parents = own.get("inherits")
        names = [item for item in parents if isinstance(item, str)] if isinstance(parents, list) else []
        for source in (*(self._inherited(item, depth + 1) for item in names), own):
            for key, value in source.items():
                both = isinstance(value, dict) and isinstance(merged.get(key), dict)
                merged[key] = {**merged[key], **value} if both else value
        return merged

    def target(self, name: str) -> tuple[list[Need], Order | None]:
        """One target's image contexts and inline Dockerfile, or its order of another."""
        target = self._inherited(name)
        contexts = _dict(target.get("contexts"))
        found = [need for value in contexts.values() if isinstance(value, str) for need in self._context(value)]
        arguments: dict[str, str] = {}
        for key, value in _dict(target.get("args")).items():
            if isinstance(value, str):
                text, unknown = self._filled(value)
                arguments |= {} if unknown else {key: text}
        arguments |= self._build.arguments
        if isinstance(inline := target.get("dockerfile-inline"), str):
            told = replace(self._build, arguments=arguments, contexts=self._build.contexts | contexts.keys())
            line = max(_line(inline), 1)
            return found + [replace(need, line=need.line + line - 1) for need in needs(self._filled(inline)[0], told)], None
        written = [target.get("context", "."), target.get("dockerfile", "Dockerfile")]
        (context, open_), (file, also) = (self._filled(item) if isinstance(item, str) else ("", ("?",)) for item in written)
        if open_ or also or is_elsewhere(context.removeprefix("cwd://")):
            return found, None
        path = file.removeprefix("cwd://") if file.startswith(("/", "cwd://")) else f"{context.removeprefix('cwd://')}/{file}"
        line = _line(written[1]) or _line(written[0])
        return found, Order(dockerfile=path, line=line, arguments=arguments, contexts=frozenset(contexts))

    def _context(self, value: str) -> list[Need]:
        text, unknown = self._filled(value)
        if not text.startswith(IMAGE):
            return []
        platforms = frozenset() if unknown else frozenset(self._build.targets)
        why = "is an expression, and bake's are not evaluated here" if "?" in unknown else ""
        image = (value if unknown else text)[len(IMAGE) :]
        names = () if why else unknown
        return [Need(image=image[:200], line=_line(value), how="context", platforms=platforms, unknown=names, why=why)]


def _dict(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Json) -> dict[str, dict[str, Json]]:
    return {name: item for name, item in _dict(value).items() if isinstance(item, dict)}


def _line(value: Json) -> int:
    return value.line if isinstance(value, Text) else 0
