"""Where a push goes: a registry that the site has, what stands before every repository there, and whom TLS believes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from airgap.errors import UsageError
from airgap.kinds import registry
from airgap.lock import ImageArtifact
from airgap.online.headers import origin, public

CERTS_D: Final = Path("/etc/docker/certs.d")
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HINT: Final = "write REGISTRY[/PREFIX], for example harbor.site/mirror; http://depot:5000/mirror where there is no TLS"


@dataclass(frozen=True, slots=True)
class Target:
    """`root` is scheme and host (`https://harbor.site`), `prefix` comes before every repository (`mirror/`, or empty)."""

    root: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """From `harbor.site/mirror`, with https unless `http://` is written out; UsageError if it is no such place."""
        written = text if "://" in text else f"https://{text}"
        try:
            parts = urlsplit(written)
            scheme, host, _ = origin(written)
        except ValueError:
            parts, scheme, host = urlsplit(""), "", ""
        if scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise UsageError(f"{public(written)!r} is no place for images", hint=_HINT)
        if "@" in parts.netloc:
            raise UsageError("a password in the address of a registry ends in logs and histories", hint=f"docker login {host}")
        prefix = parts.path.strip("/")
        if prefix and not re.fullmatch(rf"{_PART}(?:/{_PART})*", prefix):
            raise UsageError(
                f"{prefix!r} cannot stand before a repository's name",
                hint="small letters, digits, and single . _ - between them, parts separated by /; no tag",
            )
        return cls(f"{scheme}://{parts.netloc.lower()}", f"{prefix}/" if prefix else "")

    @property
    def host(self) -> str:
        """With its port, as docker writes it."""
        return urlsplit(self.root).netloc

    def repository(self, image: ImageArtifact) -> str:
        """Where this image goes: Docker Hub's below the prefix, others below their registry's name below the prefix."""
        return self.prefix + registry.repository(image.reference)


def tag(image: ImageArtifact) -> str:
    """The image's tag; one made of its digest if it is pinned without any: untagged, it would be swept out as garbage."""
    return image.reference.tag or f"sha256-{image.root.digest.hex[:12]}"


def certificates(host: str, *, given: Path | None, environment: Mapping[str, str], folder: Path = CERTS_D) -> str:
    """The file with the CA of this host: the `given` one, else what docker has been told for it; empty for the usual ones.

    What the environment names (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE) is used by `transport` by itself. UsageError if `given` is
    no file.
    """
    if given:
        if not given.is_file():
            raise UsageError(f"{given}: there is no such file", hint="--ca names a file with the registry's CA, in PEM")
        return str(given)
    docker = folder / host / "ca.crt"
    if not any(environment.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")) and docker.is_file():
        return str(docker)
    return ""
