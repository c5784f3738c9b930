"""YAML's events as values: strictly for manifests, loosely for what projects write (compose files).

The only importer of PyYAML, which is asked for events alone, and only when YAML is read: `--help` and installing must not pay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from airgap.document import Json, Node, below
from airgap.errors import ManifestError

LIMIT: Final = 256 << 10
DEPTH: Final = 32
LOOSE_LIMIT: Final = 1 << 20
UNFOLDED: Final = 200_000
"""How many values a loosely read file may have once its aliases are written out: a few lines of them can mean billions."""


class Text(str):
    """A scalar as it is written, and the line that its text begins on."""

    line: int = 0


class _Fraction(float):
    """A number with a point, which remembers how it was written: 1.20 is a version somebody forgot to quote, not 1.2."""

    written: str

    def __str__(self) -> str:
        """As it stands in the file."""
        return self.written


def parse_yaml(data: bytes, *, name: str) -> Node:
    """The document in `data`, with lines in its complaints.

    Raises ManifestError: not YAML, too large, too deep, a key given twice, an anchor, alias or tag, or a second document.
    """
    import yaml

    if len(data) > LIMIT:
        raise ManifestError(f"{name}: {len(data)} bytes are more than the {LIMIT} a manifest may have")
    with _complaints(data, name=name, yaml=yaml):
        reader = _Reader(yaml.parse(data.decode("utf-8-sig"), Loader=yaml.SafeLoader), yaml=yaml, name=name)
        return Node(reader.document(), path="", error=ManifestError, lookup=reader.place)


def read_loosely(data: bytes, *, name: str) -> list[Json]:
    """The documents in `data` as other tools' files have them: anchors, aliases, merge keys and tags are taken.

    Every scalar that is not null is a `Text`, as written; of a key given twice the last counts; what is tagged `!reset` is None.
    Aliases share what they name. Raises ManifestError: not YAML, over 1 MiB, too deep, or aliases that unfold to very much.
    """
    import yaml

    if len(data) > LOOSE_LIMIT:
        raise ManifestError(f"{name}: {len(data)} bytes are more than the {LOOSE_LIMIT} that are read")
    with _complaints(data, name=name, yaml=yaml):
        return list(_LooseReader(yaml.parse(data.decode("utf-8-sig"), Loader=yaml.SafeLoader), yaml=yaml, name=name).documents())


@contextmanager
def _complaints(data: bytes, *, name: str, yaml: Any) -> Iterator[None]:
    """PyYAML's errors as ours, with file and line."""
    try:
        yield
    except UnicodeDecodeError as cause:
        line = data[: cause.start].count(b"\n") + 1
        raise ManifestError(f"{name}:{line}: not UTF-8 text", hint="save the file as UTF-8") from cause
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        problem = str(cause.problem or cause.context)
        hint = "indent with blanks; YAML does not take tabs" if "\\t" in problem else None
        raise ManifestError(f"{name}{f':{mark.line + 1}' if mark else ''}: not valid YAML: {problem}", hint=hint) from cause
    except yaml.YAMLError as cause:
        raise ManifestError(f"{name}: not valid YAML: {str(cause).splitlines()[0]}") from cause


class _Reader:
    """Builds a value from YAML's events, and remembers the line on which each place begins.

    Plain words are read by YAML 1.2's core rules: null, true and false, decimal numbers; everything else is text, `no` and
    0755 and 2026-08-20 too.
    """

    def __init__(self, events: Iterator[Any], *, yaml: Any, name: str) -> None:
        self._events = events
        self._yaml = yaml
        self._name = name
        self._lines: dict[str, int] = {}

    def place(self, path: str) -> str:
        """`site.yaml:12: plugins.buildx`; a place that is not in the file has the line of what it would be in."""
        known = path
        while known and known not in self._lines:
            known = re.sub(r"(?:^|\.)[^.\[]*$|\[[0-9]*\]?$", "", known)
        line = f":{self._lines[known]}" if known else ""
        return f"{self._name}{line}{f': {path}' if path else ''}"

    def document(self) -> Json:
        """The one document there is; None if the file is empty."""
        next(self._events)
        if isinstance(next(self._events), self._yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), path="", depth=0)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, self._yaml.StreamEndEvent):
            self._fail(after, "a second document begins here", hint="one file is one manifest; take the `---` out")
        return value

    def _fail(self, event: Any, message: str, *, hint: str | None = None) -> NoReturn:
        raise ManifestError(f"{self._name}:{event.start_mark.line + 1}: {message}", hint=hint)

    def _value(self, event: Any, *, path: str, depth: int) -> Json:
        if event.anchor is not None:
            self._fail(event, f"anchors and aliases ({event.anchor[:40]!r}) are not taken", hint="write it out where it is meant")
        if getattr(event, "tag", None) is not None:
            self._fail(event, f"tags ({event.tag[:60]!r}) are not taken", hint="leave it out; write text in quotes")
        if depth > DEPTH:
            self._fail(event, f"more than {DEPTH} levels deep")
        if isinstance(event, self._yaml.ScalarEvent):
            return _plain(event.value) if event.implicit[0] else event.value
        if isinstance(event, self._yaml.MappingStartEvent):
            return self._mapping(path, depth)
        found: list[Json] = []
        while not isinstance(item := next(self._events), self._yaml.SequenceEndEvent):
            place = below(path, len(found))
            self._lines[place] = item.start_mark.line + 1
            found.append(self._value(item, path=place, depth=depth + 1))
        return found

    def _mapping(self, path: str, depth: int) -> dict[str, Json]:
        found: dict[str, Json] = {}
        while not isinstance(event := next(self._events), self._yaml.MappingEndEvent):
            key = self._value(event, path=path, depth=depth + 1)
            if not isinstance(key, str):
                hint = None if isinstance(key, dict | list) else f'write it in quotes: "{event.value}"'
                self._fail(event, f"a key must be text, not {type(key).__name__}", hint=hint)
            place = below(path, key)
            if key in found:
                self._fail(event, f"{place}: the key is given twice, first on line {self._lines[place]}", hint="leave one out")
            self._lines[place] = event.start_mark.line + 1
            found[key] = self._value(next(self._events), path=place, depth=depth + 1)
        return found


