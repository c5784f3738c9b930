"""The keys a host accepts: pinned, confirmed by a typed fingerprint, handed over, and never accepted again."""

import json
import os
import stat
from pathlib import Path

import pytest

from airgap.bundle.minisign import PublicKey
from airgap.bundle.signing import SecretKey, seal
from airgap.errors import HostUnsuitable, SignatureError, UsageError
from airgap.machine.daemon import Daemon
from airgap.machine.run import Runner
from airgap.offline import trust
from airgap.offline.host import Host
from airgap.offline.trust import TRUST, Trust

INDEX = b'{"schemaVersion":2,"manifests":[]}\n'
A, B, C, D = (SecretKey.generate() for _ in range(4))


class Clock:
    """It stands, and years off: nothing that is believed depends on it."""

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        return


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(run=Runner(), daemon=Daemon(), root=tmp_path, clock=Clock())


def sealed(secret: SecretKey) -> bytes:
    return seal(INDEX, secret, bundle="buildfarm", serial=1)


def believes(host: Host, secret: SecretKey) -> bool:
    try:
        Trust.load(host).check(INDEX, sealed(secret), name="site.tar")
    except SignatureError:
        return False
    return True


def files(host: Host) -> list[str]:
    return sorted(item.name for item in (host.root / TRUST[1:]).iterdir())


# ---- pinning -------------------------------------------------------------------------------------------------------------


def test_a_bare_host_trusts_nobody_and_says_how_a_first_key_is_given(host: Host):
    loaded = Trust.load(host)
    assert loaded == Trust()
    with pytest.raises(SignatureError, match=f"trusts no key yet; .* names key {A.public.name}, which proves") as caught:
        loaded.check(INDEX, sealed(A), name="site.tar")
    assert "--key" in (caught.value.hint or "")
    with pytest.raises(SignatureError, match="no signature"):
        loaded.check(INDEX, None, name="site.tar")
    assert not host.exists(TRUST)


def test_a_key_that_is_added_is_believed_and_others_are_not(host: Host):
    assert trust.add(host, A.public)
    key, said = Trust.load(host).check(INDEX, sealed(A), name="site.tar")
    assert (key, said.bundle, said.serial) == (A.public, "buildfarm", 1)
    assert not believes(host, B)


def test_several_keys_are_believed_at_once(host: Host):
    for secret in (A, B, C):
        trust.add(host, secret.public)
    assert all(believes(host, secret) for secret in (A, B, C))
    assert not believes(host, D)


def test_adding_again_changes_nothing(host: Host):
    assert trust.add(host, A.public)
    before = host.path(f"{TRUST}/{A.public.name}.pub").stat().st_mtime_ns
    assert not trust.add(host, A.public)
    assert host.path(f"{TRUST}/{A.public.name}.pub").stat().st_mtime_ns == before


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_are_readable_by_all_and_writable_by_the_owner_only(host: Host, umask: int):
    before = os.umask(umask)
    try:
        trust.add(host, A.public)
        trust.add(host, B.public)
        trust.revoke(host, B.public)
    finally:
        os.umask(before)
    folder = host.root / TRUST[1:]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(item.stat().st_mode) for item in folder.iterdir()} == {0o644}


def test_the_file_is_a_minisign_public_key_with_a_note(host: Host):
    trust.add(host, A.public)
    text = host.text(f"{TRUST}/{A.public.name}.pub")
    comment = f"untrusted comment: minisign public key {A.public.name} (1970-01-01T00:00:00Z added by hand)"
    assert text == f"{comment}\n{A.public.line}\n"
    (item,) = Trust.load(host).pinned
    assert (item.note, item.introduced_by) == ("1970-01-01T00:00:00Z added by hand", None)


def test_a_key_file_that_configuration_management_put_there_counts_under_any_name(host: Host):
    host.write(f"{TRUST}/our-site.pub", A.public.text().encode())
    host.write(f"{TRUST}/README", b"not a key")
    assert believes(host, A)
    trust.revoke(host, A.public)
    assert not believes(host, A)
    assert "our-site.pub" not in files(host)


def test_another_key_with_the_id_of_a_trusted_one_is_not_added(host: Host):
    trust.add(host, A.public)
    with pytest.raises(SignatureError, match="is not the one trusted as"):
        trust.add(host, PublicKey(A.public.id, B.public.key))
    assert not believes(host, B)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_key_that_others_may_write_is_worth_nothing(host: Host, mode: int):
    trust.add(host, A.public)
    place = host.path(f"{TRUST}/{A.public.name}.pub")
    place.chmod(mode)
    with pytest.raises(SignatureError, match="others may write it") as caught:
        Trust.load(host)
    assert caught.value.hint == f"chmod go-w {TRUST}/{A.public.name}.pub"


