"""How upstreams name and number what they publish: pure knowledge, no network, each rule with the place it was read in.

A template is not enough. Names change with the version (a suffix came and went, a re-release got a number, an architecture
got another spelling), so the exceptions stand here as data, and `tests/test_upstreams.py` holds every name against the
asset lists of every release.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final
from urllib.parse import unquote

from airgap.errors import FetchError, ResolveError
from airgap.oci import Platform

_VERSION: Final = re.compile(
    r"(?P<numbers>\d{1,6}\.\d{1,6}\.\d{1,6})(?P<ce>-ce)?(?:-?(?P<pre>[a-z]{1,12})\.?(?P<serial>\d{1,6}))?(?:-(?P<build>\d{1,6}))?",
    re.ASCII,
)
_IN_A_TAG: Final = re.compile(
    r"(?P<prefix>[A-Za-z_][A-Za-z_-]*?)?(?P<numbers>\d{1,9}(?:\.\d{1,9})*)(?P<rest>.*)", re.DOTALL | re.ASCII
)


@dataclass(frozen=True, slots=True)
class Version:
    """An upstream's version: 28.5.2, 29.0.0-rc.1, 19.03.13-beta1, 18.06.3-ce, 29.4.2-2, or with a v before it.

    Sorted by its numbers; a pre-release stands below its release, a re-release (`-2`) above it, `-ce` means nothing.
    """

    numbers: tuple[int, int, int]
    pre: tuple[str, int] | None
    build: int
    text: str

    @classmethod
    def parse(cls, text: str) -> Version:
        """From upstream's own spelling; ValueError for anything that is not three numbers and these suffixes."""
        bare = text.removeprefix("v")
        if not (found := _VERSION.fullmatch(bare)):
            raise ValueError(f"{text[:60]!r} is not a version such as 28.5.2")
        major, minor, patch = found["numbers"].split(".")
        return cls(
            (int(major), int(minor), int(patch)),
            (found["pre"], int(found["serial"])) if found["pre"] else None,
            int(found["build"] or 0),
            bare,
        )

    @property
    def _key(self) -> tuple[tuple[int, int, int], bool, tuple[str, int], int]:
        return (self.numbers, self.pre is None, self.pre or ("", 0), self.build)

    def __lt__(self, other: Version) -> bool:
        """Whether upstream published this one as the older of the two."""
        return self._key < other._key

    def __str__(self) -> str:
        """Upstream's own spelling, without the v."""
        return self.text


def _version(text: str) -> Version:
    try:
        return Version.parse(text)
    except ValueError as cause:
        raise ResolveError(str(cause), hint="name an exact version; tags such as latest mean something else every day") from cause


def nearest(version: str, known: Iterable[str], *, count: int = 5) -> list[str]:
    """The few of `known` that are closest to `version`, oldest first, for error messages.

    Both are versions or image tags. What is spelt alike (same prefix, same flavour) is preferred, pre-releases and
    the like are left out unless one was asked for, and where there are no numbers likeness of letters decides.
    """
    names = list(dict.fromkeys(known))
    wanted = _IN_A_TAG.fullmatch(version)
    if not wanted:
        return get_close_matches(version, names, n=count)
    goal = _numbers(wanted["numbers"])
    rows = []
    for name in names:
        if found := _IN_A_TAG.fullmatch(name):
            numbers = _numbers(found["numbers"])
            width = max(len(goal), len(numbers))
            gaps = [abs(a - b) for a, b in zip(_padded(goal, width), _padded(numbers, width), strict=True)]
            unlike = (found["prefix"] != wanted["prefix"], _flavour(found["rest"]) != _flavour(wanted["rest"]))
            rows.append((unlike, gaps, numbers, name))
    rows.sort()
    # Once something is spelt alike, what is spelt otherwise is noise.
    alike = [row for row in rows if row[0] == rows[0][0]]
    return [name for _, _, _, name in sorted(alike[:count], key=lambda row: row[2:])]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))


def _flavour(rest: str) -> str:
    """The letters of what follows the numbers: -rc of -rc.1, -alpine of -alpine3.22, nothing of -68."""
    return "".join(char for char in rest if char.isalpha())


