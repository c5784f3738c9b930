"""The little of HCL that bake files are written in: blocks and literal values. Expressions are not evaluated.

A name that stands alone (`TAG`) becomes the template `${TAG}`; what else is no literal (calls, conditions, sums) is None.
Source: hashicorp/hcl, hclsyntax/spec.md.
"""

from __future__ import annotations

import re
from typing import Final

from airgap.document import Json
from airgap.yamltext import Text

DEEPEST: Final = 16

_SKIP: Final = re.compile(r"(?:[ \t\r]+|//[^\n]*|#[^\n]*|/\*.*?(?:\*/|\Z))+", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|[0-9][0-9.]*")
_HEREDOC: Final = re.compile(r"<<(-?)([A-Za-z_][A-Za-z0-9_-]*)\r?\n")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_OPENERS: Final = {"(": ")", "[": "]", "{": "}"}


def read(text: str) -> dict[str, Json]:
    """The file as bake's JSON form has it: `{"target": {"app": {"context": …}}}`; strings are `Text`, with their lines.

    Raises ValueError, with the line, for what is not HCL.
    """
    scan = _Scan(text)
    return scan.body(stop="", depth=0)


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = (0, 1)

    def _line(self) -> int:
        at, line = self._counted
        self._counted = (self._at, line + self._text.count("\n", at, self._at))
        return self._counted[1]

    def _fail(self, message: str) -> ValueError:
        return ValueError(f"line {self._line()}: {message}")

    def _peek(self, *, lines: bool = False) -> str:
        """The next character that says something; newlines say something unless `lines` are passed over, too."""
        while True:
            if match := _SKIP.match(self._text, self._at):
                self._at = match.end()
            if not lines or not self._text.startswith("\n", self._at):
                return self._text[self._at : self._at + 1]
            self._at += 1

    def _word(self) -> str:
        match = _WORD.match(self._text, self._at)
        if not match:
            raise self._fail(f"{self._text[self._at : self._at + 20]!r} is not expected here")
        self._at = match.end()
        return match[0]

    def body(self, *, stop: str, depth: int) -> dict[str, Json]:
        """Attributes and blocks until `stop` (empty: the end)."""
        if depth > DEEPEST:
            raise self._fail(f"more than {DEEPEST} blocks deep")
        found: dict[str, Json] = {}
        while (char := self._peek(lines=True)) != stop:
            if not char:
                raise self._fail(f"the file ends before {stop}")
            name = self._key()
            if self._peek() == "=":
                self._at += 1
                found[name] = self._value("\n", depth)
                continue
            place = found
            labels = [name]
            while (char := self._peek()) not in ("{", ""):
                labels.append(self._key())
            self._at += 1
            for label in labels[:-1]:
                inner = place.setdefault(label, {})
                place = inner if isinstance(inner, dict) else {}
            place[labels[-1]] = self.body(stop="}", depth=depth + 1)
        self._at += 1
        return found

    def _key(self) -> str:
        return str(self._string()) if self._peek(lines=True) == '"' else self._word()

    def _value(self, ends: str, depth: int) -> Json:
        """A literal up to one of `ends`, which stays; None for any other expression."""
        if depth > DEEPEST:
            raise self._fail(f"more than {DEEPEST} values deep")
        value = self._literal(self._peek(), depth)
        if self._peek() and self._peek() not in ends + "}":
            self._pass_over(ends)
            return None
        return value

    def _literal(self, char: str, depth: int) -> Json:
        if char == '"':
            return self._string()
        if char == "[":
            return self._list(depth)
        if char == "{":
            return self._object(depth)
        if match := _HEREDOC.match(self._text, self._at):
            return self._heredoc(match)
        if match := _WORD.match(self._text, self._at):
            line = self._line()
            self._at = match.end()
            if match[0] in ("true", "false") or match[0][0].isdigit():
                return match[0]
            return None if match[0] == "null" else _text(f"${{{match[0]}}}", line)
        return None

    def _string(self) -> Text:
        """A quoted template as written, its escapes replaced; `${…}` may hold quotes of its own."""
        line = self._line()
        self._at += 1
        parts: list[str] = []
        depth = 0
        inner = False
        while (char := self._text[self._at : self._at + 1]) and char != "\n":
            self._at += 1
            if char == '"' and not depth:
                return _text("".join(parts), line)
            if char == "\\" and not depth:
                char = _ESCAPES.get(self._text[self._at : self._at + 1], "\\")
                self._at += 1
            elif char == "$" and not depth and self._text.startswith("{", self._at):
                char, depth = "${", 1
                self._at += 1
            elif depth:
                inner ^= char == '"'
                depth += 0 if inner else {"{": 1, "}": -1}.get(char, 0)
            parts.append(char)
        raise self._fail("a text has no closing quote")

    def _heredoc(self, match: re.Match[str]) -> Text:
        line = self._line() + 1
        end = re.compile(rf"^[ \t]*{re.escape(match[2])}[ \t\r]*$", re.MULTILINE).search(self._text, match.end())
        if not end:
            raise self._fail(f"a text has no closing {match[2]}")
        body = self._text[match.end() : end.start()]
        self._at = end.end()
        if match[1]:
            indents = [len(row) - len(row.lstrip(" \t")) for row in body.split("\n") if row.strip()]
            indent = min(indents, default=0)
            body = "\n".join(row[indent:] for row in body.split("\n"))
        return _text(body, line)

    def _list(self, depth: int) -> list[Json]:
        self._at += 1
        found: list[Json] = []
        while (char := self._peek(lines=True)) != "]":
            if not char:
                raise self._fail("a list has no closing ]")
            before = self._at
            found.append(self._value(",]\n", depth + 1))
            if self._peek(lines=True) == ",":
                self._at += 1
            elif self._at == before:
                raise self._fail(f"{char!r} is not expected here")
        self._at += 1
        return found

    def _object(self, depth: int) -> dict[str, Json]:
        self._at += 1
        found: dict[str, Json] = {}
        while (char := self._peek(lines=True)) != "}":
            if not char:
                raise self._fail("a mapping has no closing }")
            if char == ",":
                self._at += 1
                continue
            key = self._object_key()
            if self._peek() not in ("=", ":"):
                raise self._fail("a key without a value")
            self._at += 1
            found[key] = self._value(",}\n", depth + 1)
        self._at += 1
        return found

    def _object_key(self) -> str:
        if self._peek() == "(":
            self._at += 1
            self._pass_over(")")
            self._at += 1
            return ""
        return self._key()

    def _pass_over(self, ends: str) -> None:
        """To the first of `ends` that is inside no bracket and no text."""
        open_: list[str] = []
        while char := self._peek():
            if not open_ and char in ends:
                return
            if char == '"':
                self._string()
                continue
            if char in _OPENERS:
                open_.append(_OPENERS[char])
            elif open_ and char == open_[-1]:
                open_.pop()
            elif not open_ and char in ")]}":
                return
            self._at += 1


def _text(value: str, line: int) -> Text:
    text = Text(value)
    text.line = line
    return text
