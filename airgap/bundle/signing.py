"""Signing and verifying: who vouches for an index.json, settled before a byte of it is parsed.

The only importer of cryptography. Files are minisign's (`minisign.py`), so that `minisign -V` on a host without us gives the same
answer. Both of its kinds verify, `Ed` over the bytes themselves and `ED` over their BLAKE2b-512; we write the second, as it does.

A bundle's signature is stricter than minisign asks in two places. Its trusted comment is a `Statement` naming bundle, serial and
index, so that it cannot stand beside another bundle. Its untrusted comment names the public key and nothing else: a typed
fingerprint finds the key there, and not one byte of the file can change without being refused.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from airgap.bundle.minisign import (
    AGAIN,
    HASHED,
    LIMIT,
    PLAIN,
    UNTRUSTED,
    PublicKey,
    Signature,
    Statement,
    damaged,
    decoded,
    encoded,
    id_text,
    key_lines,
    printable_line,
)
from airgap.errors import SignatureError
from airgap.oci import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SCRYPT, NO_KDF, BLAKE2B = b"Sc", b"\0\0", b"B2"

# libsodium's crypto_pwhash_scryptsalsa208sha256_{OPS,MEM}LIMIT_{MIN,SENSITIVE}: minisign writes the greater ones and halves them
# where memory is short. A file that asks for more is out to exhaust us, one that asks for less is easily guessed.
OPS_LEAST, OPS_MOST = 1 << 15, 1 << 25
MEMORY_LEAST, MEMORY_MOST = 16 << 20, 1 << 30

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class SecretKey:
    """Who vouches. Its secret is in no text of this object."""

    public: PublicKey
    _seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key, from the system's randomness."""
        seed = secrets.token_bytes(32)
        return cls(PublicKey(secrets.token_bytes(8), _public_of(seed)), seed)

    @classmethod
    def parse(cls, text: str | bytes, passphrase: bytes | None = None, *, name: str = "the secret key") -> SecretKey:
        """From a minisign secret key file, or its second line alone.

        SignatureError: not such a file, damaged, encrypted without a passphrase given, or with another passphrase. A passphrase
        that an unencrypted file does not need is ignored. Takes the memory that the file asks for, at most 1 GiB.
        """
        data = _secret_bytes(text, name)
        kdf, salt, hidden = data[2:4], data[6:38], data[54:]
        if kdf == SCRYPT:
            if passphrase is None:
                raise SignatureError(f"{name}: is encrypted, and no passphrase was given", hint="say where the passphrase is")
            operations, memory = (int.from_bytes(data[at : at + 8], "little") for at in (38, 46))
            hidden = _xor(hidden, _stretched(passphrase, salt, operations, memory, name))
        elif kdf != NO_KDF:
            raise SignatureError(f"{name}: its way of encryption is none of minisign's")
        id_, seed, public, checksum = hidden[:8], hidden[8:40], hidden[40:72], hidden[72:]
        # minisign leaves the checksum of an unencrypted key zero and does not look at it.
        whole = hmac.compare_digest(checksum, _checksum(hidden[:72])) or (kdf == NO_KDF and checksum == bytes(32))
        if not whole or _public_of(seed) != public:
            raise SignatureError(f"{name}: {'another passphrase, or ' if kdf == SCRYPT else ''}a damaged file")
        return cls(PublicKey(id_, public), seed)

    @staticmethod
    def encrypted(text: str | bytes, *, name: str = "the secret key") -> bool:
        """Whether this secret key file needs a passphrase; SignatureError if it is no such file."""
        return _secret_bytes(text, name)[2:4] != NO_KDF

    def dump(self, passphrase: bytes | None, *, operations: int = OPS_MOST, memory: int = MEMORY_MOST) -> str:
        """The secret key file: encrypted as minisign does it, or plainly readable if `passphrase` is None.

        `operations` and `memory` (bytes) are what one guess costs; halved, as minisign does, where there is less memory.
        SignatureError for an empty or overlong passphrase, or if even the least memory is not there.
        """
        clear = self.public.id + self._seed + self.public.key
        clear += _checksum(clear)
        if passphrase is None:
            return f"{UNTRUSTED}minisign secret key, not encrypted\n{encoded(PLAIN + NO_KDF + BLAKE2B + bytes(48) + clear)}\n"
        if not passphrase:
            raise SignatureError("the new secret key: an empty passphrase protects nothing", hint="leave it out, or give one")
        salt = secrets.token_bytes(32)
        while True:
            try:
                stream = _stretched(passphrase, salt, operations, memory, "the new secret key")
                break
            except _MemoryShortError:
                operations, memory = operations // 2, memory // 2
        limits = operations.to_bytes(8, "little") + memory.to_bytes(8, "little")
        hidden = PLAIN + SCRYPT + BLAKE2B + salt + limits + _xor(clear, stream)
        return f"{UNTRUSTED}minisign encrypted secret key\n{encoded(hidden)}\n"

    def sign(self, data: bytes) -> bytes:
        """Ed25519's 64 bytes over exactly these."""
        return _private(self._seed).sign(data)