# ---- the engine's static tarballs ------------------------------------------------------------------------------------

ENGINE_FOLDERS: Final = {
    "linux/amd64": "x86_64",
    "linux/arm64": "aarch64",
    "linux/arm/v7": "armhf",
    "linux/arm/v6": "armel",
    "linux/ppc64le": "ppc64le",
    "linux/s390x": "s390x",
}
"""OCI platform to folder below linux/static/<channel>; armel is hard-float v6, whatever it says (docker-library/docker)."""

_STOPPED: Final = frozenset({"ppc64le", "s390x"})
"""Built up to 18.06 only (docker/for-linux#629 and #1310, docker/docker-ce-packaging#288)."""

_RENAMED: Final = {"29.4.2": "29.4.2-2"}
"""Versions that were published again under another name, and only there (docker/docker-install e5748cae, 2026-05-01)."""


def engine_candidates(version: str, platform: Platform) -> list[str]:
    """Paths below the source `docker_static` that may hold this engine, most likely first: `/stable/x86_64/docker-28.5.2.tgz`.

    Pre-releases are in channel test. Raises ResolveError for what upstream never built, with what there is instead.
    """
    asked = _version(version)
    if asked.numbers < (17, 3, 0):
        raise ResolveError(
            f"engine {asked}: static tarballs begin with 17.03", hint="take 18.09 or newer; buildx works with nothing older"
        )
    folder = ENGINE_FOLDERS.get(str(platform))
    if folder is None or (folder in _STOPPED and asked.numbers >= (18, 9, 0)):
        why = "its static builds for it stopped at 18.06" if folder else "it never did"
        bare = asked.text.removesuffix("-ce")
        raise ResolveError(
            f"engine {asked}: Docker publishes no static tarball for {platform} ({why}); there are {', '.join(_built(asked))}",
            hint=f"the images moby/moby-bin:{bare} and dockereng/cli-bin:{bare} carry binaries for more platforms; or install "
            "the distribution's engine on those hosts and write `engine: {keep: true}`",
        )
    channel = "test" if asked.pre else "stable"
    return [f"/{channel}/{folder}/docker-{name}.tgz" for name in _engine_names(asked)]


def _built(version: Version) -> list[str]:
    return [name for name, folder in ENGINE_FOLDERS.items() if folder not in _STOPPED or version.numbers < (18, 9, 0)]


def _engine_names(version: Version) -> list[str]:
    """Up to 18.06 names carry -ce, before a pre-release's own suffix; from 18.09 on none does."""
    bare = version.text.replace("-ce", "", 1)
    if version.numbers < (18, 9, 0):
        numbers, dash, rest = bare.partition("-")
        return [f"{numbers}-ce{dash}{rest}"]
    return [_RENAMED[bare], bare] if bare in _RENAMED else [bare]


def engine_versions(index_html: str) -> list[str]:
    """The versions that the index page of a folder links to, oldest first; rootless extras and plugins are not among them.

    Only links are read: the page's looks were never promised, and mirrors have their own (upstream.md 1.2).
    """
    found = set()
    for quoted, bare in re.findall(r"""href\s*=\s*(?:["']([^"'<>]{1,300})["']|([^\s"'<>]{1,300}))""", index_html, re.IGNORECASE):
        name = unquote(quoted or bare).rsplit("/", 1)[-1]
        if (match := re.fullmatch(r"docker-(\d.*)\.tgz", name)) and _VERSION.fullmatch(match[1]):
            found.add(match[1])
    return [item.text for item in sorted(Version.parse(text) for text in found)]