def test_a_folder_that_others_may_write_is_worth_nothing(host: Host):
    trust.add(host, A.public)
    (host.root / TRUST[1:]).chmod(0o777)
    with pytest.raises(SignatureError, match="others may write it"):
        Trust.load(host)


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 100, b"a" * 5000])
@pytest.mark.parametrize("name", ["x.pub", "x.revoked"])
def test_a_damaged_file_is_an_error_that_names_it_and_not_ignored(host: Host, name: str, data: bytes):
    trust.add(host, A.public)
    host.write(f"{TRUST}/{name}", data)
    with pytest.raises(SignatureError, match=f"{TRUST}/{name}"):
        Trust.load(host)


def test_a_folder_that_cannot_be_written_is_said(host: Host):
    (host.root / "etc").mkdir()
    (host.root / "etc/airgap").write_text("in the way")
    with pytest.raises(HostUnsuitable, match="cannot be written"):
        trust.add(host, A.public)


# ---- fingerprints and the key for once -----------------------------------------------------------------------------------


def test_the_fingerprint_that_was_typed_must_be_the_keys(host: Host):
    with pytest.raises(SignatureError, match="not what was typed"):
        trust.add(host, A.public, fingerprint=B.public.fingerprint)
    assert not host.exists(TRUST)
    assert trust.add(host, A.public, fingerprint=A.public.fingerprint.upper().replace("-", " "))


def test_a_key_is_given_as_file_as_word_or_as_fingerprint(tmp_path: Path):
    (tmp_path / "key.pub").write_text(A.public.text())
    for word in (str(tmp_path / "key.pub"), A.public.line, A.public.fingerprint):
        assert trust.given(word, signature=sealed(A)) == A.public


def test_a_fingerprint_of_another_key_makes_the_bundle_a_strangers(tmp_path: Path):
    with pytest.raises(SignatureError, match=f"stranger.*\n  {B.public.fingerprint}"):
        trust.given(A.public.fingerprint, signature=sealed(B), name="site.tar")
    with pytest.raises(SignatureError, match="no signature"):
        trust.given(A.public.fingerprint)
    with pytest.raises(UsageError):
        trust.given(str(tmp_path / "missing.pub"), signature=sealed(A))


def test_a_bundle_that_names_the_right_key_but_was_signed_by_another_is_refused(host: Host):
    lying = sealed(B).replace(B.public.line.encode(), A.public.line.encode())
    key = trust.given(A.public.fingerprint, signature=lying)
    with pytest.raises(SignatureError, match="stranger"):
        Trust.load(host).check(INDEX, lying, name="site.tar", also=key)


def test_a_key_for_once_is_believed_for_once_and_not_kept(host: Host):
    assert Trust.load(host).check(INDEX, sealed(A), name="site.tar", also=A.public)[0] == A.public
    assert not believes(host, A)
    assert not host.exists(TRUST)


def test_a_revoked_key_is_not_believed_even_when_it_is_given_for_once(host: Host):
    trust.revoke(host, A.public, reason="laptop stolen")
    for key in (A.public, PublicKey(B.public.id, A.public.key)):
        with pytest.raises(SignatureError, match=r"revoked on this host since 1970.*: laptop stolen"):
            Trust.load(host).check(INDEX, sealed(A), name="site.tar", also=key)


# ---- revocation ----------------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_with_since_and_reason_and_stays_in_the_list(host: Host):
    trust.add(host, A.public)
    trust.add(host, B.public)
    trust.revoke(host, A.public, reason="laptop stolen")
    with pytest.raises(SignatureError, match="revoked: since 1970-01-01T00:00:00Z, laptop stolen"):
        Trust.load(host).check(INDEX, sealed(A), name="site.tar")
    assert believes(host, B)
    (item,) = Trust.load(host).revoked
    assert (item.key, item.since, item.reason) == (A.public, "1970-01-01T00:00:00Z", "laptop stolen")


def test_a_revoked_key_cannot_come_back(host: Host):
    trust.add(host, A.public)
    trust.add(host, B.public)
    trust.revoke(host, A.public)
    again = PublicKey(C.public.id, A.public.key)
    for key in (A.public, again, PublicKey(A.public.id, D.public.key)):
        with pytest.raises(SignatureError, match="is revoked on this host"):
            trust.add(host, key)
        with pytest.raises(SignatureError, match="is revoked on this host"):
            trust.succeed(host, key.line, signer=B.public)
    host.write(f"{TRUST}/again.pub", again.text().encode())
    assert not believes(host, A)
    assert Trust.load(host).keys == (B.public,)


