"""The keys this host accepts bundles from: pinned, revoked, and handed over from one to the next.

    /etc/airgap/trust/<key id>.pub                    a minisign public key file: `minisign -V -p` takes it as it lies
    /etc/airgap/trust/<key id>-<fingerprint>.revoked  JSON: a key that is never accepted again, since when and why

In /etc and not beside our state in /var/lib/airgap: this is what an administrator decided. Configuration management may put files
there under any name, backups of /etc take them along, and no uninstall forgets a revocation. A revocation is written before the
key goes and counts more than the key, so that a kill in between leaves nothing accepted.
"""

from __future__ import annotations

import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airgap.bundle.minisign import LIMIT, PublicKey, Signature, Statement, fingerprint_digits, printable_line
from airgap.bundle.signing import check
from airgap.document import dump_json, parse_json, read_bounded
from airgap.errors import HostUnsuitable, SignatureError, UsageError

if TYPE_CHECKING:
    from airgap.offline.host import Host

TRUST: Final = "/etc/airgap/trust"
MOST: Final = 1000
"""Files that the folder may have."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A key that is accepted, the file it lies in, and where it came from (empty: put there by others)."""

    key: PublicKey
    path: str
    note: str

    @property
    def introduced_by(self) -> str | None:
        """The name of the key on whose word this one was taken, or None if a person added it."""
        found = re.search(r"announced by ([0-9A-F]{16})", self.note)
        return found[1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A key that is never accepted again, the file that says so, since when (UTC) and why."""

    key: PublicKey
    path: str
    since: str
    reason: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What a host accepts, read once; `pinned` has no key that is in `revoked`."""

    pinned: tuple[Pinned, ...] = ()
    revoked: tuple[Revoked, ...] = ()

    @classmethod
    def load(cls, host: Host) -> Trust:
        """As the files say; empty on a host that never had a key.

        SignatureError for a file that is damaged or that others than its owner may write: a revocation that
        cannot be read must not be a key that is accepted.
        """
        files = _files(host)
        revoked = tuple(_revoked(host, path) for path in files if path.endswith(".revoked"))
        gone = {item.key.name for item in revoked} | {item.key.key for item in revoked}
        found = [_pinned(host, path) for path in files if path.endswith(".pub")]
        return cls(tuple(item for item in found if not gone & {item.key.name, item.key.key}), revoked)

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The keys that are accepted."""
        return tuple(item.key for item in self.pinned)

    @property
    def reasons(self) -> dict[str, str]:
        """Why each revoked key is revoked, by its name."""
        return {item.key.name: f"since {item.since}, {item.reason}" for item in self.revoked}

    def check(
        self, index: bytes, signature: bytes | None, *, name: str, also: PublicKey | None = None
    ) -> tuple[PublicKey, Statement]:
        """Who vouches for this index.json, and as what. `also` is a key that the caller was given for this once.

        SignatureError as `signing.check`; with nothing pinned and nothing given, it says how a first key is given.
        """
        keys = (*self.keys, *((also,) if also else ()))
        if also:
            self._refuse_revoked(also)
        if not keys and signature is not None:
            announced = Signature.parse(signature, name=name).announced
            said = f"; the bundle names key {announced.name}, which proves nothing yet" if announced else ""
            raise SignatureError(
                f"{name}: this host trusts no key yet{said}",
                hint="get the key or its fingerprint another way than the bundle, then: --key FILE or --key FINGERPRINT",
            )
        return check(index, signature, keys, name=name, revoked=self.reasons)

    def _refuse_revoked(self, key: PublicKey) -> None:
        for item in self.revoked:
            # The id is the maker's free choice, so that the key itself must not come back under another one.
            if key.id == item.key.id or key.key == item.key.key:
                raise SignatureError(
                    f"key {key.name} is revoked on this host since {item.since}: {item.reason}",
                    hint=f"if that was a mistake, an administrator can delete {item.path}",
                )

    def admit(self, key: PublicKey) -> bool:
        """Whether the key is new; False if it is pinned. SignatureError if it is revoked, or if another key has its id."""
        self._refuse_revoked(key)
        for item in self.pinned:
            if item.key == key:
                return False
            if key.id == item.key.id or key.key == item.key.key:
                raise SignatureError(
                    f"key {key.name} ({key.fingerprint}) is not the one trusted as {item.key.name} ({item.key.fingerprint})",
                    hint="this is no accident; ask the owner, and remove the old one first if the new one is right",
                )
        return True


def given(word: str, *, signature: bytes | None = None, name: str = "the signature") -> PublicKey:
    """The key that a person means by `word`: a public key file, the key's own line, or the fingerprint of the key that signed.

    UsageError if it is none of them; SignatureError if the bundle's key has another fingerprint.
    """
    if fingerprint_digits(word) is None:
        if re.fullmatch(r"RW[A-Za-z0-9+/]{54}", word):
            return PublicKey.parse(word, name="the key given")
        return PublicKey.parse(read_bounded(Path(word), error=UsageError, limit=LIMIT), name=word)
    if signature is None:
        raise SignatureError(f"{name}: there is no signature, so there is no key of this fingerprint")
    announced = Signature.parse(signature, name=name).announced
    if announced is None:
        raise SignatureError(f"{name}: does not name its key", hint="give the public key file instead of the fingerprint")
    if not announced.matches(word):
        raise SignatureError(
            f"{name}: made by a stranger: its key has the fingerprint\n  {announced.fingerprint}\nand not the one given",
            hint="compare the two with what the key's owner told you",
        )
    return announced


def add(host: Host, key: PublicKey, *, fingerprint: str | None = None, introduced_by: PublicKey | None = None) -> bool:
    """Afterwards bundles signed by this key are accepted; False if they were before.

    `fingerprint` is what a person typed to confirm the key. SignatureError if it is another one's, if the key is revoked, or
    if another key with this id is trusted.
    """
    if fingerprint is not None and not key.matches(fingerprint):
        raise SignatureError(
            f"key {key.name} has the fingerprint {key.fingerprint}, which is not what was typed", hint="is it the right file?"
        )
    if not Trust.load(host).admit(key):
        return False
    how = f"announced by {introduced_by.name}" if introduced_by else "added by hand"
    _write(host, f"{TRUST}/{key.name}.pub", key.text(note=f"{_now(host)} {how}").encode())
    return True


def succeed(host: Host, successor: str, *, signer: PublicKey) -> PublicKey | None:
    """Trust the key that a bundle by `signer` announces in its index.json (annotation `minisign.SUCCESSOR`); None if it is known.

    For an installed and proven bundle only, and only if `signer` is pinned: a key that was given for one install, or is revoked
    by now, may not plant another. The old key stays until it is removed. SignatureError otherwise, and as `add`.
    """
    if signer not in Trust.load(host).keys:
        raise SignatureError(f"key {signer.name} is not trusted on this host and cannot announce a successor")
    key = PublicKey.parse(successor, name=f"the successor that key {signer.name} announces")
    return key if add(host, key, introduced_by=signer) else None


def named(trust: Trust, which: str) -> PublicKey:
    """The trusted key of this id or fingerprint; UsageError if there is none."""
    for key in trust.keys:
        if which.upper() == key.name or key.matches(which):
            return key
    known = ", ".join(key.name for key in trust.keys) or "none"
    raise UsageError(f"no key {which[:80]!r} is trusted here", hint=f"trusted: {known}")


def revoke(host: Host, key: PublicKey, *, reason: str = "") -> tuple[Pinned, ...]:
    """Afterwards the key is refused, trusted before or not, whoever announces it.

    Returned are those keys that are trusted because it announced them, directly or through others: they stay, and if it was
    stolen they are the thief's. UsageError for a reason that is not one printable line.
    """
    if not printable_line(reason) or len(reason) > 200:
        raise UsageError("the reason must be one printable line of at most 200 characters")
    trust = Trust.load(host)
    if all(item.key != key for item in trust.revoked):
        record = {"airgap": 1, "key": key.line, "since": _now(host), "reason": reason or "no reason given"}
        _write(host, f"{TRUST}/{key.name}-{key.fingerprint[:9]}.revoked", dump_json(record))
    for item in trust.pinned:
        if item.key == key:
            _write(host, item.path, None)
    return _followers(trust, key.name)


def _followers(trust: Trust, name: str) -> tuple[Pinned, ...]:
    names = {name}
    while more := {item.key.name for item in trust.pinned if item.introduced_by in names} - names:
        names |= more
    return tuple(item for item in trust.pinned if item.key.name in names - {name})


def _write(host: Host, path: str, data: bytes | None) -> None:
    """Afterwards the file holds this, or is not there."""
    try:
        if data is None:
            host.remove(path)
        else:
            host.write(path, data)
    except OSError as cause:
        raise HostUnsuitable(f"{path}: cannot be written: {cause.strerror}", hint="run this as root") from cause


def _now(host: Host) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(host.clock.now()))


def _files(host: Host) -> list[str]:
    place = host.root / host.real(TRUST)[1:]
    try:
        if not place.is_dir():
            return []
        paths = sorted(f"{TRUST}/{item.name}" for item in place.iterdir() if re.fullmatch(r"[^.].*\.(pub|revoked)", item.name))
        if len(paths) > MOST:
            raise SignatureError(f"{TRUST}: more than {MOST} files")
        for path in (TRUST, *paths):
            mode = stat.S_IMODE((host.root / host.real(path)[1:]).stat().st_mode)
            if mode & 0o022:
                raise SignatureError(f"{path}: others may write it (mode {mode:04o}): proves nothing", hint=f"chmod go-w {path}")
    except OSError as cause:
        raise SignatureError(f"{TRUST}: cannot be read: {cause.strerror}") from cause
    return paths


def _read(host: Host, path: str) -> bytes:
    try:
        return host.read(path, limit=LIMIT) or b""
    except HostUnsuitable as cause:
        raise SignatureError(cause.message, hint=cause.hint) from cause


def _pinned(host: Host, path: str) -> Pinned:
    data = _read(host, path)
    key = PublicKey.parse(data, name=path)
    note = re.match(rb"untrusted comment: minisign public key [0-9A-F]{16} \(([ -~]{1,200})\)\n", data)
    return Pinned(key, path, note[1].decode() if note else "")


def _revoked(host: Host, path: str) -> Revoked:
    node = parse_json(_read(host, path), name=path, error=SignatureError, limit=LIMIT)
    if node.get("airgap").integer() != 1:
        node.fail("written by a newer airgap")
    found = Revoked(
        key=PublicKey.parse(node.get("key").text(), name=path),
        path=path,
        since=node.get("since").text(),
        reason=node.get("reason").text(),
    )
    node.done()
    return found
