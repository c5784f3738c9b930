"""What a site asks for, section by section: values, and their one reader and writer.

A section has one form, the manifest's; the lock carries the same as JSON. So `read` takes a Node and does not care whether it
came from YAML, where a complaint has a line, or from a lock. `to_json` leaves out what stands at its default, and `read` of that
is the same value again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from airgap.document import Json, Node
from airgap.fields import (
    HOST,
    distinct,
    dropped,
    matching,
    one_each,
    read_flag,
    read_host,
    read_json,
    read_linux,
    read_path,
    read_platforms,
    read_user,
    read_version,
    refuse_scheme,
    texts,
)
from airgap.oci import Platform, Reference, read_reference

ENTITLEMENTS: Final = ("network.host", "security.insecure")
RESERVED: Final = frozenset({"default"})
"""buildx keeps this name for the engine's own builder (commands/create.go in docker/buildx)."""


# ---- engine, emulation, images ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EngineAsk:
    """The engine: a version to bring, or `keep` to bring none; `daemon` goes into the host's daemon.json either way."""

    version: str | None = None
    daemon: dict[str, Json] = field(default_factory=dict)
    keep: bool = False

    @classmethod
    def read(cls, node: Node) -> EngineAsk:
        """From `engine:`."""
        keep = read_flag(node, "keep")
        version = node.find("version")
        daemon = node.find("daemon")
        if keep and version:
            version.fail("a version and `keep: true` contradict each other", hint="leave one of them out")
        if daemon:
            daemon.mapping()
        ask = cls(read_version(version) if version else None, read_json(daemon) if daemon else {}, keep)
        node.done()
        if not keep and not version:
            node.fail("'version' is missing", hint="or write `keep: true` if the hosts have an engine that stays")
        return ask

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        return dropped({"version": self.version, "daemon": self.daemon, "keep": self.keep})


@dataclass(frozen=True, slots=True)
class EmulationAsk:
    """QEMU for these platforms, out of this image (tonistiigi/binfmt)."""

    image: Reference
    platforms: tuple[Platform, ...]

    @classmethod
    def read(cls, node: Node) -> EmulationAsk:
        """From `emulation:`."""
        ask = cls(read_reference(node.get("image")), read_linux(node.get("platforms")))
        node.done()
        return ask

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        return {"image": str(self.image), "platforms": texts(self.platforms)}


@dataclass(frozen=True, slots=True)
class ImageAsk:
    """An image, for these platforms or else all that the site builds for; with `daemon`, from the packer's own engine."""

    reference: Reference
    platforms: tuple[Platform, ...] = ()
    daemon: bool = False

    @classmethod
    def read(cls, node: Node) -> ImageAsk:
        """From an entry of `images:`: a name, or `{image: …}` or `{daemon: …}`."""
        if not isinstance(node.value, dict):
            return cls(read_reference(node))
        source = node.find("daemon")
        image = node.find("image")
        if source and image:
            source.fail("`image` and `daemon` are two sources for one image", hint="leave one of them out")
        platforms = node.find("platforms")
        reference = read_reference(source or image or node.get("image"))
        ask = cls(reference, read_platforms(platforms) if platforms else (), source is not None)
        node.done()
        return ask

    def to_json(self) -> Json:
        """As a manifest writes it: the name alone where that says all."""
        if not self.platforms and not self.daemon:
            return str(self.reference)
        return dropped({"daemon" if self.daemon else "image": str(self.reference), "platforms": texts(self.platforms)})