def test_a_kill_between_revocation_and_removal_leaves_nothing_accepted(host: Host):
    trust.add(host, A.public)
    pinned = host.read(f"{TRUST}/{A.public.name}.pub") or b""
    trust.revoke(host, A.public)
    host.write(f"{TRUST}/{A.public.name}.pub", pinned)
    assert not believes(host, A)


def test_a_key_can_be_revoked_before_anybody_trusts_it_and_twice(host: Host):
    trust.revoke(host, A.public, reason="first")
    trust.revoke(host, A.public, reason="second")
    assert [item.reason for item in Trust.load(host).revoked] == ["first"]
    with pytest.raises(SignatureError, match="first"):
        trust.add(host, A.public)


def test_two_revoked_keys_of_one_id_are_both_remembered(host: Host):
    twin = PublicKey(A.public.id, B.public.key)
    trust.revoke(host, A.public)
    trust.revoke(host, twin)
    assert {item.key for item in Trust.load(host).revoked} == {A.public, twin}


def test_a_key_is_named_by_id_or_fingerprint(host: Host):
    trust.add(host, A.public)
    trust.add(host, B.public)
    loaded = Trust.load(host)
    for which in (A.public.name, A.public.name.lower(), A.public.fingerprint):
        assert trust.named(loaded, which) == A.public
    with pytest.raises(UsageError) as caught:
        trust.named(loaded, C.public.name)
    assert A.public.name in (caught.value.hint or "")


@pytest.mark.parametrize("reason", ["a\nb", "\x1b[2J", "x" * 201])
def test_a_reason_unfit_for_a_terminal_is_refused_before_anything_changes(host: Host, reason: str):
    trust.add(host, A.public)
    with pytest.raises(UsageError):
        trust.revoke(host, A.public, reason=reason)
    assert believes(host, A)


def test_a_revocation_from_a_newer_airgap_or_with_unknown_keys_is_not_skipped(host: Host):
    trust.revoke(host, A.public)
    (item,) = Trust.load(host).revoked
    record = json.loads(host.text(item.path))
    for change in ({"airgap": 2}, {"scope": "all"}):
        host.write(item.path, json.dumps(record | change).encode())
        with pytest.raises(SignatureError, match=TRUST):
            Trust.load(host)


# ---- handing over --------------------------------------------------------------------------------------------------------


def test_a_pinned_key_announces_its_successor_and_both_are_believed_until_the_old_one_goes(host: Host):
    trust.add(host, A.public)
    assert trust.succeed(host, B.public.line, signer=A.public) == B.public
    assert trust.succeed(host, B.public.line, signer=A.public) is None
    assert believes(host, A)
    assert believes(host, B)
    (taken,) = [item for item in Trust.load(host).pinned if item.key == B.public]
    assert taken.introduced_by == A.public.name
    trust.revoke(host, A.public, reason="handed over")
    assert not believes(host, A)
    assert believes(host, B)


@pytest.mark.parametrize("state", ["never trusted", "revoked"])
def test_nobody_else_can_announce_one(host: Host, state: str):
    trust.add(host, C.public)
    if state == "revoked":
        trust.add(host, A.public)
        trust.revoke(host, A.public)
    with pytest.raises(SignatureError, match="cannot announce a successor"):
        trust.succeed(host, B.public.line, signer=A.public)
    assert not believes(host, B)


def test_a_pinned_key_cannot_replace_another_key_by_its_id(host: Host):
    trust.add(host, A.public)
    trust.add(host, B.public)
    with pytest.raises(SignatureError, match="is not the one trusted as"):
        trust.succeed(host, PublicKey(B.public.id, C.public.key).line, signer=A.public)
    assert believes(host, B)


def test_a_successor_that_is_no_key_is_refused(host: Host):
    trust.add(host, A.public)
    for text in ("", "nonsense", B.dump(None), "\x1b[2J"):
        with pytest.raises(SignatureError, match="the successor that key"):
            trust.succeed(host, text, signer=A.public)


def test_revoking_a_stolen_key_names_all_that_came_by_its_word(host: Host):
    trust.add(host, A.public)
    trust.add(host, D.public)
    trust.succeed(host, B.public.line, signer=A.public)
    trust.succeed(host, C.public.line, signer=B.public)
    followers = trust.revoke(host, A.public, reason="stolen")
    assert {item.key for item in followers} == {B.public, C.public}