@dataclass(frozen=True, slots=True)
class Verified:
    """These bytes and this comment are the key owner's word."""

    key: PublicKey
    trusted_comment: str


def sign(data: bytes, secret: SecretKey, *, trusted_comment: str) -> bytes:
    """The signature file for `data`, the same for the same input; SignatureError unless the comment is one printable line."""
    if not printable_line(trusted_comment) or len(trusted_comment.encode()) > LIMIT // 2:
        raise SignatureError(f"the trusted comment must be one printable line of at most {LIMIT // 2} bytes")
    over = secret.sign(hashlib.blake2b(data).digest())
    made = Signature(
        kind=HASHED, id=secret.public.id, over_data=over, trusted_comment=trusted_comment,
        over_comment=secret.sign(over + trusted_comment.encode()),
    )  # fmt: skip
    return made.text(secret.public)


def verify(
    data: bytes,
    signature: bytes | None,
    keys: Sequence[PublicKey],
    *,
    name: str = "the signature",
    revoked: Mapping[str, str] = _NOTHING,
) -> Verified:
    """One of `keys` signed exactly these bytes. `revoked` gives reasons by `PublicKey.name` and comes before `keys`.

    SignatureError (12) says which it is: no signature, a damaged one, one by a stranger, by a revoked key, or of other content.
    """
    if signature is None:
        raise SignatureError(f"{name}: there is no signature", hint="get a bundle that was packed with a key")
    found = Signature.parse(signature, name=name)
    key_name = id_text(found.id)
    if key_name in revoked:
        raise SignatureError(
            f"{name}: made by key {key_name}, which is revoked: {revoked[key_name]}",
            hint="get a bundle signed by a key that is still trusted",
        )
    candidates = [key for key in keys if key.id == found.id]
    if not candidates:
        known = ", ".join(key.name for key in keys) or "none"
        raise SignatureError(
            f"{name}: made by a stranger, key {key_name}; trusted here: {known}",
            hint="if you know this key from its owner: airgap trust add KEYFILE",
        )
    message = data if found.kind == PLAIN else hashlib.blake2b(data).digest()
    for key in candidates:
        if _holds(key, found.over_data, message) and _holds(key, found.over_comment, found.signed_comment):
            return Verified(key, found.trusted_comment)
    raise _complaint(found, candidates, message, name)


def _complaint(found: Signature, keys: Sequence[PublicKey], message: bytes, name: str) -> SignatureError:
    """Say which part is wrong: the second signature vouches for the first, so one of them alone tells where the change is."""
    for key in keys:
        if _holds(key, found.over_comment, found.signed_comment):
            return SignatureError(f"{name}: key {key.name} signed other content: what it signed was changed", hint=AGAIN)
        if _holds(key, found.over_data, message):
            return SignatureError(f"{name}: damaged: its trusted comment was changed", hint=AGAIN)
    return SignatureError(f"{name}: damaged: it names key {keys[0].name}, which did not make it", hint=AGAIN)


