"""Variables in the texts of build files, replaced as BuildKit and compose replace them.

Sources: `frontend/dockerfile/shell/lex.go` of moby/buildkit, which both descend from, and compose's reference of interpolation.
A shell's patterns (`${NAME%.*}`) are told as not worked out rather than guessed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

# Far above any image's name; values that hold values that hold values double with every line otherwise.
LONGEST: Final = 4096
DEEPEST: Final = 16
MANY: Final = 8

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")


@dataclass(frozen=True, slots=True)
class Text:
    """A text after replacing, and the variables without whose value it is not known."""

    text: str
    unknown: frozenset[str] = frozenset()


def expand(
    text: str, known: Mapping[str, Text], *, maybe: Container[str] | None, escape: str = "", dollars: bool = False,
    longest: int = LONGEST,
) -> Text:  # fmt: skip
    """The text with its variables replaced.

    A variable that is not known is empty, and is reported as unknown if it is one of `maybe` (None: if it is any). With `escape`,
    quotes are taken off as a Dockerfile's are; with `dollars`, `$$` is a dollar as in compose files. Raises ValueError, in words
    for people, for what BuildKit refuses, for what is not worked out here, and for texts that grow over `longest`.
    """
    scan = _Scan(text, known, maybe, escape=escape, dollars=dollars, longest=longest)
    return scan.until("", depth=0)


class _Scan:
    def __init__(
        self, text: str, known: Mapping[str, Text], maybe: Container[str] | None, *, escape: str, dollars: bool, longest: int
    ) -> None:
        self._text = text
        self._known = known
        self._maybe = maybe
        self._escape = escape
        self._dollars = dollars
        self._longest = longest
        self._at = 0

    def until(self, stop: str, *, depth: int, quoted: bool = False) -> Text:
        """What stands before the next `stop` (empty: the end), which is passed over."""
        if depth > DEEPEST:
            raise ValueError(f"has variables in variables more than {DEEPEST} deep")
        parts: list[str] = []
        unknown: set[str] = set()
        length = 0
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == stop:
                self._at += 1
                return Text("".join(parts), frozenset(unknown))
            piece = self._piece(char, depth=depth, quoted=quoted)
            parts.append(piece.text)
            unknown |= {name for name in piece.unknown if len(unknown) < MANY}
            length += len(piece.text)
            if length > self._longest:
                raise ValueError(f"is longer than {self._longest} characters")
        if stop:
            raise ValueError(f"has no closing {stop}")
        return Text("".join(parts), frozenset(unknown))

    def _piece(self, char: str, *, depth: int, quoted: bool) -> Text:
        self._at += 1
        if char == "$":
            return self._variable(depth)
        if not self._escape:
            return Text(char)
        if char == self._escape:
            after = self._text[self._at : self._at + 1]
            if quoted and after not in ('"', "$", self._escape):
                return Text(char)
            self._at += 1
            return Text(after)
        if char == '"' and not quoted:
            return self.until('"', depth=depth + 1, quoted=True)
        if char == "'" and not quoted:
            end = self._text.find("'", self._at)
            if end < 0:
                raise ValueError("has no closing '")
            text, self._at = self._text[self._at : end], end + 1
            return Text(text)
        return Text(char)

    def _variable(self, depth: int) -> Text:
        if self._dollars and self._text.startswith("$", self._at):
            self._at += 1
            return Text("$")
        braced = self._text.startswith("{", self._at)
        match = _NAME.match(self._text, self._at + braced)
        if not match:
            if braced:
                raise ValueError("has a ${…} that is no variable")
            return Text("$")
        self._at = match.end()
        name = match[0]
        return self._modified(name, depth) if braced else self._value(name)

    def _modified(self, name: str, depth: int) -> Text:
        """The rest of `${NAME…}`: a default, an alternative, a complaint."""
        rest = re.compile(r"}|:?[-+?]").match(self._text, self._at)
        if not rest:
            raise ValueError(f"changes ${name} in a way that is not worked out here")
        self._at = rest.end()
        if rest[0] == "}":
            return self._value(name)
        word = self.until("}", depth=depth + 1)
        value = self._known.get(name)
        # The colon makes an empty value count as none; one that is not known is taken to be something.
        there = value is not None and not (rest[0].startswith(":") and not value.text and not value.unknown)
        if rest[0].endswith("-"):
            return value if value is not None and there else word
        if rest[0].endswith("+"):
            return word if there else Text("")
        if there or self._maybe is None or name in self._maybe:
            return self._value(name)
        raise ValueError(f"asks for a ${name} that nothing sets")

    def _value(self, name: str) -> Text:
        if (value := self._known.get(name)) is not None:
            return value
        return Text("", frozenset({name}) if self._maybe is None or name in self._maybe else frozenset())
