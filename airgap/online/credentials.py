"""Who we are to a registry, from docker's own configuration: logins in the file, and credential helpers.

What `docker login` has written is enough; we write nothing. Nothing here shows a secret in its repr or in a message.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from airgap.document import Node, parse_json, read_bounded
from airgap.errors import FetchError
from airgap.machine.run import Run, RunError

LIMIT: Final = 4 << 20
HUB: Final = "https://index.docker.io/v1/"
_HUB_HOSTS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_NOT_FOUND: Final = b"credentials not found"
"""What every helper says, on standard output, with exit code 1 (docker/docker-credential-helpers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user and password; or an identity token, to be exchanged for access; or a registry token, to be sent as it is."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)


class Credentials:
    """Logins by registry host. Helpers are started when they are first needed, once for each host."""

    def __init__(
        self, logins: Mapping[str, Login], *, run: Run, store: str = "", helpers: Mapping[str, str] | None = None, name: str = ""
    ) -> None:
        self._logins, self._run, self._store, self._helpers, self._name = logins, run, store, helpers or {}, name
        self._found: dict[str, Login | None] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path | None, run: Run) -> Credentials:
        """From docker's config.json (None: the one in the home folder); none if the file does not exist.

        Raises FetchError if it cannot be read or makes no sense.
        """
        path = path or Path.home() / ".docker" / "config.json"
        if not path.exists():
            return cls({}, run=run)
        name = str(path)
        try:
            node = parse_json(read_bounded(path, error=FetchError, limit=LIMIT), name=name, error=FetchError, limit=LIMIT)
            auths, helpers, store = node.find("auths"), node.find("credHelpers"), node.find("credsStore")
            return cls(
                {_host(key): login for key, item in (auths.entries() if auths else ()) if (login := _login(item))},
                run=run,
                store=store.value if store and isinstance(store.value, str) else "",
                helpers={_host(key): item.text() for key, item in (helpers.entries() if helpers else ())},
                name=name,
            )
        except FetchError as cause:
            raise FetchError(
                cause.message, hint="mend it, or name another folder by DOCKER_CONFIG; `docker login` writes it anew"
            ) from cause

    def find(self, host: str) -> Login | None:
        """The login for this registry host (with its port), or None. Raises FetchError if its helper does not work."""
        host = _host(host)
        with self._lock:
            if host not in self._found:
                helper = self._helpers.get(host, self._store)
                self._found[host] = (self._ask(helper, host) if helper else None) or self._logins.get(host)
            return self._found[host]

    def _ask(self, helper: str, host: str) -> Login | None:
        program = f"docker-credential-{helper}"
        place = f"{self._name}: the credential helper {program!r}"
        hint = f"install it, or take it out of {self._name}; `{program} list` shows whether it works"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}", helper):
            raise FetchError(f"{self._name}: {helper[:80]!r} is no name of a credential helper", hint="take it out of there")
        server = HUB if host == _host(HUB) else host
        try:
            # The helper talks to the desktop's keyring, which it finds through the environment.
            result = self._run([program, "get"], input=server.encode(), timeout=60, inherit=True, check=False)
        except RunError as cause:
            raise FetchError(f"{place} cannot be asked for {host}: {cause.message}", hint=hint) from cause
        if result.code:
            if _NOT_FOUND in result.out + result.err:
                return None
            raise FetchError(f"{place} fails for {host} with exit code {result.code}", hint=hint)
        try:
            answer = parse_json(result.out, name=program, error=FetchError, limit=LIMIT)
            user, secret = answer.get("Username").text(), answer.get("Secret").text()
        except FetchError:
            # Not even as a cause: what it said may be the secret itself.
            raise FetchError(f"{place} answers for {host} with something else than a login", hint=hint) from None
        return Login(identity=secret) if user == "<token>" else Login(user=user, password=secret)

    def __repr__(self) -> str:
        """Hosts only."""
        return f"Credentials({', '.join(sorted(self._logins))})"


def _host(text: str) -> str:
    """The normal form of a key of docker's configuration: it may be a host, or an address with scheme and path."""
    host = re.sub(r"^https?://", "", text.strip()).partition("/")[0].lower()
    return "index.docker.io" if host in _HUB_HOSTS else host


def _login(node: Node) -> Login | None:
    """One entry of `auths`; None for an empty one, which docker leaves behind when a helper keeps the secret."""

    def word(key: str) -> str:
        value = node.mapping().get(key)
        return value if isinstance(value, str) else ""

    user, password = word("username"), word("password")
    if auth := word("auth"):
        try:
            user, colon, password = base64.b64decode(auth, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            node.fail("its `auth` is not base64 of user:password", hint="`docker login` writes it anew")
    if word("identitytoken"):
        return Login(identity=word("identitytoken"))
    if word("registrytoken"):
        return Login(bearer=word("registrytoken"))
    return Login(user=user, password=password) if user and password else None