def engine_members(version: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the executables in the tarball's folder `docker/`: those it must hold, and those it may.

    An allow-list on purpose: docker/packaging adds licences and read-mes to the same folder (2026-08-14), which have no
    business in a bin folder. Read in moby's and docker-ce-packaging's build files at each tag (upstream.md 1.3).
    What makes an engine of a tarball is dockerd: client-only archives of the same name exist.
    """
    numbers = _version(version).numbers
    required = ("docker", "dockerd")
    common: tuple[str, ...] = ("docker-init", "docker-proxy")
    if numbers < (18, 9, 0):
        return required, (*common, "docker-containerd", "docker-containerd-ctr", "docker-containerd-shim", "docker-runc")
    common = (*common, "containerd", "ctr", "runc")
    if numbers < (20, 10, 0):
        return required, (*common, "containerd-shim")
    if numbers < (23, 0, 0):
        return required, (*common, "containerd-shim", "containerd-shim-runc-v2")
    return required, (*common, "containerd-shim-runc-v2")


# ---- plugins on GitHub -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asset:
    """A release's file: its tag, its name, and the documents of the same release that may hold its sha256, best first."""

    tag: str
    filename: str
    checksums: tuple[str, ...]


_BUILDX_ARCHES: Final = {
    "linux/amd64": "amd64",
    "linux/arm/v6": "arm-v6",
    "linux/arm/v7": "arm-v7",
    "linux/arm64": "arm64",
    "linux/ppc64le": "ppc64le",
    "linux/riscv64": "riscv64",
    "linux/s390x": "s390x",
}

_BUILDX_MISNAMED: Final = {"0.35.0-rc1": "89b455a"}
"""Built without its tag, so its files carry the commit (buildx-releases.json)."""


def buildx_asset(version: str, platform: Platform) -> Asset:
    """buildx for a Linux platform, by docker/buildx's releases 0.2.0 to 0.36.1.

    `checksums.txt` exists from 0.7.0 and always covers Linux; `checksums-signed.txt` (0.36.0) is for darwin and windows only.
    Raises ResolveError for what upstream does not build.
    """
    asked = _version(version)
    arch = _BUILDX_ARCHES.get(str(platform))
    if arch is None or (arch == "riscv64" and asked.numbers < (0, 6, 0)):
        since = "; riscv64 begins with 0.6.0" if arch else ""
        raise ResolveError(
            f"buildx {asked}: is not built for {platform}{since}", hint=f"it is built for {', '.join(sorted(_BUILDX_ARCHES))}"
        )
    if asked.numbers < (0, 2, 0):
        raise ResolveError(f"buildx {asked}: releases begin with 0.2.0", hint="0.30.1 works with every engine from 18.09 on")
    word = _BUILDX_MISNAMED.get(asked.text, f"v{asked}")
    return Asset(f"v{asked}", f"buildx-{word}.linux-{arch}", ("checksums.txt",) if asked.numbers >= (0, 7, 0) else ())


_COMPOSE_ARCHES: Final = {
    "linux/amd64": "x86_64",
    "linux/arm/v6": "armv6",
    "linux/arm/v7": "armv7",
    "linux/arm64": "aarch64",
    "linux/ppc64le": "ppc64le",
    "linux/riscv64": "riscv64",
    "linux/s390x": "s390x",
}

_COMPOSE_SINCE: Final = {"ppc64le": (2, 5, 0), "riscv64": (2, 10, 0)}
_COMPOSE_FIRST: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""2.0.0 and its pre-releases used Go's words."""

_COMPOSE_V_TAGS: Final = frozenset({"1.25.2-rc2", "1.25.2"})
"""Tags of compose 1 have no v, except these."""


def compose_asset(version: str, platform: Platform) -> Asset:
    """Compose for a Linux platform, by docker/compose's releases 1.1.0 to 5.5.0 (compose-releases.json).

    Every release from 1.18.0 has `<file>.sha256`, except 2.0.0's pre-releases and 2.10.0; `checksums.txt` exists from 2.5.0.
    Raises ResolveError for what upstream does not build.
    """
    asked = _version(version)
    if asked.numbers < (1, 1, 0):
        raise ResolveError(f"compose {asked}: was called fig before 1.1.0", hint="as a plugin of docker it begins with 2.0.0")
    if asked.numbers < (2, 0, 0):
        return _compose_v1(asked, platform)
    arch = _COMPOSE_ARCHES.get(str(platform))
    if arch is None or asked.numbers < _COMPOSE_SINCE.get(arch, (0, 0, 0)):
        since = f"; {arch} begins with {'.'.join(map(str, _COMPOSE_SINCE[arch]))}" if arch else ""
        raise ResolveError(
            f"compose {asked}: is not built for {platform}{since}", hint=f"it is built for {', '.join(sorted(_COMPOSE_ARCHES))}"
        )
    if asked.numbers == (2, 0, 0):
        arch = _COMPOSE_FIRST.get(arch, arch)
    filename = f"docker-compose-linux-{arch}"
    documents = ["checksums.txt"] if asked.numbers >= (2, 5, 0) else []
    if asked.numbers != (2, 10, 0) and not (asked.pre and asked.numbers == (2, 0, 0)):
        documents.append(f"{filename}.sha256")
    return Asset(f"v{asked}", filename, tuple(documents))


def _compose_v1(asked: Version, platform: Platform) -> Asset:
    if str(platform) != "linux/amd64":
        raise ResolveError(f"compose {asked}: compose 1 was for linux/amd64 only", hint="2.0.0 and newer have more platforms")
    tag = f"v{asked}" if asked.text in _COMPOSE_V_TAGS else asked.text
    filename = "docker-compose-Linux-x86_64"
    return Asset(tag, filename, (f"{filename}.sha256",) if asked.numbers >= (1, 18, 0) else ())


def asset(name: str, version: str, platform: Platform) -> Asset:
    """The release file of the plugin `name`, which is a key of `PLUGINS`."""
    return PLUGINS[name](version, platform)


PLUGINS: Final = {"buildx": buildx_asset, "compose": compose_asset}


# ---- the private runtime ---------------------------------------------------------------------------------------------

RUNTIME_TRIPLES: Final = {
    "linux/amd64": "x86_64-unknown-linux-gnu",
    "linux/arm64": "aarch64-unknown-linux-gnu",
    "linux/arm/v7": "armv7-unknown-linux-gnueabihf",
    "linux/ppc64le": "ppc64le-unknown-linux-gnu",
    "linux/riscv64": "riscv64-unknown-linux-gnu",
    "linux/s390x": "s390x-unknown-linux-gnu",
}


def runtime_asset(python: str, date: str, platform: Platform) -> str:
    """The file of astral-sh/python-build-standalone's release `date` that holds this CPython for this platform.

    The baseline x86_64, not _v2 or _v3: hosts may be old. gzip, not zstd: their tar may be, too. Its checksum is in SHA256SUMS
    of the same release. Raises ResolveError for platforms without one.
    """
    triple = RUNTIME_TRIPLES.get(str(platform))
    if triple is None:
        raise ResolveError(
            f"python-build-standalone has no CPython for {platform}", hint=f"it has {', '.join(sorted(RUNTIME_TRIPLES))}"
        )
    return f"cpython-{python}+{date}-{triple}-install_only_stripped.tar.gz"


# ---- checksum documents ----------------------------------------------------------------------------------------------


def parse_checksums(text: str, *, default: str = "") -> dict[str, str]:
    """File name to lower-case sha256, from a document in any of the forms upstreams have used.

    `<hash> <name>` with one blank (buildx 0.7.0 to 0.8.2, which sha256sum itself refuses) or two, `<hash> *<name>` (0.10.0 on),
    names with folders before them, or nothing but a hash, which is then `default`'s. Raises FetchError for anything else: a login
    page with status 200 must not pass as "upstream publishes no checksum".
    """
    title = f"the checksum document {default}" if default else "the checksum document"
    found: dict[str, str] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = raw.strip()
        if not line:
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64})(?:\s+\*?(\S{1,400}))?", line)
        name = (match[2] or default).rsplit("/", 1)[-1] if match else ""
        if not match or not name:
            raise FetchError(
                f"line {number} of {title} is no checksum: {line[:80]!r}",
                hint="the source answers with something else, perhaps a login page; open its address in a browser",
            )
        value = match[1].lower()
        if found.setdefault(name, value) != value:
            raise FetchError(
                f"{title} gives two checksums for {name}: {found[name]} and {value}", hint="try another source"
            )
    if not found:
        raise FetchError(f"{title} is empty", hint="try another source")
    return found
