"""Signatures: minisign's own tool and ours agree, and nothing that was touched is believed."""

import base64
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airgap.bundle.minisign import LIMIT, PublicKey, Signature, Statement
from airgap.bundle.signing import SecretKey, check, seal, sign, statement, verify
from airgap.errors import SignatureError
from airgap.oci import Digest

MINISIGN = shutil.which("minisign")
needs_minisign = pytest.mark.skipif(MINISIGN is None, reason="minisign is not installed (apt-get install minisign)")

INDEX = b'{"schemaVersion":2,"manifests":[]}\n'
SECRET = SecretKey.generate()
PUBLIC = SECRET.public
OTHER = SecretKey.generate()
SEALED = seal(INDEX, SECRET, bundle="buildfarm", serial=202611241613)

# The least that is accepted: what is shown about scrypt does not need a gigabyte.
CHEAP = {"operations": 1 << 15, "memory": 16 << 20}


def minisign(*argv: str, given: str = "", cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["minisign", *argv], cwd=cwd, input=given, capture_output=True, text=True, timeout=60, check=False)


def refused(data: bytes, signature: bytes | None, keys: tuple[PublicKey, ...] = (PUBLIC,), **rest: object) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        check(data, signature, keys, name="site.tar", **rest)
    assert caught.value.exit_code == 12
    assert caught.value.message.startswith("site.tar: ")
    return caught.value


# ---- ours and minisign's -----------------------------------------------------------------------------------------------


