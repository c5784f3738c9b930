"""How a registry is persuaded to let us in: Bearer tokens from its token service, or Basic.

The first request goes out bare; what a 401 then asks for is got once for each registry and repository, used by all threads, and
got anew when the registry no longer takes it (upstream.md 5.1; distribution's docs/content/spec/auth/token.md).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from airgap.document import parse_json
from airgap.errors import FetchError
from airgap.online.answers import NotThere
from airgap.online.credentials import Credentials, Login
from airgap.online.exchange import Door, Exchange
from airgap.online.headers import Challenge, basic, challenges, origin, public
from airgap.online.transport import Failure

LIMIT: Final = 1 << 20
CLIENT: Final = "airgap"


class Keys:
    """The `Door` of all registries, for reading. `logins` are those that addresses of the manifest name themselves, by origin."""

    def __init__(self, *, web: Exchange, credentials: Credentials, logins: Mapping[tuple[str, str, int | None], Login]) -> None:
        self._web, self._credentials, self._logins = web, credentials, logins
        self._keys: dict[tuple[object, str], _Key] = {}
        self._lock = threading.Lock()

    def headers(self, url: str) -> Mapping[str, str]:
        """What opened this registry's repository last time."""
        return self.kept(url, repository(url))

    def admit(self, url: str, headers: Mapping[str, str], sent: Mapping[str, str]) -> bool:
        """Get what the 401 asks for; False if it is nothing new. Raises FetchError if the token service refuses."""
        return self.renewed(url, headers, sent, name=repository(url), scopes=())

    def pushing(self, repository: str, *, source: str = "") -> Door:
        """The `Door` for writing to this repository, and for mounting blobs of `source` into it."""
        scopes = (f"repository:{repository}:pull,push", *([f"repository:{source}:pull"] if source else []))
        return _Pushing(self, scopes)

    def kept(self, url: str, name: str) -> Mapping[str, str]:
        """What opened this registry last time for what is called by `name` here."""
        value = self._key(url, name).value
        return {"Authorization": value} if value else {}

    def renewed(
        self, url: str, headers: Mapping[str, str], sent: Mapping[str, str], *, name: str, scopes: tuple[str, ...]
    ) -> bool:
        """As `admit`; the token is for these scopes and those that the 401 names."""
        key = self._key(url, name)
        with key.lock:
            if sent.get("Authorization", "") != key.value:
                return True  # another thread got it while we were refused
            fresh = self._fresh(url, challenges(headers.get("WWW-Authenticate", "")), scopes)
            if not fresh or fresh == key.value:
                return False
            key.value = fresh
            return True

    def _key(self, url: str, name: str) -> _Key:
        with self._lock:
            return self._keys.setdefault((origin(url), name), _Key())

    def _fresh(self, url: str, offered: tuple[Challenge, ...], scopes: tuple[str, ...]) -> str:
        login = self._logins.get(origin(url)) or self._credentials.find(urlsplit(url).netloc)
        ways = {item.scheme: item for item in reversed(offered)}
        if "bearer" in ways:
            return "Bearer " + self._token(url, ways["bearer"], login, scopes)
        if "basic" in ways and login and login.user:
            return basic(login.user, login.password)
        return ""

    def _token(self, url: str, challenge: Challenge, login: Login | None, scopes: tuple[str, ...] = ()) -> str:
        if login and login.bearer:
            return login.bearer
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname or (url.startswith("https:") and parts.scheme != "https"):
            raise FetchError(
                f"{public(url)}: wants a token from {public(realm)!r}, where secrets cannot be sent safely",
                hint="the registry is set up wrongly, or something between plays the registry",
            )
        service = challenge.parameters.get("service", "")
        wanted = _union((*scopes, *challenge.parameters.get("scope", "").split())) or [f"repository:{repository(url)}:pull"]
        try:
            if login and login.identity:
                form = {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": login.identity}
                form |= {"service": service, "scope": " ".join(wanted)}
                data = self._web.post(realm, form, limit=LIMIT).data
            else:
                asked = [*([("service", service)] if service else []), *(("scope", item) for item in wanted)]
                query = "&".join(part for part in (parts.query, urlencode(asked)) if part)
                door = _Fixed(basic(login.user, login.password)) if login and login.user else None
                data = self._web.get(urlunsplit(parts._replace(query=query)), limit=LIMIT, door=door).data
        except (Failure, NotThere) as cause:
            status = getattr(cause, "status", 404)
            if status not in (400, 401, 403, 404):
                raise
            who = "our login" if login else "us without a login"
            host = urlsplit(url).netloc
            raise Failure(
                f"{public(realm)}: gives {who} no token for {host} ({status})", again=False, status=401
            ) from cause
        node = parse_json(data, name=f"the token of {public(realm)}", error=FetchError, limit=LIMIT)
        token = (node.find("token") or node.get("access_token")).text()
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            node.fail("the token holds characters that no header field may")
        return token


class _Pushing:
    """Writing needs tokens of its own: what the first 401 names, a question whether a blob is there, is reading only."""

    def __init__(self, keys: Keys, scopes: tuple[str, ...]) -> None:
        self._keys, self._scopes = keys, scopes

    def headers(self, url: str) -> Mapping[str, str]:
        return self._keys.kept(url, " ".join(self._scopes))

    def admit(self, url: str, headers: Mapping[str, str], sent: Mapping[str, str]) -> bool:
        return self._keys.renewed(url, headers, sent, name=" ".join(self._scopes), scopes=self._scopes)


def _union(scopes: Sequence[str]) -> list[str]:
    """Each resource once (`repository:name:pull,push`), with all actions that anybody wants on it, in order."""
    found: dict[str, list[str]] = {}
    for scope in scopes:
        resource, _, actions = scope.rpartition(":")
        kept = found.setdefault(resource, [])
        kept += [item for item in actions.split(",") if item not in kept]
    return [f"{resource}:{','.join(actions)}" for resource, actions in found.items()]


class _Key:
    def __init__(self) -> None:
        self.value = ""
        self.lock = threading.Lock()


class _Fixed:
    """A door with one key."""

    def __init__(self, value: str) -> None:
        self._value = value

    def headers(self, url: str) -> Mapping[str, str]:  # noqa: ARG002 - as Door asks
        return {"Authorization": self._value}

    def admit(self, url: str, headers: Mapping[str, str], sent: Mapping[str, str]) -> bool:  # noqa: ARG002 - as Door asks
        return False


def repository(url: str) -> str:
    """The repository that this address of the registry API is about."""
    match = re.fullmatch(r"/v2/(.+)/(?:manifests|blobs|tags)/[^/]+", urlsplit(url).path)
    return match[1] if match else ""
