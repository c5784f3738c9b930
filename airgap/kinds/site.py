"""What a kind may know when it says what a host needs: the host's facts, and what the bundle holds for it.

Pure values; `offline.preflight` finds the facts, `offline.plan` puts a `Site` together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from airgap.lock import FileArtifact, Lock
from airgap.manifest import Manifest
from airgap.oci import Descriptor, Digest, Platform, Reference
from airgap.steps import LoadImage

CURRENT: Final = "/opt/airgap/current"
BIN: Final = "/usr/local/bin"
CLI_PLUGINS: Final = "/usr/local/lib/docker/cli-plugins"
UNKNOWN_ENGINE: Final = (99, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """A Docker engine that answers on this host. `ours` if airgap installed it, `running` are its containers' names.

    `service` is the systemd unit that runs it, empty if none does; `arguments` are the words its dockerd was started with.
    """

    version: str
    api: str
    store: str
    data_root: str
    ours: bool
    cli: str
    running: tuple[str, ...] = ()
    live_restore: bool = False
    service: str = "docker.service"
    arguments: tuple[str, ...] = ()

    @property
    def generation(self) -> tuple[int, int]:
        """Major and minor version: (19, 3)."""
        numbers = [int("".join(c for c in part if c.isdigit()) or 0) for part in self.version.split(".")[:2]]
        return (numbers[0], numbers[1] if len(numbers) > 1 else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What matters of a host before it is changed.

    `idle_engine` is the dockerd of somebody else that is there and does not answer; `sockets` are the units that systemd may hold
    an engine's socket with.
    """

    platform: Platform
    kernel: tuple[int, int]
    systemd: int
    engine: EngineFacts | None
    foreign_containerd: bool
    idle_engine: str = ""
    sockets: tuple[str, ...] = ()
    homes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostImage:
    """An image of the bundle as this host can run it."""

    reference: Reference
    root: Descriptor
    manifest: Descriptor
    config: Digest
    size: int

    @property
    def name(self) -> Reference:
        """What the engine calls it: a tag always, since an image that was loaded, not pulled, cannot be found by a digest."""
        tag = self.reference.tag or f"sha256-{self.root.digest.hex[:12]}"
        return Reference(self.reference.registry, self.reference.repository, tag)

    @property
    def ids(self) -> frozenset[str]:
        """What engines may call it by ID: config, manifest or index."""
        return frozenset({str(self.config), str(self.manifest.digest), str(self.root.digest)})

    def load(self) -> LoadImage:
        """The step that brings it into the engine."""
        return LoadImage(reference=self.name, root=self.root, manifest=self.manifest, config=self.config, size=self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One host and one bundle. `replace` means that the bundle's engine is to be installed; `runtime` is the folder of the
    private runtime that airgap runs from, empty if it runs from somewhere else.
    """

    manifest: Manifest
    lock: Lock
    facts: HostFacts
    images: Mapping[Reference, HostImage]
    replace: bool
    runtime: str = ""

    @property
    def depot(self) -> str:
        """Where this site's registry is reached, `host:port`: its first name, or this host's loopback. Empty if there is none."""
        asked = self.manifest.registry
        if asked is None:
            return ""
        return asked.names[0] if asked.names else f"127.0.0.1:{asked.port}"

    @property
    def absent(self) -> str:
        """Where it is answered that the site lacks an image (`kinds.registry`): beside the registry, at the next port."""
        host, _, port = self.depot.rpartition(":")
        asked = self.manifest.registry
        return f"{host or self.depot}:{asked.port + 1}" if asked and port else ""

    @property
    def generation(self) -> str:
        """The folder that this bundle's programs go to."""
        return f"/opt/airgap/generations/{self.lock.serial}"

    @property
    def engine_version(self) -> tuple[int, int]:
        """Major and minor version of the engine that there will be; one of today where nobody knows yet."""
        if not self.replace and self.facts.engine:
            return self.facts.engine.generation
        artifact = self.file("engine", "docker")
        if artifact is None:
            return UNKNOWN_ENGINE
        major, minor = artifact.version.split(".")[:2]
        return (int(major), int(minor))

    @property
    def users(self) -> tuple[str, ...]:
        """Who gets builders: root first, then the manifest's."""
        return ("root", *(user for user in self.manifest.users if user != "root"))

    def file(self, kind: str, name: str) -> FileArtifact | None:
        """The locked file of this kind and name for this host's platform."""
        return next(
            (item for item in self.lock.of_kind(kind) if item.name == name and item.platform == self.facts.platform), None
        )

    def home(self, user: str) -> str:
        """The user's home folder."""
        return self.facts.homes[user]
