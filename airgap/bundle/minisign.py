"""minisign's files and our words in them, as values: public key, signature, and the statement that a bundle is signed with.

Formats only, to the byte (jedisct1/minisign, src/minisign.h): what is parsed here proves nothing yet, `signing` does. Bytes have
one spelling: base64 with other padding bits, a fifth line or control characters are refused.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final, NoReturn

from airgap.errors import SignatureError
from airgap.oci import Digest

LIMIT: Final = 4096
"""Bytes that a key or signature file may have; minisign's own have some 350."""

SUCCESSOR: Final = "airgap.successor-key"
"""The annotation of index.json that carries the public key line of the signer's successor."""

PLAIN: Final = b"Ed"
"""Ed25519, and of signatures those over the bytes themselves; minisign calls them legacy."""
HASHED: Final = b"ED"
"""Signatures over the bytes' BLAKE2b-512."""

UNTRUSTED: Final = "untrusted comment: "
TRUSTED: Final = "trusted comment: "
AGAIN: Final = "copy the bundle again; if it stays so, ask whoever packed it and do not install it"

_ANNOUNCEMENT: Final = "airgap bundle signature, public key "


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who may vouch. `id` is minisign's 8 bytes, chosen freely by who made the key; `key` is Ed25519's 32."""

    id: bytes
    key: bytes

    @classmethod
    def parse(cls, text: str | bytes, *, name: str = "the public key") -> PublicKey:
        """From a minisign public key file, or its second line alone; SignatureError for anything else.

        Where the comment names a key id, as minisign's own does, it must be this key's.
        """
        comment, line = key_lines(text, name)
        data = decoded(line, 42, f"{name}: not a minisign public key")
        if data[:2] != PLAIN:
            raise SignatureError(f"{name}: not an Ed25519 public key of minisign")
        found = cls(data[2:10], data[10:])
        named = re.match(r"minisign public key ([0-9A-Fa-f]{1,16})\b", comment)
        if named and int(named[1], 16) != int(found.name, 16):
            raise SignatureError(f"{name}: its comment names key {named[1]}, but it holds key {found.name}", hint="get it again")
        return found

    @property
    def name(self) -> str:
        """The id as minisign shows it, for people to tell keys apart; it proves nothing, the fingerprint does."""
        return id_text(self.id)

    @property
    def line(self) -> str:
        """The key as one word: the second line of its file, what `minisign -P` takes."""
        return encoded(PLAIN + self.id + self.key)

    @property
    def fingerprint(self) -> str:
        """128 bits to read out and type: `tail -n 1 key.pub | base64 -d | sha256sum` shows the same 32 digits first."""
        digits = hashlib.sha256(PLAIN + self.id + self.key).hexdigest()[:32]
        return "-".join(digits[at : at + 4] for at in range(0, 32, 4))

    def text(self, *, note: str = "") -> str:
        """The public key file, with a note of ours in its comment."""
        return f"{UNTRUSTED}minisign public key {self.name}{f' ({note})' if note else ''}\n{self.line}\n"

    def matches(self, typed: str) -> bool:
        """Whether a person typed this key's whole fingerprint; case, blanks, dashes and colons do not matter."""
        return fingerprint_digits(typed) == self.fingerprint.replace("-", "")