def _plain(text: str) -> Json:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?(?:0|[1-9][0-9]{0,17})", text):
        return int(text)
    if re.fullmatch(r"[-+]?(?:[0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30}|[0-9]{1,30}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?", text):
        number = _Fraction(text)
        number.written = text
        return number
    return text


class _LooseReader:
    """Builds values from YAML's events; beside each value stands how many values it is, aliases written out."""

    def __init__(self, events: Iterator[Any], *, yaml: Any, name: str) -> None:
        self._events = events
        self._yaml = yaml
        self._name = name
        self._anchors: dict[str, tuple[Json, int]] = {}

    def documents(self) -> Iterator[Json]:
        """One after the other."""
        for event in self._events:
            if isinstance(event, self._yaml.DocumentStartEvent):
                self._anchors.clear()
                yield self._value(next(self._events), depth=0)[0]

    def _fail(self, event: Any, message: str) -> NoReturn:
        raise ManifestError(f"{self._name}:{event.start_mark.line + 1}: {message}")

    def _value(self, event: Any, *, depth: int) -> tuple[Json, int]:
        if depth > DEPTH:
            self._fail(event, f"more than {DEPTH} levels deep")
        if isinstance(event, self._yaml.AliasEvent):
            # An anchor is known when what it names is complete: no value can hold itself.
            found = self._anchors.get(event.anchor)
            return found or self._fail(event, f"the alias {event.anchor[:40]!r} names nothing before it")
        if isinstance(event, self._yaml.ScalarEvent):
            value, count = self._scalar(event), 1
        elif isinstance(event, self._yaml.MappingStartEvent):
            value, count = self._mapping(depth)
        else:
            value, count = self._list(depth)
        if count > UNFOLDED:
            self._fail(event, f"aliases unfold to more than {UNFOLDED} values")
        if event.tag == "!reset":
            value, count = None, 1
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, count)
        return value, count

    def _scalar(self, event: Any) -> Json:
        if event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL"):
            return None
        text = Text(event.value)
        # The text of a block (| and >) begins on the line below its mark.
        text.line = event.start_mark.line + (2 if event.style in ("|", ">") else 1)
        return text

    def _list(self, depth: int) -> tuple[Json, int]:
        found: list[Json] = []
        total = 1
        while not isinstance(event := next(self._events), self._yaml.SequenceEndEvent):
            value, count = self._value(event, depth=depth + 1)
            found.append(value)
            total += count
        return found, total

    def _mapping(self, depth: int) -> tuple[Json, int]:
        own: dict[str, Json] = {}
        merged: dict[str, Json] = {}
        total = 1
        while not isinstance(event := next(self._events), self._yaml.MappingEndEvent):
            key, _ = self._value(event, depth=depth + 1)
            value, count = self._value(next(self._events), depth=depth + 1)
            total += count
            if total > UNFOLDED:
                self._fail(event, f"aliases unfold to more than {UNFOLDED} values")
            if key == "<<" and event.style is None:
                # Of several, the first that has a key counts, and the mapping's own keys before them all (yaml.org/type/merge).
                for other in value if isinstance(value, list) else [value]:
                    for known, item in other.items() if isinstance(other, dict) else ():
                        merged.setdefault(known, item)
            elif not isinstance(key, dict | list):
                own[key or ""] = value
        return {**merged, **own}, total
