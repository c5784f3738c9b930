"""The closed vocabulary of host changes, as plain values: what a plan is made of.

A step owns one `target`; a plan with two steps for one target is refused before anything runs. The values
live below `kinds`, which compose them without knowing how a host is changed; `offline/changes` knows how to
look, apply and undo each of them, one row a type. A new type of step is a class here and a row there; a
contract test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airgap.document import Json
from airgap.oci import Descriptor, Digest, Platform, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFiles:
    """Members of a locked file, at absolute paths: all of them are there with these modes afterwards.

    `content` is the digest of the uncompressed content in the bundle. For a tar, `members` maps member names to
    paths; for a plain file it maps "" to one path. Executables are refused if their ELF machine is not `platform`'s.
    A member that is missing is an error unless it is among the `optional` ones.
    """

    content: Digest
    size: int
    members: tuple[tuple[str, str], ...]
    platform: Platform
    optional: tuple[str, ...] = ()
    mode: int = 0o755

    @property
    def target(self) -> str:
        """The first path stands for all; paths of one generation never meet another's."""
        return f"file:{self.members[0][1]}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"place {len(self.members)} file(s) in {self.members[0][1].rsplit('/', 1)[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceImageFiles:
    """Files out of an image's layers, at absolute paths; `members` maps paths in the image to paths on the host."""

    reference: Reference
    manifest: Digest
    members: tuple[tuple[str, str], ...]
    platform: Platform
    mode: int = 0o755

    @property
    def target(self) -> str:
        """The first path stands for all."""
        return f"file:{self.members[0][1]}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"place {len(self.members)} file(s) of {self.reference.familiar} in {self.members[0][1].rsplit('/', 1)[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """A text file with exactly this content and mode; its folder is made if need be."""

    path: str
    text: str
    mode: int = 0o644

    @property
    def target(self) -> str:
        """The path."""
        return f"file:{self.path}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link at `path` that points to `to`, put in place atomically over a link or file or nothing."""

    path: str
    to: str

    @property
    def target(self) -> str:
        """The path."""
        return f"file:{self.path}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"link {self.path} -> {self.to}"


@dataclass(frozen=True, slots=True)
class MergeJson:
    """A JSON file that has these keys with these values; all its other keys survive. Lists are united, mappings merged."""

    path: str
    changes: dict[str, Json]
    mode: int = 0o644
    owner: str = ""

    @property
    def target(self) -> str:
        """The path."""
        return f"file:{self.path}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"merge {', '.join(sorted(self.changes))} into {self.path}"


@dataclass(frozen=True, slots=True)
class SystemGroup:
    """A system group of this name."""

    name: str

    @property
    def target(self) -> str:
        """The group."""
        return f"group:{self.name}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"make the group {self.name}"


@dataclass(frozen=True, slots=True)
class SystemUser:
    """A system user of this name, with a group of its own and no login, for a service to run as."""

    name: str

    @property
    def target(self) -> str:
        """The user."""
        return f"user:{self.name}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"make the system user {self.name}"


@dataclass(frozen=True, slots=True)
class GroupMember:
    """This user belongs to this group."""

    group: str
    user: str

    @property
    def target(self) -> str:
        """Both."""
        return f"member:{self.group}:{self.user}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"add {self.user} to the group {self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A systemd service that is enabled, and runs the files that are on disk now.

    It is restarted if the program it runs is not the one `program` resolves to, or if any of `files` is newer
    than its start. `sockets` are units that would hold the service's socket in its place: they are stopped.
    `seconds` is how long it may take to answer.
    """

    name: str
    program: str = ""
    files: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    seconds: int = 90

    @property
    def target(self) -> str:
        """The unit."""
        return f"service:{self.name}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"enable and start {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadImage:
    """An image of one platform in the engine's store under `reference`; its ID is compared afterwards.

    `root` is upstream's index or manifest, `manifest` the one of this host's platform. `ids` are what engines may call it: the
    config digest (classic store), the manifest's or the index's (containerd store).
    """

    reference: Reference
    root: Descriptor
    manifest: Descriptor
    config: Digest
    size: int

    @property
    def target(self) -> str:
        """The tag."""
        return f"tag:{self.reference}"

    @property
    def ids(self) -> frozenset[str]:
        """The image IDs that mean these bytes."""
        return frozenset({str(self.config), str(self.manifest.digest), str(self.root.digest)})

    def describe(self) -> str:
        """For people, in the plan."""
        return f"load {self.reference.familiar}"


@dataclass(frozen=True, slots=True)
class TagImage:
    """A further tag for a loaded image."""

    reference: Reference
    source: Reference
    ids: frozenset[str] = field(default_factory=frozenset)

    @property
    def target(self) -> str:
        """The tag."""
        return f"tag:{self.reference}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"tag {self.source.familiar} as {self.reference.familiar}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """A buildx builder of this user, made with exactly these words, its container up.

    `arguments` follow `buildx create`; `fingerprint` is a digest over everything that should cause a re-creation
    (with the build cache kept). `image_ids` are the IDs its container may run. `buildx` is the program's argv prefix.
    """

    user: str
    name: str
    buildx: tuple[str, ...]
    arguments: tuple[str, ...]
    fingerprint: str
    image_ids: frozenset[str]
    use: bool = False
    nodes: int = 1

    @property
    def target(self) -> str:
        """User and builder."""
        return f"builder:{self.user}:{self.name}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"builder {self.name} for {self.user}" + (" (default)" if self.use else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeImage:
    """An image in the storage of a distribution registry below `root`: upstream's own bytes under `repository`, then `tag`.

    `top` is upstream's index or lone manifest, `manifests` the ones of it that the bundle carries, attestations included.
    Files belong to `owner`, the user that the registry runs as.
    """

    root: str
    owner: str
    repository: str
    tag: str
    top: Descriptor
    manifests: tuple[Descriptor, ...]
    size: int

    @property
    def target(self) -> str:
        """The name in the registry; images that are pinned by digest have no tag."""
        return f"served:{self.repository}:{self.tag or self.top.digest}"

    def describe(self) -> str:
        """For people, in the plan."""
        return f"serve {self.repository}{':' + self.tag if self.tag else '@' + str(self.top.digest)}"


Step = (
    PlaceFiles
    | PlaceImageFiles
    | WriteFile
    | Link
    | MergeJson
    | SystemGroup
    | SystemUser
    | GroupMember
    | Service
    | LoadImage
    | TagImage
    | ServeImage
    | Builder
)
