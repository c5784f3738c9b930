"""The Docker engine of this host, through its API: what it is, what it holds, and the few changes we ask of it.

The only importer of the docker SDK. Each call opens its own connection and asks the engine for its API version anew, because
an install replaces the engine while this object lives. Serves API 1.39 (18.09) and later.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airgap.errors import AirgapError, HostUnsuitable
from airgap.machine.run import last_lines, printable
from airgap.oci import Platform

if TYPE_CHECKING:
    import docker

SOCKET: Final = "unix:///var/run/docker.sock"
CONTAINERD: Final = "io.containerd.snapshotter.v1"
SILENCE: Final = 3600
"""Seconds that the engine may be silent over an image: unpacking a big layer on a slow disk says nothing."""
CHUNK: Final = 1 << 20
LINE_LIMIT: Final = 1 << 20


class DaemonError(AirgapError):
    """The engine cannot be reached, or refused; `status` is its HTTP status, 0 if it did not answer."""

    exit_code = HostUnsuitable.exit_code

    def __init__(self, message: str, *, hint: str | None = None, status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """An engine that answers. `store` is "classic" or "containerd", `running` the names of its running containers."""

    version: str
    api: str
    least_api: str
    data_root: str
    store: str
    running: tuple[str, ...]
    live_restore: bool
    mirrors: tuple[str, ...]
    insecure: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """An image in the engine: `id` is the config's digest (classic) or the manifest's or index's (containerd)."""

    id: str
    platform: Platform
    tags: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFacts:
    """A container: `image` is the ID of the image it was made from, `status` the engine's word (running, exited …)."""

    id: str
    name: str
    image: str
    status: str
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.status == "running"