def seal(index: bytes, secret: SecretKey, *, bundle: str, serial: int) -> bytes:
    """The bytes of index.json.minisig for this index.json."""
    return sign(index, secret, trusted_comment=statement(index, bundle=bundle, serial=serial).text())


def statement(index: bytes, *, bundle: str, serial: int) -> Statement:
    """What a signature of this index.json has to say; SignatureError for a bundle name that it could not."""
    made = Statement(bundle, serial, Digest.of(index))
    if Statement.parse(made.text()) != made:
        raise SignatureError(f"a bundle called {bundle[:60]!r} with serial {serial} cannot be signed")
    return made


def check(
    index: bytes, signature: bytes | None, keys: Sequence[PublicKey], *, name: str, revoked: Mapping[str, str] = _NOTHING
) -> tuple[PublicKey, Statement]:
    """Who vouches for this index.json, and as what; nothing of it was parsed. `Statement.insist` then holds the lock against it.

    SignatureError as `verify`, and for a signature that is right but not in the one form that `seal` writes.
    """
    verified = verify(index, signature, keys, name=name, revoked=revoked)
    said = Statement.parse(verified.trusted_comment)
    if said is None:
        raise SignatureError(
            f"{name}: key {verified.key.name} signed these bytes, but not as a bundle of airgap", hint="sign it with airgap pack"
        )
    if said.index != Digest.of(index):
        raise SignatureError(f"{name}: signed as index {said.index}, but this one is {Digest.of(index)}", hint=AGAIN)
    if signature != Signature.parse(signature or b"", name=name).text(verified.key):
        damaged(name, "its untrusted comment was changed")
    return verified.key, said


# ---- bytes -----------------------------------------------------------------------------------------------------------


def _secret_bytes(text: str | bytes, name: str) -> bytes:
    data = decoded(key_lines(text, name)[1], 158, f"{name}: not a minisign secret key")
    if data[:2] != PLAIN or data[4:6] != BLAKE2B:
        raise SignatureError(f"{name}: not an Ed25519 secret key of minisign")
    return data


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(PLAIN + data, digest_size=32).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


# ---- cryptography, imported where it is used: most verbs never sign or verify -----------------------------------------


class _MemoryShortError(SignatureError):
    """There is not the memory that this passphrase is stretched with."""


def _stretched(passphrase: bytes, salt: bytes, operations: int, memory: int, name: str) -> bytes:
    """What hides the 104 secret bytes: scrypt with the parameters that libsodium's pickparams makes of its two limits."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    if len(passphrase) > 1023 or b"\0" in passphrase or b"\n" in passphrase:
        raise SignatureError(f"{name}: a passphrase is one line of at most 1023 bytes")
    if not (OPS_LEAST <= operations <= OPS_MOST and MEMORY_LEAST <= memory <= MEMORY_MOST):
        raise SignatureError(f"{name}: checking its passphrase would take {operations} operations, {memory} bytes: out of bounds")
    few = operations < memory // 32
    most = operations // 32 if few else memory // 1024
    log = next(log for log in range(1, 63) if 1 << log > most // 2)
    parallel = 1 if few else (operations // 4 >> log) // 8
    try:
        return Scrypt(salt=salt, length=104, n=1 << log, r=8, p=parallel).derive(passphrase)
    except MemoryError as cause:
        raise _MemoryShortError(f"{name}: checking its passphrase takes {memory >> 20} MiB of memory") from cause


def _private(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


def _public_of(seed: bytes) -> bytes:
    return _private(seed).public_key().public_bytes_raw()


def _holds(key: PublicKey, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
