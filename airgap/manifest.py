"""The manifest: what a site asks for, read from YAML by people and from JSON inside a lock.

YAML is taken without its traps: versions are never numbers, `no` is never false, a key never stands twice, and anchors do not
exist, so that a small file is a small document (see `yamltext`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Final, TypeVar
from urllib.parse import urlsplit

from airgap.asks import (
    BuilderAsk,
    BuilderRegistryAsk,
    EmulationAsk,
    EngineAsk,
    ImageAsk,
    NodeAsk,
    RegistryAsk,
    RuntimeAsk,
    TlsAsk,
)
from airgap.document import Json, Node
from airgap.errors import ManifestError
from airgap.fields import distinct, dropped, matching, one_each, read_host, read_linux, read_user, read_version
from airgap.oci import Platform
from airgap.yamltext import DEPTH, parse_yaml

__all__ = [
    "BuilderAsk",
    "BuilderRegistryAsk",
    "EmulationAsk",
    "EngineAsk",
    "ImageAsk",
    "Manifest",
    "NodeAsk",
    "RegistryAsk",
    "RuntimeAsk",
    "Sources",
    "TlsAsk",
    "default_manifest",
]

T = TypeVar("T")

FORMAT: Final = 1
PLUGINS: Final = ("buildx", "compose")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where upstreams are reached, each a list tried in order; empty means: not said here."""

    docker_static: tuple[str, ...] = ()
    github: tuple[str, ...] = ()
    github_api: tuple[str, ...] = ()
    registries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, *, name: str) -> Sources:
        """From YAML that has the manifest's `sources:` and nothing else; what it does not name is empty. Raises ManifestError."""
        node = parse_yaml(data, name=name)
        _check_tree(node)
        return cls.read(node)

    @classmethod
    def read(cls, node: Node) -> Sources:
        """From `sources:`."""
        registries = node.find("registries")
        sources = cls(
            docker_static=_urls(node.find("docker_static")),
            github=_urls(node.find("github")),
            github_api=_urls(node.find("github_api")),
            registries={_registry(host, item): _urls(item) for host, item in registries.entries()} if registries else {},
        )
        node.done()
        return sources

    def overlaid(self, other: Sources) -> Sources:
        """These, with what the other names in place of ours; registries one by one."""
        return Sources(
            docker_static=other.docker_static or self.docker_static,
            github=other.github or self.github,
            github_api=other.github_api or self.github_api,
            registries={**self.registries, **other.registries},
        )

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        return dropped(
            {
                "docker_static": list(self.docker_static),
                "github": list(self.github),
                "github_api": list(self.github_api),
                "registries": {host: list(urls) for host, urls in sorted(self.registries.items())},
            }
        )


UPSTREAM: Final = Sources(
    docker_static=("https://download.docker.com/linux/static",),
    github=("https://github.com",),
    github_api=("https://api.github.com",),
    registries={"docker.io": ("https://registry-1.docker.io",), "quay.io": ("https://quay.io",)},
)

RUNTIME: Final = RuntimeAsk("3.13.14", "20260728")
"""Its `install_only_stripped` files for x86_64 and aarch64 are the ones that public lock files pin (see default.yaml)."""


