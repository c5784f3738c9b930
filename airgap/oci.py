"""OCI's words as values: digest, platform, reference, descriptor, image index and image manifest.

Parsed once at the edge, then trusted by type. Below everything that speaks of images, so that the lock,
the bundle, the registry client and the host agree on what the words mean.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from airgap.document import Json, Node, parse_json
from airgap.errors import AirgapError

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES: Final = frozenset({INDEX, DOCKER_LIST})
MANIFESTS: Final = frozenset({MANIFEST, DOCKER_MANIFEST})

# Marks of BuildKit's attestation manifests (docs/attestations/attestation-storage.md in moby/buildkit);
# their platform is unknown/unknown, but so may be others', hence the annotation decides.
ATTESTATION_TYPE: Final = "vnd.docker.reference.type"
ATTESTATION_OF: Final = "vnd.docker.reference.digest"

REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"
TITLE: Final = "org.opencontainers.image.title"

# A manifest is at most 4 MiB by the distribution spec; ours of a few thousand files stays far below.
MANIFEST_LIMIT: Final = 4 << 20


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest; the only algorithm we accept, because it is the only one upstreams use."""

    hex: str

    def __str__(self) -> str:
        """`sha256:<hex>`, as OCI writes it."""
        return f"sha256:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """From `sha256:<64 hex>`; ValueError for anything else, other algorithms included."""
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
            raise ValueError(f"{text[:80]!r} is not a sha256 digest")
        return cls(text[7:])

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The digest of these bytes."""
        return cls(hashlib.sha256(data).hexdigest())


# The kernel's words, taken as containerd takes them (normalizeArch in containerd/platforms).
_OTHER_NAMES: Final = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An OCI platform; variants that mean nothing are dropped (arm64/v8 is arm64), arm alone is arm/v7, x86_64 is amd64."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        """`linux/arm/v7`, as docker's --platform takes it."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """From `linux/arm/v7`; ValueError if it is not os/architecture[/variant]."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(re.fullmatch(r"[a-z0-9]+(_[0-9]+)?", part) for part in parts):
            raise ValueError(f"{text[:60]!r} is not a platform such as linux/amd64 or linux/arm/v7")
        return cls.of(*parts)

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """The normal form of these three words."""
        architecture, variant = _OTHER_NAMES.get(architecture, (architecture, variant))
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return cls(os, architecture, variant)


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image's full name: registry, repository, and tag or digest or both."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        """The full name, with nothing left to defaults."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """The name as docker's CLI shows it: `alpine:3.22`, not `docker.io/library/alpine:3.22`."""
        text = str(self)
        if self.registry == "docker.io":
            text = text.removeprefix("docker.io/")
            text = text.removeprefix("library/") if self.repository.count("/") == 1 else text
        return text

    @classmethod
    def parse(cls, text: str) -> Reference:
        """By distribution's rules, with Docker's defaults (docker.io, library/, latest); ValueError otherwise."""
        rest, at, pinned = text.partition("@")
        digest = Digest.parse(pinned) if at else None
        first, slash, tail = rest.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, path = first, tail
        else:
            registry, path = "docker.io", rest
        if registry in ("index.docker.io", "registry-1.docker.io"):
            registry = "docker.io"
        repository, colon, tag = path.partition(":")
        if registry == "docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        if not colon and digest is None:
            colon, tag = ":", "latest"
        label = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
        part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
        sound = (
            re.fullmatch(rf"{part}(?:/{part})*", repository)
            and re.fullmatch(rf"(?:{label}(?:\.{label})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", registry)
            and (not colon or re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", tag))
            and len(repository) < 256
        )
        if not sound:
            raise ValueError(f"{text[:120]!r} is not an image reference such as alpine:3.22 or quay.io/org/name:tag")
        return cls(registry, repository, tag, digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a blob is: media type, digest, size in bytes, and what is said about it."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @property
    def attestation_of(self) -> Digest | None:
        """The manifest this descriptor's attestations speak of, if it is an attestation manifest."""
        if self.annotations.get(ATTESTATION_TYPE) != "attestation-manifest":
            return None
        try:
            return Digest.parse(self.annotations.get(ATTESTATION_OF, ""))
        except ValueError:
            return None

    def to_json(self) -> dict[str, Json]:
        """As OCI writes it."""
        document: dict[str, Json] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.platform:
            document["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                document["platform"]["variant"] = self.platform.variant
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document

    @classmethod
    def read(cls, node: Node) -> Descriptor:
        """From a parsed descriptor; unknown keys are allowed, as OCI asks (`urls`, `data` and the like)."""
        platform = None
        if (place := node.find("platform")) is not None:
            variant = place.find("variant")
            platform = Platform.of(
                place.get("os").text(), place.get("architecture").text(), variant.text() if variant else ""
            )
        notes = node.find("annotations")
        kind = node.find("artifactType")
        return cls(
            media_type=node.get("mediaType").text(),
            digest=read_digest(node.get("digest")),
            size=node.get("size").integer(),
            platform=platform,
            # Annotations of strangers may hold newlines; only those we use are ever shown.
            annotations={k: v.value for k, v in notes.entries() if isinstance(v.value, str)} if notes else {},
            artifact_type=kind.text() if kind else "",
        )


def read_digest(node: Node) -> Digest:
    """The digest in this node, or the document's own error."""
    try:
        return Digest.parse(node.text())
    except ValueError as cause:
        node.fail(str(cause))


def read_platform(node: Node) -> Platform:
    """The platform in this node, or the document's own error."""
    try:
        return Platform.parse(node.text())
    except ValueError as cause:
        node.fail(str(cause), hint="write os/architecture, for example linux/amd64")


def read_reference(node: Node) -> Reference:
    """The image reference in this node, or the document's own error."""
    try:
        return Reference.parse(node.text())
    except ValueError as cause:
        node.fail(str(cause))


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An image index or Docker manifest list: its children, in upstream's order."""

    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes, *, name: str, error: type[AirgapError]) -> ImageIndex:
        """From upstream's bytes, or `error`."""
        node = parse_json(data, name=name, error=error, limit=MANIFEST_LIMIT)
        return cls(tuple(Descriptor.read(item) for item in node.get("manifests").items()))

    def choose(self, platforms: frozenset[Platform]) -> tuple[Descriptor, ...]:
        """The children for these platforms, and the attestations that speak of the chosen ones."""
        digests = {item.digest for item in self.manifests if item.platform in platforms and not item.attestation_of}

        def wanted(item: Descriptor) -> bool:
            of = item.attestation_of
            return of in digests if of else item.platform in platforms

        return tuple(item for item in self.manifests if wanted(item))


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """One platform's image: its config and its layers, in order."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes, *, name: str, error: type[AirgapError]) -> ImageManifest:
        """From upstream's bytes, or `error`."""
        node = parse_json(data, name=name, error=error, limit=MANIFEST_LIMIT)
        return cls(
            Descriptor.read(node.get("config")),
            tuple(Descriptor.read(item) for item in node.get("layers").items()),
        )

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers; a layer listed twice appears once."""
        seen: dict[Digest, Descriptor] = {}
        for item in (self.config, *self.layers):
            seen.setdefault(item.digest, item)
        return tuple(seen.values())