# ---- the site's registry ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TlsAsk:
    """Paths on the host of a certificate, its key, and the CA that vouches for it."""

    cert: str
    key: str
    ca: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAsk:
    """A registry on the site that serves the bundle's images, reached under `names`; without `tls` it speaks plain HTTP."""

    image: Reference
    listen: str = "0.0.0.0:5000"
    names: tuple[str, ...] = ()
    tls: TlsAsk | None = None

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self.listen.rpartition(":")[2])

    @classmethod
    def read(cls, node: Node) -> RegistryAsk:
        """From `registry:`."""
        listen = node.find("listen")
        ask = cls(
            image=read_reference(node.get("image")),
            listen=_read_listen(listen) if listen else "0.0.0.0:5000",
            names=distinct(node.find("names"), read_host),
            tls=_read_tls(tls) if (tls := node.find("tls")) else None,
        )
        node.done()
        return ask

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        tls = self.tls
        written = dropped({"cert": tls.cert, "key": tls.key, "ca": tls.ca}) if tls else None
        return dropped({"image": str(self.image), "listen": self.listen, "names": list(self.names), "tls": written})


def _read_listen(node: Node) -> str:
    text = matching(node, HOST, "an address and port", hint="for example 0.0.0.0:5000 or 127.0.0.1:5000")
    port = re.search(r":([0-9]+)$", text)
    if not port or not 0 < int(port[1]) < 65536:
        node.fail(f"{text[:80]!r} has no port from 1 to 65535", hint="for example 0.0.0.0:5000")
    return text


def _read_tls(node: Node) -> TlsAsk:
    ca = node.find("ca")
    ask = TlsAsk(read_path(node.get("cert")), read_path(node.get("key")), read_path(ca) if ca else "")
    node.done()
    return ask


@dataclass(frozen=True, slots=True)
class RuntimeAsk:
    """The private CPython: its version, and the release of astral-sh/python-build-standalone that holds it."""

    python: str
    date: str

    @classmethod
    def read(cls, node: Node) -> RuntimeAsk:
        """From `runtime:`."""
        ask = cls(
            matching(node.get("python"), r"3\.1[0-4]\.[0-9]{1,2}", "a CPython that airgap runs on", hint="3.10 to 3.14, in full"),
            matching(node.get("date"), r"20[0-9]{6}", "the date of a release", hint='eight digits in quotes, such as "20260728"'),
        )
        node.done()
        return ask

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        return {"python": self.python, "date": self.date}


# ---- builders --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuilderRegistryAsk:
    """How a builder reaches one registry: `mirrors` come first; each of them has its own entry for its own http, insecure, ca."""

    http: bool = False
    insecure: bool = False
    ca: str = ""
    mirrors: tuple[str, ...] = ()

    @classmethod
    def read(cls, node: Node) -> BuilderRegistryAsk:
        """From an entry of a builder's `registries:`."""
        ca = node.find("ca")
        ask = cls(
            read_flag(node, "http"),
            read_flag(node, "insecure"),
            read_path(ca) if ca else "",
            distinct(node.find("mirrors"), lambda item: read_host(item, path=True)),
        )
        node.done()
        if ask.http and (ask.insecure or ask.ca):
            # Together they mean "TLS, and HTTP if that fails", which broke in BuildKit 0.13 (moby/buildkit#4915).
            node.fail("`http` is without TLS, `insecure` and `ca` are about TLS", hint="keep `http: true` alone for plain HTTP")
        return ask

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        return dropped({"http": self.http, "insecure": self.insecure, "ca": self.ca, "mirrors": list(self.mirrors)})


