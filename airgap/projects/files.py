"""Build files below folders, and what each of them needs: Dockerfiles, compose files, bake files.

A Dockerfile is read once by itself and once for every build that a compose or bake file asks of it, with that build's arguments:
what one of them can tell, another need not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from airgap.document import Json, read_bounded
from airgap.errors import ManifestError, UsageError
from airgap.oci import Platform
from airgap.projects import bake, compose, hcl
from airgap.projects.dockerfile import Build, Need, Order, needs
from airgap.yamltext import LOOSE_LIMIT, Text, read_loosely

LIMIT: Final = 4 << 20
ORDERS: Final = 32
MISSED: Final = 20
SKIPPED: Final = frozenset({".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox", "vendor"})
DOCKERFILE: Final = re.compile(r"(?i)(?!.*\.dockerignore$)((docker|container)file([.-].+)?|.+\.(docker|container)file)")
COMPOSE: Final = re.compile(r"(docker-)?compose([.-].+)?\.ya?ml")
BAKE: Final = re.compile(r"docker-bake([.-].+)?\.(hcl|json)")


@dataclass(frozen=True, slots=True)
class Found:
    """A need and the file that has it."""

    path: Path
    need: Need


def find(places: Sequence[Path], build: Build) -> list[Found]:
    """What the build files at these places (files, or folders with all below them) need. UsageError if a place is not there.

    A file that cannot be read is among the found as a need that cannot be told; the others are not kept from being looked at.
    """
    paths: list[Path] = []
    for place in places:
        if not place.is_dir() and not place.is_file():
            raise UsageError(f"{place}: there is no such file or folder")
        paths += sorted(_below(place)) if place.is_dir() else [place]
    found: list[Found] = []
    orders: dict[Path, list[Order]] = {}
    for path in dict.fromkeys(Path(os.path.normpath(path)) for path in paths):
        if not (COMPOSE.fullmatch(path.name) or BAKE.fullmatch(path.name)):
            orders.setdefault(path, [])
            continue
        own, asked = _parsed(path, build)
        found += [Found(path, need) for need in own]
        for order in asked:
            target = Path(os.path.normpath(path.parent / order.dockerfile))
            if target.is_file():
                orders.setdefault(target, []).append(order)
            elif order.line:
                name = os.path.normpath(order.dockerfile)[:200]
                why = f"is to be built here, and there is no {target}"
                found.append(Found(path, Need(image=name, line=order.line, how="build", why=why)))
    for path, asked in orders.items():
        found += [Found(path, need) for need in _dockerfile(path, asked, build)]
    return found


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for name in names:
            # Only files: a pipe of this name would never end.
            if any(rule.fullmatch(name) for rule in (DOCKERFILE, COMPOSE, BAKE)) and (path := Path(root, name)).is_file():
                yield path


def _parsed(path: Path, build: Build) -> tuple[list[Need], list[Order]]:
    """A compose or bake file."""
    try:
        text = _text(path, LOOSE_LIMIT)
        if COMPOSE.fullmatch(path.name):
            dotenv = path.parent / ".env"
            values = _text(dotenv, LOOSE_LIMIT) if dotenv.is_file() else ""
            own, orders = compose.read(read_loosely(text.encode(), name=str(path)), build, dotenv=values)
        elif path.suffix == ".json":
            own, orders = bake.read(_Placing(text).place(json.loads(text)), build)
        else:
            own, orders = bake.read(hcl.read(text), build)
    except ManifestError as cause:
        return [_unread(path, cause.message.removeprefix(f"{path}:"))], []
    except (ValueError, RecursionError) as cause:
        return [_unread(path, str(cause))], []
    return [need if need.line else replace(need, line=1) for need in own], orders


def _dockerfile(path: Path, orders: Sequence[Order], build: Build) -> list[Need]:
    try:
        text = _text(path, LIMIT)
    except ManifestError as cause:
        return [_unread(path, cause.message.removeprefix(f"{path}:"))]
    # A name that any of these builds replaces by a context of its own is no image's.
    build = replace(build, contexts=build.contexts.union(*(order.contexts for order in orders)))
    told = {tuple(sorted(order.arguments.items())): order.arguments for order in orders[:ORDERS]}
    readings = [needs(text, replace(build, arguments=arguments)) for arguments in (build.arguments, *told.values())]
    clear = {(need.line, need.how) for reading in readings for need in reading if not need.unknown and not need.why}
    merged: dict[Need, frozenset[Platform]] = {}
    for reading in readings:
        for need in reading:
            if (need.unknown or need.why) and (need.line, need.how) in clear:
                continue
            key = replace(need, platforms=frozenset())
            merged[key] = merged.get(key, frozenset()) | need.platforms
    return [replace(need, platforms=platforms) for need, platforms in sorted(merged.items(), key=lambda item: item[0].line)]


def _unread(path: Path, why: str) -> Need:
    return Need(image=path.name, line=1, how="file", why=f"cannot be read: {why.strip()}")


def _text(path: Path, limit: int) -> str:
    return read_bounded(path, error=ManifestError, limit=limit).decode("utf-8", errors="replace")


class _Placing:
    """Gives texts of JSON their lines, which JSON does not tell: they stand in the file in the order they are met here."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at, self._line = 0, 1
        self._missed = 0

    def place(self, value: Json) -> Json:
        """The same value; texts that are escaped in a way of their own stay without a line."""
        if isinstance(value, dict):
            return {key: self.place(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.place(item) for item in value]
        if not isinstance(value, str) or self._missed > MISSED:
            return value
        found = self._text.find(json.dumps(value, ensure_ascii=False), self._at)
        if found < 0:
            self._missed += 1
            return value
        self._line += self._text.count("\n", self._at, found)
        self._at = found
        placed = Text(value)
        placed.line = self._line
        return placed
