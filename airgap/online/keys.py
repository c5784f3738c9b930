"""The packer's signing key: made once, kept readable by its owner only, and reached where it is.

A key, and a passphrase likewise, is named by one word: a file, `fd:3` (an open descriptor), `env:NAME` (a variable), and of keys
also `cmd:PROGRAM ARG…`, a program that signs by itself, such as the front of an HSM. That program gets index.json on its standard
input and answers a minisign signature on its standard output; `{comment}` among its arguments, or AIRGAP_TRUSTED_COMMENT in its
environment, is the trusted comment it has to sign. minisign itself will do:
`cmd:minisign -S -W -s KEY -m /dev/stdin -x /dev/stdout -t {comment}`.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from airgap.bundle.minisign import LIMIT, PublicKey, Signature
from airgap.bundle.signing import SecretKey, check, seal, statement, verify
from airgap.document import fsync_directory, read_bounded, write_atomic
from airgap.errors import SignatureError, UsageError
from airgap.machine.run import Run, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIGNER_TIMEOUT: Final = 300.0
"""Seconds for an external signer: somebody may have to touch a token."""


class Signer(Protocol):
    """What `pack` signs with."""

    @property
    def public(self) -> PublicKey:
        """The key that hosts have to trust."""

    def seal(self, index: bytes, *, bundle: str, serial: int) -> bytes:
        """The bytes of index.json.minisig for this index.json, as `signing.check` takes them; SignatureError otherwise."""


@dataclass(frozen=True, slots=True)
class KeySigner:
    """Signs with a key in this process."""

    secret: SecretKey

    @property
    def public(self) -> PublicKey:
        """The key that hosts have to trust."""
        return self.secret.public

    def seal(self, index: bytes, *, bundle: str, serial: int) -> bytes:
        """As `Signer`."""
        return seal(index, self.secret, bundle=bundle, serial=serial)


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """Has a program sign, and believes the answer when `public` verifies it."""

    argv: tuple[str, ...]
    public: PublicKey
    run: Run

    def seal(self, index: bytes, *, bundle: str, serial: int) -> bytes:
        """As `Signer`; the answer's untrusted comment, which nobody signs, becomes ours."""
        wanted = statement(index, bundle=bundle, serial=serial).text()
        argv = [word.replace("{comment}", wanted) for word in self.argv]
        name = f"the answer of {self.argv[0]}"
        try:
            # The caller's environment: such programs are told their token, agent or configuration by it.
            answer = self.run(argv, input=index, timeout=SIGNER_TIMEOUT, env={"AIRGAP_TRUSTED_COMMENT": wanted}, inherit=True).out
        except RunError as cause:
            raise SignatureError(f"the external signer failed: {cause.message}", hint=cause.hint) from cause
        verified = verify(index, answer, [self.public], name=name)
        if verified.trusted_comment != wanted:
            raise SignatureError(
                f"{name}: its trusted comment is not the one asked for", hint="pass {comment} or $AIRGAP_TRUSTED_COMMENT on to it"
            )
        made = Signature.parse(answer, name=name).text(self.public)
        check(index, made, [self.public], name=name)
        return made


def default_key(environ: Mapping[str, str], home: Path) -> Path:
    """Where the signing key is unless told otherwise; its public half is beside it, with .pub at the end."""
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "airgap" / "key"