def _urls(node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    found = distinct(node, _url)
    if not found:
        node.fail("lists no address", hint="leave the key out to use the usual one")
    return found


def _url(node: Node) -> str:
    """An address without the slash at its end. Credentials were refused before, by `_check_tree`: the lock would carry them."""
    text = node.text()
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or re.search(r"[\s?#\\]", text):
        hint = "begin it with https://, or with http:// where a site has no TLS"
        node.fail(f"{text[:120]!r} is not an address of a source", hint=hint)
    return text.rstrip("/")


def _registry(host: str, node: Node) -> str:
    """A registry's name as references have it."""
    if host in ("registry-1.docker.io", "index.docker.io", "hub.docker.com"):
        node.fail("references know Docker Hub by the name docker.io", hint="write docker.io")
    return read_host(Node(host, path=node.path, error=node.error, lookup=node.lookup))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a site asks for. `platforms` are those of its hosts; a section that is None or empty is not asked for."""

    name: str
    platforms: tuple[Platform, ...]
    engine: EngineAsk | None = None
    plugins: Mapping[str, str] = field(default_factory=dict)
    emulation: EmulationAsk | None = None
    images: tuple[ImageAsk, ...] = ()
    registry: RegistryAsk | None = None
    builders: tuple[BuilderAsk, ...] = ()
    users: tuple[str, ...] = ()
    runtime: RuntimeAsk = RUNTIME
    sources: Sources = UPSTREAM

    @classmethod
    def parse(cls, data: bytes, *, name: str) -> Manifest:
        """From YAML. Raises ManifestError with file, line and key: `site.yaml:12: plugins.buildx: must be text, …`."""
        return cls._read(parse_yaml(data, name=name))

    @classmethod
    def from_json(cls, document: Mapping[str, Json], *, name: str = "the lock's manifest") -> Manifest:
        """From what `to_json` gave, which is the same manifest again. Raises ManifestError."""

        def place(path: str) -> str:
            return f"{name}: {path}" if path else name

        return cls._read(Node(dict(document), path="", error=ManifestError, lookup=place))

    @classmethod
    def _read(cls, node: Node) -> Manifest:
        _check_tree(node)
        _check_format(node)
        images = node.find("images")
        plugins = node.find("plugins")
        sources = node.find("sources")
        manifest = cls(
            name=matching(
                node.get("name"), r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", "a name for a bundle's file",
                hint="letters, digits and . _ - inside",
            ),
            platforms=read_linux(node.get("platforms")),
            engine=_section(node, "engine", EngineAsk.read),
            plugins=_read_plugins(plugins) if plugins else {},
            emulation=_section(node, "emulation", EmulationAsk.read),
            images=one_each(images.items(), ImageAsk.read, lambda item: item.reference.familiar) if images else (),
            registry=_section(node, "registry", RegistryAsk.read),
            builders=_read_builders(node.find("builders")),
            users=distinct(node.find("users"), read_user),
            runtime=_section(node, "runtime", RuntimeAsk.read) or RUNTIME,
            sources=UPSTREAM.overlaid(Sources.read(sources)) if sources else UPSTREAM,
        )  # fmt: skip
        node.done()
        return manifest

    def to_json(self) -> dict[str, Json]:
        """The canonical form, for locks: every default written out that a later airgap might have otherwise, and no secrets."""
        return {
            "airgap": FORMAT,
            "name": self.name,
            "platforms": [str(item) for item in self.platforms],
            **dropped(
                {
                    "engine": self.engine.to_json() if self.engine else None,
                    "plugins": dict(sorted(self.plugins.items())),
                    "emulation": self.emulation.to_json() if self.emulation else None,
                    "images": [item.to_json() for item in self.images],
                    "registry": self.registry.to_json() if self.registry else None,
                    "builders": [item.to_json() for item in self.builders],
                    "users": list(self.users),
                }
            ),
            "runtime": self.runtime.to_json(),
            "sources": self.sources.to_json(),
        }


def _section(node: Node, key: str, read: Callable[[Node], T]) -> T | None:
    return read(item) if (item := node.find(key)) else None


def default_manifest() -> bytes:
    """The YAML that is packed when no manifest is named; a good beginning for one's own."""
    return resources.files("airgap").joinpath("default.yaml").read_bytes()


def _check_format(node: Node) -> None:
    if not isinstance(node.value, dict) or not node.has("airgap"):
        node.mapping()
        node.fail("'airgap' is missing", hint=f"begin the file with `airgap: {FORMAT}`, the format it is written in")
    if (found := node.get("airgap").integer()) != FORMAT:
        node.get("airgap").fail(f"is format {found}; this airgap reads format {FORMAT}", hint="use a newer airgap")


def _check_tree(node: Node, *, depth: int = 0) -> None:
    """Refuse what must not be anywhere: passwords, which would travel in the lock for all to read, and a pit without a floor."""
    if depth > DEPTH:
        node.fail(f"more than {DEPTH} levels deep")
    if isinstance(node.value, str):
        if re.search(r"https?://[^/?#\s]*@|[a-z][a-z0-9+.-]*://[^/?#\s@]*:[^/?#\s@]*@", node.value, re.IGNORECASE):
            # The text itself is not repeated: errors end up in logs.
            node.fail(
                "an address with a user or password in it; manifests and locks are read by many",
                hint="keep credentials in docker's own config.json (`docker login`) or in ~/.netrc",
            )
        return
    children: Iterator[Node] = iter(())
    if isinstance(node.value, dict):
        children = (item for _, item in Node(node.value, path=node.path, error=node.error, lookup=node.lookup).entries())
    elif isinstance(node.value, list):
        children = node.items()
    for child in children:
        _check_tree(child, depth=depth + 1)


def _read_plugins(node: Node) -> dict[str, str]:
    found = {name: read_version(item) for name in PLUGINS if (item := node.find(name))}
    node.done()
    return found


def _read_builders(node: Node | None) -> tuple[BuilderAsk, ...]:
    if node is None:
        return ()
    builders = one_each(node.items(), BuilderAsk.read, lambda item: item.name)
    used = [item.name for item in builders if item.use]
    if len(used) > 1:
        node.fail(f"{' and '.join(used)} all say `use: true`", hint="only one builder can be the default; say it of that one")
    return builders
