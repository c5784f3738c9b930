"""What a compose file needs: the images its services run, and the builds it asks for.

Source: the compose specification (spec.md, build.md, interpolation) of compose-spec/compose-spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from airgap.document import Json
from airgap.oci import Platform
from airgap.projects.dockerfile import Build, Need, Order, needs
from airgap.projects.expand import Text, expand
from airgap.yamltext import LOOSE_LIMIT
from airgap.yamltext import Text as Scalar

IMAGE: Final = "docker-image://"


def read(documents: list[Json], build: Build, *, dotenv: str = "") -> tuple[list[Need], list[Order]]:
    """The needs of these documents, and the builds of other files. `dotenv` is the text of the `.env` file beside them."""
    known = {name: Text(value) for name, value in {**variables(dotenv), **build.arguments}.items()}
    services = [
        service
        for document in documents
        if isinstance(document, dict) and isinstance(document.get("services"), dict)
        for service in document["services"].values()
        if isinstance(service, dict)
    ]
    reader = _Reader(build, known)
    # What the file itself builds is pulled by nobody.
    built = {reader.text(service.get("image")).text for service in services if service.get("build") is not None}
    found: list[Need] = []
    orders: list[Order] = []
    for service in services:
        if service.get("build") is None:
            found += [need for need in reader.image(service.get("image"), service.get("platform")) if need.image not in built]
        else:
            own, order = reader.build(service["build"])
            found += own
            orders += [order] if order else []
        for volume in _rows(service.get("volumes")):
            if isinstance(volume, dict) and volume.get("type") == "image":
                found += reader.image(volume.get("source"), service.get("platform"))
    return found, orders


def variables(dotenv: str) -> dict[str, str]:
    """The variables of a `.env` file; what is no `NAME=value` is passed over."""
    found: dict[str, str] = {}
    for line in dotenv.splitlines():
        if match := re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", line):
            value = match[2].strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match[1]] = value[1:-1] if quoted else value.partition(" #")[0].rstrip()
    return found


def is_elsewhere(context: str) -> bool:
    """Whether a context is no folder: an address or a repository, whose Dockerfile is not here."""
    return "://" in context or context.startswith(("git@", "github.com/")) or context == "-"


def _rows(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


class _Reader:
    def __init__(self, build: Build, known: Mapping[str, Text]) -> None:
        self._build = build
        self._known = known

    def text(self, value: Json, *, longest: int = 4096) -> Text:
        """With its variables replaced; empty for what is no text. Raises nothing: what cannot be read stays as it is written."""
        if not isinstance(value, str):
            return Text("")
        try:
            return expand(value, self._known, maybe=None, dollars=True, longest=longest)
        except ValueError:
            return Text(value, frozenset({"?"}))

    def image(self, value: Json, platform: Json) -> Iterator[Need]:
        """An image that a service runs on a host."""
        if not isinstance(value, str) or not value:
            return
        need = Need(image=value[:200], line=_line(value), how="image")
        try:
            image = expand(value, self._known, maybe=None, dollars=True)
            asked = self.text(platform)
            if unknown := image.unknown | asked.unknown:
                yield replace(need, unknown=tuple(sorted(unknown)))
            else:
                platforms = frozenset({Platform.parse(asked.text)} if asked.text else self._build.hosts)
                yield replace(need, image=image.text, platforms=platforms)
        except ValueError as cause:
            yield replace(need, why=str(cause))

    def build(self, value: Json) -> tuple[list[Need], Order | None]:
        """What `build:` says: a folder, or a mapping."""
        section = value if isinstance(value, dict) else {"context": value}
        contexts = _pairs(section.get("additional_contexts"))
        found = [need for item in contexts.values() for need in self._context(item)]
        arguments = {
            name: filled.text
            for name, item in _pairs(section.get("args")).items()
            if isinstance(item, str) and not (filled := self.text(item)).unknown
        }
        arguments |= self._build.arguments
        if isinstance(inline := section.get("dockerfile_inline"), str):
            told = replace(self._build, arguments=arguments, contexts=self._build.contexts | contexts.keys())
            # Compose replaces its own variables in it first; `$$NAME` is left for the Dockerfile.
            text = self.text(inline, longest=LOOSE_LIMIT).text
            return found + [replace(need, line=need.line + _line(inline) - 1) for need in needs(text, told)], None
        context, file = self.text(section.get("context") or "."), self.text(section.get("dockerfile") or "Dockerfile")
        if context.unknown or file.unknown or is_elsewhere(context.text):
            return found, None
        path = file.text if file.text.startswith("/") else f"{context.text}/{file.text}"
        line = _line(section.get("dockerfile")) or _line(section.get("context"))
        return found, Order(dockerfile=path, line=line, arguments=arguments, contexts=frozenset(contexts))

    def _context(self, value: Json) -> Iterator[Need]:
        filled = self.text(value)
        if filled.text.startswith(IMAGE):
            image, unknown = (value, filled.unknown) if filled.unknown else (filled.text, frozenset())
            need = Need(image=image[len(IMAGE) :][:200], line=_line(value), how="context", unknown=tuple(sorted(unknown)))
            yield need if unknown else replace(need, platforms=frozenset(self._build.targets))


def _pairs(value: Json) -> dict[str, Json]:
    """`{a: b}` and `[a=b]` are the same to compose."""
    if isinstance(value, dict):
        return {str(name): item for name, item in value.items()}
    found: dict[str, Json] = {}
    for item in _rows(value):
        if isinstance(item, str):
            name, equals, rest = item.partition("=")
            text = Scalar(rest)
            text.line = _line(item)
            found[name] = text if equals else None
    return found


def _line(value: Json) -> int:
    return value.line if isinstance(value, Scalar) else 0