def fingerprint_digits(typed: str) -> str | None:
    """The 32 digits of a typed fingerprint, or None if it is none."""
    digits = re.sub(r"[\s:-]", "", typed[:200]).lower()
    return digits if re.fullmatch(r"[0-9a-f]{32}", digits) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature file. `announced` is the public key that a signature of ours names."""

    kind: bytes
    id: bytes
    over_data: bytes
    trusted_comment: str
    over_comment: bytes
    announced: PublicKey | None = None

    @classmethod
    def parse(cls, data: bytes, *, name: str = "the signature") -> Signature:
        """From the four lines that minisign writes; SignatureError for anything else, and for comments unfit for a terminal."""
        if len(data) > LIMIT:
            damaged(name, f"{len(data)} bytes are more than the {LIMIT} it may have")
        try:
            lines = data.decode("utf-8").split("\n")
        except UnicodeDecodeError as cause:
            raise SignatureError(f"{name}: damaged: not text", hint=AGAIN) from cause
        if len(lines) != 5 or lines[4] or not lines[0].startswith(UNTRUSTED) or not lines[2].startswith(TRUSTED):
            damaged(name, "not the four lines of a minisign signature")
        untrusted, trusted = lines[0][len(UNTRUSTED) :], lines[2][len(TRUSTED) :]
        if not (printable_line(untrusted) and printable_line(trusted)):
            damaged(name, "control characters in its comments")
        head = decoded(lines[1], 74, f"{name}: damaged: its second line is no signature")
        if head[:2] not in (PLAIN, HASHED):
            damaged(name, "its algorithm is none of minisign's")
        announced = None
        if untrusted.startswith(_ANNOUNCEMENT):
            announced = PublicKey.parse(untrusted[len(_ANNOUNCEMENT) :], name=f"{name}: damaged: the key in its comment")
        return cls(
            kind=head[:2], id=head[2:10], over_data=head[10:], trusted_comment=trusted, announced=announced,
            over_comment=decoded(lines[3], 64, f"{name}: damaged: its fourth line is no signature"),
        )  # fmt: skip

    @property
    def signed_comment(self) -> bytes:
        """What the second signature is over: the first one and the trusted comment."""
        return self.over_data + self.trusted_comment.encode()

    def text(self, key: PublicKey) -> bytes:
        """The signature file as we write it, naming the key that made it."""
        lines = (
            f"{UNTRUSTED}{_ANNOUNCEMENT}{key.line}",
            encoded(self.kind + self.id + self.over_data),
            f"{TRUSTED}{self.trusted_comment}",
            encoded(self.over_comment),
        )
        return "".join(f"{line}\n" for line in lines).encode()


@dataclass(frozen=True, slots=True)
class Statement:
    """What a bundle's signature says in words: which bundle, which serial, which index.json."""

    bundle: str
    serial: int
    index: Digest

    def text(self) -> str:
        """As the trusted comment has it."""
        return f"airgap bundle {self.bundle} serial {self.serial} index {self.index}"

    @classmethod
    def parse(cls, text: str) -> Statement | None:
        """From a trusted comment; None if it is another tool's."""
        found = re.fullmatch(r"airgap bundle (\S{1,200}) serial ([1-9][0-9]{0,18}) index (sha256:[0-9a-f]{64})", text, re.ASCII)
        return cls(found[1], int(found[2]), Digest.parse(found[3])) if found else None

    def insist(self, bundle: str, serial: int, *, name: str) -> None:
        """SignatureError unless the bundle's lock says the same about itself."""
        if (self.bundle, self.serial) != (bundle, serial):
            raise SignatureError(
                f"{name}: signed as bundle {self.bundle}, serial {self.serial}, but holds bundle {bundle}, serial {serial}",
                hint="do not install it; ask whoever packed it",
            )


# ---- bytes and lines -------------------------------------------------------------------------------------------------


def damaged(name: str, why: str) -> NoReturn:
    """Refuse a signature that is not as it was made."""
    raise SignatureError(f"{name}: damaged: {why}", hint=AGAIN)


def id_text(id_: bytes) -> str:
    """A key id as minisign prints it."""
    return f"{int.from_bytes(id_, 'little'):016X}"


def encoded(data: bytes) -> str:
    """Base64, as minisign writes it."""
    return base64.b64encode(data).decode()


def decoded(line: str, size: int, complaint: str) -> bytes:
    """Exactly `size` bytes from their one base64 form; SignatureError with this complaint otherwise."""
    try:
        data = base64.b64decode(line.encode(), validate=True)
    except ValueError as cause:
        raise SignatureError(complaint) from cause
    # Two or four bits of the last digit mean nothing; whoever sets them would have a second spelling of the same bytes.
    if len(data) != size or encoded(data) != line:
        raise SignatureError(complaint)
    return data


def printable_line(text: str) -> bool:
    """Whether a terminal shows this as one harmless line; minisign's own comments have tabs."""
    return text.replace("\t", " ").isprintable()


def key_lines(text: str | bytes, name: str) -> tuple[str, str]:
    """Comment (may be empty) and base64 line of a key file. What the file holds is never in the complaint."""
    if len(text) > LIMIT:
        raise SignatureError(f"{name}: larger than the {LIMIT} bytes of a key file")
    words = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    # An editor on Windows may have touched it on the way; \r and a missing last newline change nothing.
    lines = [line.strip() for line in words.strip().split("\n")]
    if len(lines) == 1 and not lines[0].startswith(UNTRUSTED):
        return "", lines[0]
    if len(lines) != 2 or not lines[0].startswith(UNTRUSTED) or not printable_line(lines[0]):
        raise SignatureError(f"{name}: not the two lines of a minisign key file")
    return lines[0][len(UNTRUSTED) :], lines[1]