def new_key(path: Path, *, passphrase: bytes | None) -> PublicKey:
    """Afterwards `path` holds a new key (mode 0600, encrypted if there is a passphrase) and `path`.pub its public half (0644).

    SignatureError if anything is there already: a key that is overwritten is trusted on hosts and lost.
    """
    public = public_file(path)
    for place in (path, public):
        if os.path.lexists(place):
            raise SignatureError(f"{place}: is there, and a key is never overwritten", hint="give another file, or move it away")
    secret = SecretKey.generate()
    text = secret.dump(passphrase)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            write_atomic(fresh, text.encode(), mode=0o600)
            # A link and no rename: it fails if another process was quicker.
            os.link(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        fsync_directory(path.parent)
        write_atomic(public, secret.public.text().encode())
    except OSError as cause:
        raise SignatureError(f"{path}: cannot be written: {cause.strerror}") from cause
    return secret.public


def public_file(path: Path) -> Path:
    """Where the public half of the key in `path` is."""
    return path.with_name(path.name + ".pub")


def read_public(word: str | Path) -> PublicKey:
    """From a public key file or the key's own line."""
    if isinstance(word, str) and word.startswith("RW") and len(word) == 56:
        return PublicKey.parse(word, name="the public key given")
    return PublicKey.parse(read_bounded(Path(word), error=SignatureError, limit=LIMIT), name=str(word))


def shown_key(word: str | Path, *, environ: Mapping[str, str], passphrase: str | None = None) -> PublicKey:
    """The public half of the key that `word` names, for `airgap key show`: from the .pub file beside it where there is one,
    so that nobody has to type a passphrase for what is no secret.
    """
    if isinstance(word, str) and word.startswith("cmd:"):
        raise UsageError("a program's public key cannot be asked for", hint="it is the file that --public-key names")
    if not _elsewhere(word) and public_file(Path(word)).exists():
        return read_public(public_file(Path(word)))
    return _secret_key(word, passphrase=passphrase, environ=environ, ask=None).public


def open_signer(
    word: str | Path,
    *,
    environ: Mapping[str, str],
    run: Run,
    passphrase: str | None = None,
    public: str | Path | None = None,
    ask: Callable[[str], str] | None = None,
) -> Signer:
    """What signs for the key that `word` names.

    `passphrase` names where the passphrase is; without it, an encrypted key's is had from `ask` (given the question), if a person
    is there. `public` names the public key, which `cmd:` needs and others must agree with. UsageError for a word that makes no
    sense; SignatureError for everything that is wrong with the key. A descriptor is read to its end and left open.
    """
    expected = read_public(public) if public is not None else None
    if isinstance(word, str) and word.startswith("cmd:"):
        if expected is None:
            raise UsageError("an external signer's answer is verified with its public key", hint="--public-key FILE")
        return CommandSigner(_words(word[4:]), expected, run)
    secret = _secret_key(word, passphrase=passphrase, environ=environ, ask=ask)
    if expected is not None and secret.public != expected:
        raise SignatureError(f"{_called(word)}: is key {secret.public.name}, but the public key given is {expected.name}")
    return KeySigner(secret)


def _secret_key(
    word: str | Path, *, passphrase: str | None, environ: Mapping[str, str], ask: Callable[[str], str] | None
) -> SecretKey:
    name = _called(word)
    text = read_secret(word, environ=environ)
    if not SecretKey.encrypted(text, name=name):
        return SecretKey.parse(text, name=name)
    if passphrase is not None:
        return SecretKey.parse(text, read_passphrase(passphrase, environ=environ), name=name)
    if ask is None:
        raise SignatureError(
            f"{name}: is encrypted, and there is nobody to ask for its passphrase",
            hint="--passphrase FILE, --passphrase env:NAME or --passphrase fd:3",
        )
    return SecretKey.parse(text, ask(f"passphrase of {name}").encode(), name=name)


def read_passphrase(word: str | Path, *, environ: Mapping[str, str]) -> bytes:
    """The one line that is in the file, descriptor or variable; SignatureError as `read_secret`."""
    # Who gives the passphrase itself where its place is asked for must not find it in a log.
    name = str(word) if _elsewhere(word) else "the file that is to hold the passphrase"
    line = read_secret(word, environ=environ, name=name)
    for end in (b"\n", b"\r"):
        line = line.removesuffix(end)
    if not line:
        raise SignatureError(f"{name}: an empty passphrase")
    return line


def read_secret(word: str | Path, *, environ: Mapping[str, str], name: str = "") -> bytes:
    """What is in a file that only its owner may read, in `fd:N` or in `env:NAME`; SignatureError if not, without showing it."""
    name = name or _called(word)
    if not _elsewhere(word):
        return _private_file(Path(word), name)
    how, _, rest = str(word).partition(":")
    if how == "env":
        found = environ.get(rest)
        if not found:
            raise SignatureError(f"{name}: the variable is not set, or empty")
        return _bounded(found.encode(errors="surrogateescape"), name)
    if not rest.isdecimal():
        raise UsageError(f"{name}: a descriptor is a number", hint="such as fd:3, with 3<FILE behind the command")
    return _bounded(_drained(int(rest), name), name)


def _elsewhere(word: str | Path) -> bool:
    return isinstance(word, str) and word.startswith(("fd:", "env:"))


def _called(word: str | Path) -> str:
    """The word in complaints, cut: who gives the key itself instead of its place must not find it in a log."""
    text = str(word)
    return f"{text[:20]}…" if len(text) > 20 and text.startswith("RW") else text


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as cause:
        raise UsageError(f"cmd: {cause}") from cause
    if not words:
        raise UsageError("cmd: names no program", hint="such as cmd:/usr/local/bin/sign-with-hsm --slot 3")
    return words


def _private_file(path: Path, name: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError as cause:
        raise SignatureError(f"{name}: is not there", hint="airgap key new makes a signing key") from cause
    except OSError as cause:
        raise SignatureError(f"{name}: cannot be read: {cause.strerror}") from cause
    try:
        state = os.fstat(fd)
        mode = stat.S_IMODE(state.st_mode)
        # A pipe (the shell's <(…)) has no mode that says anything.
        if stat.S_ISREG(state.st_mode) and mode & 0o077:
            raise SignatureError(f"{name}: others may read it (mode {mode:04o})", hint=shlex.join(["chmod", "600", str(path)]))
        return _bounded(_drained(fd, name), name)
    finally:
        os.close(fd)


def _drained(fd: int, name: str) -> bytes:
    data = b""
    try:
        while len(data) <= LIMIT and (piece := os.read(fd, LIMIT + 1 - len(data))):
            data += piece
    except OSError as cause:
        raise SignatureError(f"{name}: cannot be read: {cause.strerror}") from cause
    return data


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > LIMIT:
        raise SignatureError(f"{name}: more than the {LIMIT} bytes that a key file or passphrase may have")
    return data