@needs_minisign
@pytest.mark.parametrize("how", ["file", "word", "prehashed only"])
def test_minisign_verifies_what_we_sign_and_shows_our_statement(tmp_path: Path, how: str):
    (tmp_path / "index.json").write_bytes(INDEX)
    (tmp_path / "index.json.minisig").write_bytes(SEALED)
    (tmp_path / "key.pub").write_text(PUBLIC.text(note="for the lab"))
    by = {"file": ["-p", "key.pub"], "word": ["-P", PUBLIC.line], "prehashed only": ["-H", "-p", "key.pub"]}[how]
    done = minisign("-V", *by, "-m", "index.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Trusted comment: airgap bundle buildfarm serial 202611241613 index {Digest.of(INDEX)}" in done.stdout


@needs_minisign
def test_minisign_refuses_what_we_refuse(tmp_path: Path):
    (tmp_path / "key.pub").write_text(PUBLIC.text())
    for name, data, signature in [
        ("content", INDEX + b" ", SEALED),
        ("comment", INDEX, SEALED.replace(b"serial 2", b"serial 3")),
        ("stranger", INDEX, seal(INDEX, OTHER, bundle="buildfarm", serial=1)),
    ]:
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.minisig").write_bytes(signature)
        assert minisign("-V", "-p", "key.pub", "-m", name, cwd=tmp_path).returncode == 1, name
        refused(data, signature)


@needs_minisign
@pytest.mark.parametrize("legacy", [False, True])
def test_we_read_minisigns_keys_and_verify_its_signatures_of_both_kinds(tmp_path: Path, legacy: bool):
    assert minisign("-G", "-W", "-p", "a.pub", "-s", "a.key", cwd=tmp_path).returncode == 0
    (tmp_path / "file").write_bytes(INDEX)
    assert minisign("-S", "-W", *(["-l"] if legacy else []), "-s", "a.key", "-m", "file", cwd=tmp_path).returncode == 0
    public = PublicKey.parse((tmp_path / "a.pub").read_text())
    assert SecretKey.parse((tmp_path / "a.key").read_text()).public == public
    signature = (tmp_path / "file.minisig").read_bytes()
    assert Signature.parse(signature).kind == (b"Ed" if legacy else b"ED")
    verified = verify(INDEX, signature, [OTHER.public, public])
    assert verified.key == public
    assert "file:file" in verified.trusted_comment
    with pytest.raises(SignatureError, match="other content"):
        verify(INDEX + b" ", signature, [public])


@needs_minisign
def test_minisign_signs_with_our_plain_key(tmp_path: Path):
    (tmp_path / "our.key").write_text(SECRET.dump(None))
    (tmp_path / "file").write_bytes(INDEX)
    done = minisign("-S", "-W", "-s", "our.key", "-m", "file", "-t", "hello", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert verify(INDEX, (tmp_path / "file.minisig").read_bytes(), [PUBLIC]).trusted_comment == "hello"


def test_minisigns_own_passphrase_protection_of_a_gigabyte_is_read():
    available = re.search(r"MemAvailable: +([0-9]+) kB", Path("/proc/meminfo").read_text())
    if not available or int(available[1]) < 3 << 19:
        pytest.skip("needs 1.5 GiB of memory")
    # Made by minisign 0.11: `printf 'pw\npw\n' | minisign -G -p b.pub -s b.key`.
    line = (
        "RWRTY0Iy7DPuMhAKgebzw2ur/tLIu4OJdwxa681GHsUReEtXlGYAAAACAAAAAAAAAEAAAAAA6iUgC653yxJB0YpHdfD4Ks9cp7q/3poCPt"
        "cl9TpLp8LX+K+MsLjcmWmMVMo5OaMILOiRN1avHS6ToLQ/V8tbVe6ZP/OV8pYEuMdVNWDef2Se8a0aDBe7aLgsOmYevEQOs1g2nc36hkc="
    )
    assert SecretKey.encrypted(line)
    assert SecretKey.parse(line, b"pw").public == PublicKey.parse("RWTWsvMEJHl88UqdjrbS/MjnEFzDabfOFB5eLrpDbten7aOgQ3yEYm/l")


@needs_minisign
def test_minisign_signs_with_our_encrypted_key(tmp_path: Path):
    # With the least parameters, which minisign takes from the file.
    (tmp_path / "our.key").write_text(SECRET.dump(b"geheim", **CHEAP))
    (tmp_path / "file").write_bytes(INDEX)
    done = minisign("-S", "-s", "our.key", "-m", "file", given="geheim\n", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert verify(INDEX, (tmp_path / "file.minisig").read_bytes(), [PUBLIC]).key == PUBLIC


@needs_minisign
def test_the_key_id_is_shown_as_minisign_shows_it(tmp_path: Path):
    minisign("-G", "-W", "-p", "a.pub", "-s", "a.key", cwd=tmp_path)
    text = (tmp_path / "a.pub").read_text()
    key = PublicKey.parse(text)
    assert int(text.splitlines()[0].rpartition(" ")[2], 16) == int(key.name, 16)


def test_the_fingerprint_can_be_had_with_coreutils_alone(tmp_path: Path):
    (tmp_path / "key.pub").write_text(PUBLIC.text())
    shown = subprocess.run(
        ["sh", "-c", "tail -n 1 key.pub | base64 -d | sha256sum"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert shown[:32] == PUBLIC.fingerprint.replace("-", "")


def test_a_signature_kept_from_the_first_day_verifies_for_ever():
    # Made by minisign 0.11 (-W, -S) over b"hello": a change of format on our side would show here without minisign.
    key = PublicKey.parse("RWR3noPZYWAIyQcnlVt4yfaSuv/fBPrlUv1aV64Y2cFGA3wKSEMPea0v")
    signature = (
        b"untrusted comment: signature from minisign secret key\n"
        b"RUR3noPZYWAIyXlxU5yFx6KK0TJiLTAybinlzNcKod3u9a9/U4lioPwyrCOXWshAvfGmAB0VM553ntH6787nfskbEZ1TVucuBAk=\n"
        b"trusted comment: timestamp:1795553397\tfile:f\thashed\n"
        b"ov2LM57f+VCeauonk3f5/ioYkM5QQs9mrifcgVCThqOPamOM1RnB5cq0xgNAEyi+ftuhHAdRDhtU+RxNQpIpAQ==\n"
    )
    assert verify(b"hello", signature, [key]).key.name == "C9086061D9839E77"


# ---- what is believed, and what is not -----------------------------------------------------------------------------------


def test_a_sealed_index_says_who_and_what():
    key, said = check(INDEX, SEALED, [OTHER.public, PUBLIC], name="site.tar")
    assert key == PUBLIC
    assert said == Statement("buildfarm", 202611241613, Digest.of(INDEX))
    assert said == statement(INDEX, bundle="buildfarm", serial=202611241613)
    said.insist("buildfarm", 202611241613, name="site.tar")


def test_the_same_index_and_key_give_the_same_bytes():
    assert seal(INDEX, SECRET, bundle="buildfarm", serial=202611241613) == SEALED


def test_no_signature():
    assert "no signature" in refused(INDEX, None).message


def test_a_signature_by_a_stranger_names_the_stranger_and_who_is_trusted():
    error = refused(INDEX, seal(INDEX, OTHER, bundle="buildfarm", serial=1))
    assert OTHER.public.name in error.message
    assert PUBLIC.name in error.message
    assert "stranger" in error.message


def test_nobody_is_trusted_without_keys():
    assert "trusted here: none" in refused(INDEX, SEALED, ()).message


def test_a_stranger_with_the_id_of_a_trusted_key_is_no_friend():
    forger = SecretKey(PublicKey(PUBLIC.id, OTHER.public.key), OTHER._seed)
    assert "which did not make it" in refused(INDEX, seal(INDEX, forger, bundle="buildfarm", serial=1)).message


def test_other_content():
    assert "other content" in refused(INDEX.replace(b"2", b"3"), SEALED).message


def test_a_revoked_key_is_refused_with_its_reason_even_if_it_is_among_the_trusted():
    error = refused(INDEX, SEALED, revoked={PUBLIC.name: "laptop stolen"})
    assert "revoked" in error.message
    assert "laptop stolen" in error.message


def test_a_changed_trusted_comment():
    assert "trusted comment was changed" in refused(INDEX, SEALED.replace(b"serial 2", b"serial 3")).message


def test_a_signature_that_is_right_but_not_for_a_bundle():
    assert "not as a bundle" in refused(INDEX, sign(INDEX, SECRET, trusted_comment="timestamp:1 file:index.json")).message


def test_a_statement_about_another_index():
    other = Statement("buildfarm", 1, Digest.of(b"other"))
    assert "signed as index" in refused(INDEX, sign(INDEX, SECRET, trusted_comment=other.text())).message


@pytest.mark.parametrize(("bundle", "serial"), [("buildfarm", 7), ("other", 202611241613)])
def test_a_statement_holds_the_lock_to_its_name_and_serial(bundle: str, serial: int):
    _, said = check(INDEX, SEALED, [PUBLIC], name="site.tar")
    with pytest.raises(SignatureError, match=f"serial 202611241613, but holds bundle {bundle}, serial {serial}"):
        said.insist(bundle, serial, name="site.tar")


@pytest.mark.parametrize("bundle", ["two words", "line\nbreak", "", "x" * 201])
def test_a_bundle_name_that_no_statement_could_carry_is_not_signed(bundle: str):
    with pytest.raises(SignatureError):
        seal(INDEX, SECRET, bundle=bundle, serial=1)


# ---- each byte ---------------------------------------------------------------------------------------------------------


def test_every_byte_of_a_signature_counts():
    for at in range(len(SEALED)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(SEALED)
            changed[at] ^= bit
            refused(INDEX, bytes(changed))


def test_every_cut_and_every_addition_is_refused():
    for at in range(len(SEALED)):
        refused(INDEX, SEALED[:at])
    for more in (b"\n", b" ", b"x", SEALED):
        refused(INDEX, SEALED + more)
        with pytest.raises(SignatureError, match="not the four lines"):
            verify(INDEX, SEALED + more, [PUBLIC])


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(SEALED) - 1), to=st.binary(max_size=4), drop=st.integers(0, 4))
def test_no_splice_of_a_signature_is_accepted(at: int, to: bytes, drop: int):
    changed = SEALED[:at] + to + SEALED[at + drop :]
    if changed != SEALED:
        refused(INDEX, changed)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=600))
def test_rubbish_is_refused_as_signature_and_as_keys(data: bytes):
    refused(INDEX, data)
    for parse in (PublicKey.parse, SecretKey.parse):
        with pytest.raises(SignatureError):
            parse(data)


def test_every_byte_of_a_public_key_file_counts_where_it_means_something():
    text = PUBLIC.text().encode()
    words = len(b"untrusted comment: ")
    for at in range(len(text)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(text)
            changed[at] ^= bit
            try:
                key = PublicKey.parse(bytes(changed))
            except SignatureError:
                continue
            # Words of the comment, or the end of the file, mean nothing to minisign; then the key must be the same.
            if key == PUBLIC:
                assert words <= at < text.index(b"\n") or at == len(text) - 1, at
            else:
                refused(INDEX, SEALED, (key,))


def test_a_comment_that_names_another_key_is_refused():
    with pytest.raises(SignatureError, match="its comment names key"):
        PublicKey.parse(PUBLIC.text().replace(PUBLIC.name, OTHER.public.name))


def test_a_plain_secret_key_file_of_ours_is_refused_with_any_byte_of_the_key_changed():
    line = SECRET.dump(None).splitlines()[1]
    data = base64.b64decode(line)
    for at in (*range(6), *range(54, len(data))):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(SignatureError):
            SecretKey.parse(base64.b64encode(changed))


@pytest.mark.parametrize("size", [LIMIT + 1, 50_000_000])
def test_what_is_too_big_is_refused_at_once(size: int):
    started = time.monotonic()
    for data in (b"untrusted comment: " + b"a" * size, b"A" * size):
        refused(INDEX, data)
        for parse in (PublicKey.parse, SecretKey.parse):
            with pytest.raises(SignatureError, match="larger than"):
                parse(data)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("comment", ["\x1b[2J", "a\nb", "a\rb", "\x00", "\u202eltr", "\x7f", "\x9b31m", "x" * 3000])
def test_a_comment_unfit_for_a_terminal_is_neither_written_nor_read(comment: str):
    with pytest.raises(SignatureError):
        sign(INDEX, SECRET, trusted_comment=comment)
    # Signed by a trusted key all the same:
    over = SECRET.sign(INDEX)
    both = SECRET.sign(over + comment.encode())
    forged = Signature(kind=b"Ed", id=PUBLIC.id, over_data=over, trusted_comment=comment, over_comment=both)
    if len(comment) < 3000:
        assert "damaged" in refused(INDEX, forged.text(PUBLIC)).message
    refused(INDEX, SEALED.replace(b"untrusted comment: ", b"untrusted comment: " + comment.encode(), 1))


@pytest.mark.parametrize("line", [1, 3])
def test_the_unused_bits_of_base64_are_no_second_spelling(line: int):
    lines = SEALED.decode().split("\n")
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = lines[line].rstrip("=")
    lines[line] = body[:-1] + digits[digits.index(body[-1]) ^ 1] + "=" * (len(lines[line]) - len(body))
    changed = "\n".join(lines)
    assert base64.b64decode(changed.split("\n")[line]) == base64.b64decode(SEALED.decode().split("\n")[line])
    with pytest.raises(SignatureError, match="damaged"):
        verify(INDEX, changed.encode(), [PUBLIC])


# ---- secret keys -------------------------------------------------------------------------------------------------------


def test_a_key_comes_back_from_its_file_with_and_without_passphrase():
    for passphrase in (None, b"geheim", "schlüssel".encode()):
        text = SECRET.dump(passphrase, **CHEAP)
        again = SecretKey.parse(text, passphrase)
        assert again.public == PUBLIC
        assert seal(INDEX, again, bundle="buildfarm", serial=202611241613) == SEALED
        assert SecretKey.encrypted(text) == (passphrase is not None)
        assert SecretKey.parse(text.splitlines()[1], passphrase).public == PUBLIC


def test_keys_that_are_made_differ():
    assert len({SecretKey.generate().public.fingerprint for _ in range(20)}) == 20


def test_the_wrong_passphrase_and_none():
    text = SECRET.dump(b"geheim", **CHEAP)
    for wrong in (b"Geheim", b"", b"geheim "):
        with pytest.raises(SignatureError, match="another passphrase"):
            SecretKey.parse(text, wrong, name="k")
    with pytest.raises(SignatureError, match="no passphrase was given"):
        SecretKey.parse(text)


@pytest.mark.parametrize("passphrase", [b"", b"x" * 1024, b"a\nb", b"a\0b"])
def test_a_passphrase_that_minisign_could_not_be_told_is_not_used(passphrase: bytes):
    with pytest.raises(SignatureError):
        SECRET.dump(passphrase, **CHEAP)


@pytest.mark.parametrize(
    ("operations", "memory"),
    [(1 << 26, 1 << 30), (1 << 25, (1 << 30) + 1), (2**64 - 1,) * 2, (0, 0), (1 << 15, (16 << 20) - 1), (1 << 14, 16 << 20)],
)
def test_a_key_file_cannot_ask_for_more_memory_or_time_than_minisigns_own(operations: int, memory: int):
    data = bytearray(base64.b64decode(SECRET.dump(b"geheim", **CHEAP).splitlines()[1]))
    data[38:46] = operations.to_bytes(8, "little")
    data[46:54] = memory.to_bytes(8, "little")
    started = time.monotonic()
    with pytest.raises(SignatureError, match="out of bounds"):
        SecretKey.parse(base64.b64encode(data), b"geheim")
    assert time.monotonic() - started < 0.5


def test_the_secret_is_in_no_text():
    seed = SECRET._seed
    shown = f"{SECRET!r} {SECRET} {[SECRET]} {SECRET.public!r}".encode()
    assert seed not in shown
    assert repr(seed).encode() not in shown
    assert seed.hex().encode() not in shown
    damaged = SECRET.dump(None).replace("\n", "!\n")
    with pytest.raises(SignatureError) as caught:
        SecretKey.parse(damaged)
    chain = [str(caught.value), repr(caught.value.__cause__), str(caught.value.hint)]
    assert not any(damaged.splitlines()[1][90:120] in text for text in chain)


# ---- fingerprints ------------------------------------------------------------------------------------------------------


def test_a_fingerprint_may_be_typed_in_many_ways_but_whole():
    shown = PUBLIC.fingerprint
    assert len(shown.split("-")) == 8
    for typed in (shown, shown.upper(), shown.replace("-", ""), shown.replace("-", " "), f" {shown.replace('-', ':')}\n"):
        assert PUBLIC.matches(typed)
    for typed in ("", shown[:-1], shown + "0", OTHER.public.fingerprint, PUBLIC.name, "x" * 10_000_000):
        assert not PUBLIC.matches(typed)