@dataclass(frozen=True, slots=True)
class NodeAsk:
    """A further machine of a builder: its engine's address, and the platforms to build there."""

    name: str
    endpoint: str
    platforms: tuple[Platform, ...] = ()

    @classmethod
    def read(cls, node: Node) -> NodeAsk:
        """From an entry of a builder's `nodes:`."""
        platforms = node.find("platforms")
        endpoint = rf"ssh://(?:[A-Za-z0-9_.-]+@)?{HOST}(?:/[A-Za-z0-9._/-]+)?|tcp://{HOST}"
        ask = cls(
            _read_builder_name(node.get("name")),
            matching(
                node.get("endpoint"), endpoint, "an engine's address", hint="ssh://user@host, or tcp://host:2376 with TLS"
            ),
            read_linux(platforms) if platforms else (),
        )
        node.done()
        return ask

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        return dropped({"name": self.name, "endpoint": self.endpoint, "platforms": texts(self.platforms)})


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderAsk:
    """A docker-container builder. `use` makes it its users' default; without `users` it is made for root and the site's."""

    name: str
    image: Reference
    use: bool = False
    entitlements: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    registries: Mapping[str, BuilderRegistryAsk] = field(default_factory=dict)
    nodes: tuple[NodeAsk, ...] = ()
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    flags: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    @classmethod
    def read(cls, node: Node) -> BuilderAsk:
        """From an entry of `builders:`."""
        network = node.find("network")
        platforms = node.find("platforms")
        registries = node.find("registries")
        options = node.find("driver_opts")
        nodes = node.find("nodes")
        ask = cls(
            name=_read_builder_name(node.get("name")),
            image=read_reference(node.get("image")),
            use=read_flag(node, "use"),
            entitlements=distinct(node.find("entitlements"), _read_entitlement),
            platforms=read_linux(platforms) if platforms else (),
            registries=_read_registries(registries) if registries else {},
            nodes=one_each(nodes.items(), NodeAsk.read, lambda item: item.name) if nodes else (),
            driver_opts=dict(_read_option(key, item) for key, item in options.entries()) if options else {},
            network=matching(network, r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", "a network's name") if network else "",
            flags=distinct(node.find("flags"), _read_buildkitd_flag),
            users=distinct(node.find("users"), read_user),
        )
        node.done()
        return ask

    def to_json(self) -> dict[str, Json]:
        """As a manifest writes it."""
        return dropped(
            {
                "name": self.name,
                "image": str(self.image),
                "use": self.use,
                "entitlements": list(self.entitlements),
                "platforms": texts(self.platforms),
                "registries": {host: ask.to_json() for host, ask in sorted(self.registries.items())},
                "nodes": [item.to_json() for item in self.nodes],
                "driver_opts": dict(sorted(self.driver_opts.items())),
                "network": self.network,
                "flags": list(self.flags),
                "users": list(self.users),
            }
        )


def _read_builder_name(node: Node) -> str:
    """buildx takes capitals too but writes names in lower case, and then the name asked for would not be the one found."""
    text = matching(
        node, r"[a-z][a-z0-9._-]{0,62}", "a builder's name", hint="a small letter first, then small letters, digits and . _ -"
    )
    if text in RESERVED:
        node.fail(f"{text!r} is the name of the engine's own builder", hint="take another name")
    return text


def _read_entitlement(node: Node) -> str:
    text = node.text()
    if text not in ENTITLEMENTS:
        node.fail(f"{text[:80]!r} is no entitlement of BuildKit", hint=f"there are {' and '.join(ENTITLEMENTS)}")
    return text


def _read_registries(node: Node) -> dict[str, BuilderRegistryAsk]:
    found = {}
    for host, item in node.entries():
        refuse_scheme(item, host)
        if host in ("registry-1.docker.io", "index.docker.io", "hub.docker.com"):
            item.fail("BuildKit knows Docker Hub by the name docker.io", hint="write docker.io")
        if not re.fullmatch(HOST, host):
            item.fail(f"{host[:80]!r} is not a registry's host[:port]", hint="for example docker.io or harbor.example.com")
        found[host] = BuilderRegistryAsk.read(item)
    return found


def _read_option(key: str, node: Node) -> tuple[str, str]:
    own = {"image": "image", "network": "network"}
    if key in own:
        node.fail(f"the builder's own key {own[key]!r} says this")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", key):
        node.fail(f"{key[:80]!r} is no name of a driver option")
    return key, node.text()


def _read_buildkitd_flag(node: Node) -> str:
    return matching(
        node, r"--?[A-Za-z][^\s'\"\\]*", "one flag of buildkitd", hint="write --flag=value, without blanks and quotes"
    )