class Daemon:
    """The engine behind one socket. Nothing happens before the first call; `timeout` is the seconds it may be silent."""

    def __init__(self, base_url: str = SOCKET, *, timeout: float = 60) -> None:
        self.base_url = base_url
        self.timeout = timeout

    @classmethod
    def connect(cls, base_url: str = SOCKET, *, timeout: float = 60) -> Daemon:
        """An engine that has answered once; DaemonError otherwise."""
        daemon = cls(base_url, timeout=timeout)
        daemon.version()
        return daemon

    def version(self) -> str:
        """The engine's version, such as 19.03.15."""
        with self._client("ask for its version") as client:
            return str(client.version()["Version"])

    def info(self) -> EngineInfo:
        """What the engine is and runs."""
        with self._client("ask what it is") as client:
            version, info, containers = client.version(), client.info(), client.containers()
            registries = info.get("RegistryConfig") or {}
            hosts = registries.get("IndexConfigs") or {}
            return EngineInfo(
                version=str(version["Version"]),
                api=str(version["ApiVersion"]),
                least_api=str(version.get("MinAPIVersion", "")),
                data_root=str(info.get("DockerRootDir", "/var/lib/docker")),
                store="containerd" if ["driver-type", CONTAINERD] in (info.get("DriverStatus") or []) else "classic",
                running=tuple(sorted(_name(item) for item in containers)),
                live_restore=bool(info.get("LiveRestoreEnabled")),
                mirrors=tuple(registries.get("Mirrors") or ()),
                insecure=tuple(sorted(name for name, row in hosts.items() if not row.get("Secure", True))),
            )

    def image(self, reference: str) -> ImageFacts | None:
        """The image that has this name or ID, or None."""
        with self._client(f"look at the image {reference}") as client:
            facts = _found(lambda: client.inspect_image(reference))
            if facts is None:
                return None
            return ImageFacts(
                id=str(facts["Id"]),
                platform=Platform.of(facts.get("Os") or "", facts.get("Architecture") or "", facts.get("Variant") or ""),
                tags=tuple(facts.get("RepoTags") or ()),
                size=int(facts.get("Size") or 0),
            )

    def load(self, stream: Iterator[bytes], *, name: str = "image") -> tuple[str, ...]:
        """Afterwards the engine has read the whole archive and unpacked it; returns its lines (`Loaded image: …`).

        What `stream` raises passes through, and the engine drops the archive then. Raises DaemonError if the engine refuses it,
        which it may say with status 200 and an error among the lines; the caller compares the image ID all the same.
        """
        with self._client(f"load {name}", timeout=SILENCE) as client:
            # The SDK's own load_image cannot read an unchunked answer of several lines, as older engines give.
            answer = client.post(
                f"{client.base_url}/v{client.api_version}/images/load",
                params={"quiet": "1"}, data=stream, stream=True, timeout=SILENCE, headers={"Content-Type": "application/x-tar"},
            )  # fmt: skip
            with answer:
                if answer.status_code >= 400:
                    said = next(answer.iter_content(LINE_LIMIT), b"")
                    raise DaemonError(f"the engine refused to load {name}: {_message(said)}", status=answer.status_code)
                return tuple(_lines(answer.iter_lines(CHUNK), name))

    def save(self, reference: str) -> Iterator[bytes]:
        """The image's archive as `docker save` writes it, piece by piece; DaemonError if the engine stops in the middle."""
        with self._client(f"save {reference}", timeout=SILENCE) as client:
            yield from client.get_image(reference, chunk_size=CHUNK)

    def tag(self, source: str, target: str) -> None:
        """Afterwards `target` (registry/repository:tag) names the image `source` (a name or ID), whatever it named before."""
        repository, _, tag = target.rpartition(":")
        with self._client(f"tag {source} as {target}") as client:
            client.tag(source, repository, tag, force=True)

    def remove(self, reference: str) -> bool:
        """Afterwards nothing has this name, and an image without another name is gone. False: there was none.

        DaemonError with status 409 if a container needs it.
        """
        with self._client(f"remove the image {reference}") as client:
            return _found(lambda: client.remove_image(reference)) is not None

    def containers(self) -> tuple[str, ...]:
        """The names of all containers, running or not, sorted."""
        with self._client("list the containers") as client:
            return tuple(sorted(_name(item) for item in client.containers(all=True)))

    def container(self, name: str) -> ContainerFacts | None:
        """The container of this name, or None."""
        with self._client(f"look at the container {name}") as client:
            facts = _found(lambda: client.inspect_container(name))
            if facts is None:
                return None
            config = facts.get("Config") or {}
            return ContainerFacts(
                id=str(facts["Id"]),
                name=str(facts.get("Name", name)).lstrip("/"),
                image=str(facts["Image"]),
                status=str(facts["State"]["Status"]),
                environment=dict(row.partition("=")[::2] for row in config.get("Env") or ()),
                labels=dict(config.get("Labels") or {}),
            )

    def logs(self, name: str, *, lines: int = 20) -> str:
        """The last lines that this container wrote, safe for a terminal; empty if it is not there."""
        with self._client(f"read the log of {name}") as client:
            return last_lines(_found(lambda: client.logs(name, tail=lines)) or b"", lines)

    def remove_container(self, name: str) -> bool:
        """Afterwards there is no container of this name, running or not; its named volumes stay. False: there was none."""
        with self._client(f"remove the container {name}") as client:
            return _found(lambda: client.remove_container(name, force=True) or True) is not None

    def start_container(self, name: str) -> None:
        """Afterwards this container runs."""
        with self._client(f"start the container {name}") as client:
            client.start(name)

    def volume(self, name: str) -> bool:
        """Whether there is a volume of this name."""
        with self._client(f"look at the volume {name}") as client:
            return _found(lambda: client.inspect_volume(name)) is not None

    def remove_volume(self, name: str) -> bool:
        """Afterwards there is no volume of this name. False: there was none. DaemonError with status 409 if it is in use."""
        with self._client(f"remove the volume {name}") as client:
            return _found(lambda: client.remove_volume(name) or True) is not None

    @contextmanager
    def _client(self, what: str, *, timeout: float | None = None) -> Iterator[docker.APIClient]:
        """A connection of its own; whatever the SDK and the libraries below it raise becomes a DaemonError."""
        import docker
        from docker.errors import APIError, DockerException
        from urllib3.exceptions import HTTPError

        client = None
        try:
            self._knock()
            client = docker.APIClient(base_url=self.base_url, version="auto", timeout=timeout or self.timeout)
            yield client
        except APIError as cause:
            said = printable(str(cause.explanation or cause), limit=1000)
            raise DaemonError(f"the engine refused to {what}: {said}", status=cause.status_code or 0) from cause
        # requests' exceptions are OSErrors; docker-py lets urllib3's and json's through where it streams.
        except (DockerException, OSError, HTTPError, ValueError, KeyError, TypeError) as cause:
            message = self._unreachable(what, cause, connected=client is not None)
            raise DaemonError(message, hint="systemctl status docker") from cause
        finally:
            if client is not None:
                client.close()

    def _knock(self) -> None:
        """OSError if nobody answers at the socket: the SDK would leave its own end of it open then."""
        scheme, _, path = self.base_url.partition("://")
        if scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
                end.settimeout(self.timeout)
                end.connect(path)

    def _unreachable(self, what: str, cause: BaseException, *, connected: bool) -> str:
        if connected:
            return f"the engine at {self.base_url} did not {what}: {printable(str(cause), limit=500) or type(cause).__name__}"
        root: BaseException | None = cause
        while root is not None and not (isinstance(root, OSError) and root.strerror):
            inner = [item for item in root.args if isinstance(item, BaseException)]
            root = inner[0] if inner else root.__cause__ or root.__context__
        reason = root.strerror if isinstance(root, OSError) else printable(str(cause), limit=300)
        return f"no Docker engine answers at {self.base_url}: {reason}"


def _found(ask: Any) -> Any:
    """What `ask` answers, or None where the engine says there is no such thing."""
    from docker.errors import NotFound

    try:
        return ask()
    except NotFound:
        return None


def _name(item: Mapping[str, Any]) -> str:
    # A linked container (--link) is listed under its aliases too; the plain one has no further slash.
    names = [name.lstrip("/") for name in item.get("Names") or ()]
    return next((name for name in names if "/" not in name), names[0] if names else str(item.get("Id", ""))[:12])


def _message(body: bytes) -> str:
    try:
        return printable(str(json.loads(body)["message"]), limit=1000)
    except (ValueError, KeyError, TypeError):
        return printable(body, limit=1000)


def _lines(lines: Iterator[bytes], name: str) -> Iterator[str]:
    """What the engine said while it loaded; DaemonError for the first thing that is an error."""
    for line in lines:
        if not line.strip():
            continue
        said = json.loads(line[:LINE_LIMIT])
        # `error` is deprecated and gone from API 1.52 on; `errorDetail` is what stays.
        wrong = (said.get("errorDetail") or {}).get("message") or said.get("error")
        text = str(said.get("stream") or "").strip()
        if wrong or text.startswith("Error unpacking image"):
            raise DaemonError(f"the engine could not load {name}: {printable(str(wrong or text), limit=1000)}", status=200)
        if text:
            yield printable(text)
