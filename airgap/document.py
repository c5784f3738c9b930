"""Reading and writing of the structured texts we own: bounded, typed, and precise about where they are wrong.

A `Node` is one value of a parsed JSON or YAML document together with its place. Its getters return a
checked type or raise the document's own error with that place; `done()` refuses keys nobody asked for, so
that a misspelt key is a complaint and never silently ignored.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from airgap.errors import AirgapError

Json = Any
"""What json.loads returns: the type ends at `Node`, whose getters narrow it."""

LARGEST = 64 << 20

_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


class Node:
    """One value and its place (`artifacts[3].upstream.digest`); `error` is what its complaints are raised as.

    `lookup` turns a place into what a person looks for: the file, and the line where the format has lines.
    """

    __slots__ = ("_asked", "error", "lookup", "path", "value")

    def __init__(
        self,
        value: Json,
        *,
        path: str,
        error: type[AirgapError],
        lookup: Callable[[str], str] | None = None,
    ) -> None:
        """A document's root has the path ""; without `lookup` complaints show paths as they are."""
        self.value = value
        self.path = path
        self.error = error
        self.lookup = lookup
        self._asked: set[str] = set()

    def fail(self, message: str, *, hint: str | None = None) -> NoReturn:
        """Raise the document's error, with this node's place in front."""
        place = self.lookup(self.path) if self.lookup else self.path
        raise self.error(f"{place}: {message}" if place else message, hint=hint)

    def _child(self, value: Json, step: str | int) -> Node:
        return Node(value, path=below(self.path, step), error=self.error, lookup=self.lookup)

    def mapping(self) -> dict[str, Json]:
        """This value, which must be a mapping."""
        if not isinstance(self.value, dict):
            self.fail(f"must be a mapping, not {_what(self.value)}")
        return self.value

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        self._asked.add(key)
        return self.mapping().get(key) is not None

    def get(self, key: str) -> Node:
        """The child under `key`; missing is an error."""
        self._asked.add(key)
        mapping = self.mapping()
        if mapping.get(key) is None:
            near = get_close_matches(key, [str(k) for k in mapping], n=1)
            self.fail(f"{key!r} is missing", hint=f"did you mean {key!r} where it says {near[0]!r}?" if near else None)
        return self._child(mapping[key], key)

    def find(self, key: str) -> Node | None:
        """The child under `key`, or None."""
        return self.get(key) if self.has(key) else None

    def entries(self) -> Iterator[tuple[str, Node]]:
        """The children of a mapping whose keys are free."""
        for key, value in self.mapping().items():
            if not isinstance(key, str):
                self.fail(f"the key {key!r} must be text", hint=f'write it in quotes: "{key}"')
            if _UNSAFE.search(key):
                self.fail(f"the key {below('', key)!r} contains control characters")
            self._asked.add(key)
            yield key, self._child(value, key)

    def items(self) -> Iterator[Node]:
        """The children of a list."""
        if not isinstance(self.value, list):
            self.fail(f"must be a list, not {_what(self.value)}")
        for number, value in enumerate(self.value):
            yield self._child(value, number)

    def text(self) -> str:
        """This value, which must be text safe to write and to show: no control characters, lone surrogates, bidi overrides."""
        if not isinstance(self.value, str):
            hint = None
            if isinstance(self.value, int | float):
                written = json.dumps(self.value) if isinstance(self.value, bool) else str(self.value)
                hint = f'write it in quotes: "{written}"'
            self.fail(f"must be text, not {_what(self.value)}", hint=hint)
        if _UNSAFE.search(self.value):
            self.fail("contains control characters")
        return self.value

    def integer(self, *, least: int = 0) -> int:
        """This value, which must be a whole number of at least `least`."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.fail(f"must be a whole number, not {_what(self.value)}")
        if self.value < least:
            self.fail(f"must be at least {least}, not {self.value}")
        return self.value

    def flag(self) -> bool:
        """This value, which must be true or false."""
        if not isinstance(self.value, bool):
            self.fail(f"must be true or false, not {_what(self.value)}")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """This value, which must be a list of texts."""
        return tuple(item.text() for item in self.items())

    def done(self) -> None:
        """Refuse every key that no getter has asked for."""
        for key in self.mapping():
            if key not in self._asked:
                known = sorted(self._asked)
                near = get_close_matches(str(key), known, n=1)
                self._child(None, str(key)).fail(
                    "unknown key",
                    hint=f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}",
                )


def below(path: str, step: str | int) -> str:
    """The place of a child: a key after a dot, a number in brackets. Keys are cut and escaped: places are shown to people."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    shown = step[:80] if step.isprintable() else step[:80].encode("unicode_escape").decode()
    return f"{path}.{shown}" if path else shown


def _what(value: Json) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    return "a mapping" if isinstance(value, dict) else "a list"


def _mapping(pairs: list[tuple[str, Json]], *, name: str, error: type[AirgapError]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise error(f"{name}: the key {below('', key)!r} is given twice")
        found[key] = value
    return found


def parse_json(data: bytes, *, name: str, error: type[AirgapError], limit: int = LARGEST) -> Node:
    """The document in `data`, or `error`: not JSON, not UTF-8, over `limit` bytes, too deep, or a key given twice.

    Depth needs no count of ours: json's scanner guards its recursion and answers RecursionError.
    """
    if len(data) > limit:
        raise error(f"{name}: {len(data)} bytes are more than the {limit} this document may have")

    def number(text: str) -> int:
        if len(text) > 19:
            raise error(f"{name}: the number {text[:30]}… is too long")
        return int(text)

    def fraction(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise error(f"{name}: the number {text[:30]} is too large")
        return value

    def constant(text: str) -> NoReturn:
        raise error(f"{name}: {text} is not JSON")

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=lambda pairs: _mapping(pairs, name=name, error=error),
            parse_int=number,
            parse_float=fraction,
            parse_constant=constant,
        )
    except (ValueError, RecursionError) as cause:
        raise error(f"{name}: not valid JSON ({cause})") from cause
    return Node(value, path="", error=error, lookup=lambda path: f"{name}: {path}" if path else name)


def dump_json(value: Json) -> bytes:
    """Canonical bytes: UTF-8, keys in the order given, two blanks of indent, one newline at the end."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_bounded(path: Path, *, error: type[AirgapError], limit: int = LARGEST) -> bytes:
    """The whole file, or `error` if it cannot be read or is over `limit` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    if len(data) > limit:
        raise error(f"{path}: larger than the {limit} bytes such a file may have")
    return data


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Afterwards `path` holds exactly `data` and survives a power cut; before, it holds what it held.

    Raises OSError; the temporary file beside it is gone then too.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # Exclusively: root writes into users' folders too, where somebody may have put a link under this name.
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            temporary.chmod(mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Afterwards the names in this directory survive a power cut, where the system can promise that (Windows does not)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
