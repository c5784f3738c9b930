"""The images a Dockerfile needs, read as BuildKit reads it: directives, ARGs, stages, COPY --from, RUN --mount, heredocs.

Pure: text in, needs out. What depends on a build argument without a default cannot be known here and is said so, not guessed.
Sources: `frontend/dockerfile` of moby/buildkit (docs/reference.md, parser, dockerfile2llb/convert.go); what they refuse makes no
error here, where only images are looked for.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from airgap.oci import Platform
from airgap.projects.expand import Text, expand

LINES: Final = 100_000
STEPS: Final = 20_000
ARGUMENTS: Final = 1_000
SHOWN: Final = 200

_BLANKS: Final = re.compile(r"[\t\v\f\r ]+")
_SPACES: Final = re.compile(r"\s*")
_HEREDOC: Final = re.compile(r"\d*<<(-?)([^<\s][^<]*)")
_DIRECTIVES: Final = ("syntax", "escape", "check")
# One word, its quotes kept: escaped characters, quoted stretches (the last may lack its end), everything else.
_WORDS: Final = {
    escape: re.compile(rf"""(?:{escape}.?|'[^']*'?|"(?:{escape}.|[^"{escape}])*"?|[^\s'"{escape}])+""", re.DOTALL)
    for escape in (r"\\", "`")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What a build is told: the machines' platforms, those it is for, its arguments, and names that stand for other contexts."""

    hosts: tuple[Platform, ...]
    targets: tuple[Platform, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)
    contexts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One image as a file names it, and the platforms it is needed for.

    If that cannot be told, `unknown` are the variables whose value is missing, or else `why` says what is in the way.
    """

    image: str
    line: int
    how: str
    platforms: frozenset[Platform] = frozenset()
    unknown: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A build that a compose or bake file asks for: of the Dockerfile at this path, seen from that file's folder."""

    dockerfile: str
    line: int
    arguments: Mapping[str, str]
    contexts: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction: its word in capitals, its flags without quotes, the rest as written."""

    line: int
    word: str
    flags: tuple[str, ...]
    rest: str


def needs(text: str, build: Build) -> list[Need]:
    """Every image that building any stage of this file pulls, in the order of its lines.

    Frontends and what stands behind --platform=$BUILDPLATFORM are needed for the hosts, everything else for the targets. Never
    raises; of a file without end the beginning is read, and that is said.
    """
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n", LINES)]
    longer = lines[LINES:]
    del lines[LINES:]
    found: dict[Need, set[Platform]] = {}
    for need in _syntax(lines, build):
        found.setdefault(replace(need, platforms=frozenset()), set()).update(need.platforms)
    escape = _escape(lines)
    steps = list(islice(_steps(lines, escape), STEPS + 1))
    if longer or len(steps) > STEPS:
        why = f"has more than {LINES} lines or {STEPS} instructions; the rest was not read"
        found[Need(image="…", line=steps[-1].line if steps else 1, how="file", why=why)] = set()
    for host in build.hosts:
        for target in build.targets:
            for need in _Reading(steps, build, escape, host=host, target=target).needs():
                found.setdefault(replace(need, platforms=frozenset()), set()).update(need.platforms)
    ordered = sorted(found.items(), key=lambda item: item[0].line)
    return [replace(need, platforms=frozenset(platforms)) for need, platforms in ordered]


# ---- directives ------------------------------------------------------------------------------------------------------


def _directives(lines: Sequence[str], mark: str) -> dict[str, tuple[int, str]]:
    """`# key=value` lines at the very top, by key, with their line; the first line that is none of them ends it."""
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, start=1):
        key, equals, value = line.removeprefix(mark).partition("=")
        key = key.strip().lower()
        if not line.startswith(mark) or not equals or not value.strip() or key not in _DIRECTIVES or key in found:
            break
        found[key] = (number, value.strip())
    return found


def _syntax(lines: list[str], build: Build) -> Iterator[Need]:
    """The frontend, which BuildKit pulls before it reads on; it takes `//` for a mark too, and passes over a `#!` line."""
    hosts = frozenset(build.hosts)
    if chosen := build.arguments.get("BUILDKIT_SYNTAX", "").split():
        if chosen[0] != "dockerfile.v0":
            yield Need(image=chosen[0], line=1, how="BUILDKIT_SYNTAX", platforms=hosts)
        return
    shebang = int(bool(lines) and lines[0].startswith("#!"))
    for mark in ("#", "//"):
        if found := _directives(lines[shebang:], mark).get("syntax"):
            number, value = found
            yield Need(image=value.split()[0], line=number + shebang, how="# syntax", platforms=hosts)
            return


def _escape(lines: list[str]) -> str:
    _, value = _directives([line.lstrip() for line in lines[: len(_DIRECTIVES)]], "#").get("escape", (0, ""))
    return value if value == "`" else "\\"


# ---- lines and words -------------------------------------------------------------------------------------------------


def _steps(lines: list[str], escape: str) -> Iterator[_Step]:
    """Instructions with the line they begin on; comments, blank lines and the bodies of heredocs are left out."""
    position = 0
    while position < len(lines):
        start = position + 1
        parts: list[str] = []
        more = True
        while more and position < len(lines):
            line = lines[position]
            position += 1
            if line.lstrip().startswith("#") or (parts and not line.strip()):
                more = bool(parts)
                continue
            bare = line.rstrip(" \t")
            # A doubled escape at the end is an escaped one and continues nothing.
            more = bare.endswith(escape) and not bare.endswith(escape * 2)
            parts.append(bare[:-1] if more else line)
        text = "".join(parts).strip()
        if not text:
            continue
        word, _, rest = _cut(text)
        flags, rest = _flags(rest, escape)
        step = _Step(start, word.upper(), flags, rest)
        yield step
        for ending, chomp in _heredocs(step, text):
            while position < len(lines) and (lines[position].lstrip("\t") if chomp else lines[position]) != ending:
                position += 1
            position += 1


def _cut(text: str) -> tuple[str, str, str]:
    match = _BLANKS.search(text)
    return (text[: match.start()], match[0], text[match.end() :]) if match else (text, "", "")


def _flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """The `--flags` at the beginning, unquoted, and what follows; a lone `--` ends them."""
    words = _WORDS["`" if escape == "`" else r"\\"]
    flags: list[str] = []
    text = text.lstrip()
    position = 0
    while text.startswith("--", position) and (match := words.match(text, position)):
        position = match.end()
        if match[0] == "--":
            break
        flags.append(re.sub(rf"""{re.escape(escape)}(.)|['"]""", r"\1", match[0]))
        if blanks := _SPACES.match(text, position):
            position = blanks.end()
    return tuple(flags), text[position:].strip()


def _heredocs(step: _Step, text: str) -> list[tuple[str, bool]]:
    """The ends of the heredocs that begin on this line, each with whether leading tabs are taken off (`<<-`)."""
    if "<<" not in text:
        return []
    word = _cut(step.rest)[0] if step.word == "ONBUILD" else step.word
    if word.upper() not in ("RUN", "COPY", "ADD"):
        return []
    # The list form needs no care: what begins in quotes is no heredoc.
    found = [_HEREDOC.fullmatch(item[0]) for item in _WORDS[r"\\"].finditer(text)]
    return [(re.sub(r"""\\(.)|['"]""", r"\1", match[2]), bool(match[1])) for match in found if match]


# ---- what is needed --------------------------------------------------------------------------------------------------


class _Reading:
    """One way through the file: on this host, for this target."""

    def __init__(self, steps: list[_Step], build: Build, escape: str, *, host: Platform, target: Platform) -> None:
        self._steps = steps[:STEPS]
        self._build = build
        self._escape = escape
        self._host, self._target = host, target
        self._known = {**_platform_arguments("BUILD", host), **_platform_arguments("TARGET", target)}
        self._known |= {name: Text(value) for name, value in build.arguments.items() if name in self._known}
        # Names that only the build can give a value; None once there are too many to know them all.
        self._maybe: set[str] | None = set()
        self._stages: set[str] = set()
        self._replaced = {name.lower() for name in build.contexts}

    def needs(self) -> Iterator[Need]:
        """In two passes: FROM sees the stages above it, COPY --from and RUN --mount see them all."""
        first = True
        for step in self._steps:
            if step.word == "ARG" and first:
                self._argument(step)
            elif step.word == "FROM":
                first = False
                yield from self._from(step)
        for step in self._steps:
            yield from self._others(step)

    def _argument(self, step: _Step) -> None:
        """ARG before the first FROM: the build's own value, or the default, or (if none) what stood before."""
        for match in _WORDS["`" if self._escape == "`" else r"\\"].finditer(step.rest):
            name, equals, default = match[0].partition("=")
            if self._maybe is None or len(self._known) + len(self._maybe) > ARGUMENTS:
                self._maybe = None
                return
            if name in self._build.arguments:
                self._known[name] = Text(self._build.arguments[name])
            elif equals:
                try:
                    self._known[name] = expand(default, self._known, maybe=self._maybe, escape=self._escape)
                except ValueError:
                    self._known[name] = Text("", frozenset({name}))
            else:
                self._maybe.add(name)

    def _from(self, step: _Step) -> Iterator[Need]:
        words = _BLANKS.split(step.rest)
        alias = words[2].lower() if len(words) == 3 and words[1].lower() == "as" else ""
        try:
            base = expand(words[0], self._known, maybe=self._maybe, escape=self._escape)
        except ValueError as cause:
            yield Need(image=words[0][:SHOWN], line=step.line, how="FROM", why=str(cause))
        else:
            if alias not in self._replaced:
                yield from self._base(step, words[0], base)
        self._stages.add(alias)

    def _base(self, step: _Step, written: str, base: Text) -> Iterator[Need]:
        image = base.text
        if not base.unknown and (image == "scratch" or (image and image.lower() in self._stages | self._replaced)):
            return
        need = Need(image=image, line=step.line, how="FROM")
        if not written or base.unknown or not image:
            why = "" if base.unknown else "is set by no ARG before the first FROM" if written else "names nothing"
            yield replace(need, image=written[:SHOWN], unknown=tuple(sorted(base.unknown)), why=why)
            return
        asked = next((flag.partition("=")[2] for flag in reversed(step.flags) if flag.startswith("--platform=")), "")
        try:
            platform = expand(asked, self._known, maybe=self._maybe, escape=self._escape)
            if platform.unknown:
                yield replace(need, unknown=tuple(sorted(platform.unknown)))
            else:
                yield replace(need, platforms=frozenset({self._platform(platform.text) if asked else self._target}))
        except ValueError as cause:
            yield replace(need, why=f"--platform={asked[:60]}: {cause}")

    def _platform(self, text: str) -> Platform:
        """As containerd reads it: an architecture alone is one of the host's system, a system alone is the host's."""
        text = text.lower()
        if "/" in text:
            return Platform.parse(text)
        if text in ("linux", "windows", "freebsd"):
            return Platform(text, self._host.architecture, self._host.variant)
        return Platform.parse(f"{self._host.os}/{text}")

    def _others(self, step: _Step) -> Iterator[Need]:
        """COPY --from and RUN --mount=from=. No variable is taken there; ONBUILD brings them into builds of other files."""
        word, flags = step.word, step.flags
        if word == "ONBUILD":
            word, _, rest = _cut(step.rest)
            word, (flags, _) = word.upper(), _flags(rest, self._escape)
        for image in _sources(word, flags):
            how = f"{'ONBUILD ' if step.word == 'ONBUILD' else ''}{word} {'--from' if word == 'COPY' else '--mount'}"
            need = Need(image=image[:SHOWN], line=step.line, how=how)
            if image == "scratch" or image.lower() in self._stages | self._replaced:
                continue
            if "$" in image:
                yield replace(need, why="BuildKit takes no variables here; give a stage that name with FROM")
            elif step.word == "ONBUILD" and not re.search(r"[/:@]", image):
                yield replace(need, why="may be a stage of the Dockerfiles that build upon this one")
            else:
                yield replace(need, platforms=frozenset({self._target}))


def _sources(word: str, flags: Sequence[str]) -> Iterator[str]:
    for flag in flags:
        name, _, value = flag.partition("=")
        # A number is a stage's.
        if word == "COPY" and name == "--from" and value and not re.fullmatch(r"[-+]?\d+", value):
            yield value
        if word == "RUN" and name == "--mount":
            try:
                fields = next(csv.reader([value]), [])
            except csv.Error:
                fields = []
            yield from (item[5:] for item in fields if item[:5].lower() == "from=" and item[5:])


def _platform_arguments(side: str, platform: Platform) -> dict[str, Text]:
    """What BuildKit gives every FROM without any ARG."""
    return {
        f"{side}PLATFORM": Text(str(platform)),
        f"{side}OS": Text(platform.os),
        f"{side}ARCH": Text(platform.architecture),
        f"{side}VARIANT": Text(platform.variant),
        f"{side}OSVERSION": Text(""),
    }
