"""The packer's key: made once, for its owner's eyes only, and reached by file, descriptor, variable or program."""

import os
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airgap.bundle.signing import SecretKey, check, sign
from airgap.errors import AirgapError, SignatureError, UsageError
from airgap.machine.run import Runner
from airgap.online.keys import (
    CommandSigner,
    default_key,
    new_key,
    open_signer,
    public_file,
    read_passphrase,
    read_public,
    read_secret,
    shown_key,
)

INDEX = b'{"schemaVersion":2,"manifests":[]}\n'
SECRET = SecretKey.generate()
PLAIN = SECRET.dump(None)
# scrypt's least, so that tests are quick; the file says so itself.
ENCRYPTED = SECRET.dump(b"geheim", operations=1 << 15, memory=16 << 20)
RUN = Runner()
needs_minisign = pytest.mark.skipif(not shutil.which("minisign"), reason="minisign is not installed (apt-get install minisign)")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return private(tmp_path / "key", PLAIN)


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@contextmanager
def descriptor(data: bytes) -> Iterator[str]:
    """An open pipe with this data in it, as the shell's 3<<<… or a CI runner gives it."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as file, _ignored_broken_pipe():
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield f"fd:{reading}"
    finally:
        os.close(reading)
        thread.join()


@contextmanager
def _ignored_broken_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        return


def signs(signer_word: str | Path, **rest: object) -> bool:
    signer = open_signer(signer_word, run=RUN, **({"environ": {}} | rest))
    signature = signer.seal(INDEX, bundle="buildfarm", serial=7)
    return check(INDEX, signature, [signer.public], name="x")[0] == SECRET.public


# ---- where a key is ------------------------------------------------------------------------------------------------------


def test_the_default_is_in_the_users_configuration(tmp_path: Path):
    assert default_key({}, tmp_path) == tmp_path / ".config/airgap/key"
    assert default_key({"XDG_CONFIG_HOME": "/elsewhere"}, tmp_path) == Path("/elsewhere/airgap/key")


def test_a_key_is_reached_by_file_descriptor_and_variable(key: Path):
    assert signs(key)
    assert signs(str(key))
    assert signs("env:KEY", environ={"KEY": PLAIN})
    assert signs("env:KEY", environ={"KEY": PLAIN.splitlines()[1]})
    with descriptor(PLAIN.encode()) as word:
        assert signs(word)


def test_a_passphrase_is_reached_in_the_same_ways(tmp_path: Path):
    key = private(tmp_path / "key", ENCRYPTED)
    assert signs(key, passphrase=str(private(tmp_path / "pass", "geheim\n")))
    assert signs(key, passphrase="env:PASS", environ={"PASS": "geheim"})
    with descriptor(b"geheim\r\n") as word:
        assert signs(key, passphrase=word)
    assert signs("env:KEY", passphrase="env:PASS", environ={"KEY": ENCRYPTED, "PASS": "geheim"})


def test_a_person_is_asked_for_the_passphrase_only_if_there_is_need_and_no_other_way(tmp_path: Path, key: Path):
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "geheim"

    assert signs(key, ask=ask)
    encrypted = private(tmp_path / "encrypted", ENCRYPTED)
    assert signs(encrypted, ask=ask, passphrase="env:PASS", environ={"PASS": "geheim"})
    assert asked == []
    assert signs(encrypted, ask=ask)
    assert asked == [f"passphrase of {encrypted}"]
    with pytest.raises(SignatureError, match="nobody to ask") as caught:
        open_signer(encrypted, environ={}, run=RUN)
    assert "--passphrase" in (caught.value.hint or "")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_that_others_may_touch_is_refused_with_the_cure(key: Path, mode: int):
    key.chmod(mode)
    with pytest.raises(SignatureError, match=f"others may read it .mode {mode:04o}") as caught:
        open_signer(key, environ={}, run=RUN)
    assert caught.value.hint == f"chmod 600 {key}"
    key.chmod(0o400)
    assert signs(key)


def test_a_passphrase_file_that_others_may_read_is_refused_too(tmp_path: Path):
    word = private(tmp_path / "pass", "geheim\n")
    word.chmod(0o644)
    with pytest.raises(SignatureError, match="others may read it"):
        read_passphrase(word, environ={})


def test_the_mode_of_what_a_link_points_to_counts(tmp_path: Path, key: Path):
    (tmp_path / "link").symlink_to(key)
    assert signs(tmp_path / "link")
    key.chmod(0o644)
    with pytest.raises(SignatureError, match="others may read it"):
        open_signer(tmp_path / "link", environ={}, run=RUN)


@pytest.mark.parametrize(
    ("word", "error", "said"),
    [
        ("missing/key", SignatureError, "is not there"),
        ("env:KEY", SignatureError, "not set"),
        ("env:", SignatureError, "not set"),
        ("fd:x", UsageError, "is a number"),
        ("fd:-1", UsageError, "is a number"),
        ("fd:777", SignatureError, "Bad file descriptor"),
        ("cmd:sign", UsageError, "external signer"),
        ("/", SignatureError, "Is a directory"),
    ],
)
def test_words_that_lead_nowhere_are_explained(word: str, error: type[AirgapError], said: str):
    with pytest.raises(error, match=said):
        open_signer(word, environ={}, run=RUN)


def test_more_than_a_key_has_is_not_read(tmp_path: Path):
    big = private(tmp_path / "big", "x" * 5000)
    for word, environ in ((str(big), {}), ("env:BIG", {"BIG": "x" * 5000}), ("/dev/zero", {})):
        with pytest.raises(SignatureError, match="more than the 4096 bytes"):
            read_secret(word, environ=environ)
    with descriptor(b"x" * 200_000) as word, pytest.raises(SignatureError, match="more than the 4096 bytes"):
        read_secret(word, environ={})


def test_the_public_key_given_must_be_the_keys(tmp_path: Path, key: Path):
    other = SecretKey.generate().public
    assert signs(key, public=SECRET.public.line)
    with pytest.raises(SignatureError, match=f"is key {SECRET.public.name}, but the public key given is {other.name}"):
        open_signer(key, environ={}, run=RUN, public=other.line)


# ---- secrets stay secret -------------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_complaint(tmp_path: Path):
    line = PLAIN.splitlines()[1]
    attempts = [
        (line, None, {}),  # the key itself where its place is asked for
        ("env:KEY", None, {"KEY": line[:-4]}),
        (str(private(tmp_path / "damaged", PLAIN.replace("=", "!"))), None, {}),
        (str(private(tmp_path / "key", ENCRYPTED)), "hunter2 is my passphrase", {}),
        ("env:KEY", "env:PASS", {"KEY": ENCRYPTED, "PASS": "hunter2 is my passphrase"}),
    ]
    for word, passphrase, environ in attempts:
        with pytest.raises(AirgapError) as caught:
            open_signer(word, passphrase=passphrase, environ=environ, run=RUN)
        text = f"{caught.value} {caught.value!r} {caught.value.hint}"
        assert "hunter2" not in text
        assert line[80:120] not in text


def test_a_signer_shows_no_secret(key: Path):
    shown = repr(open_signer(key, environ={}, run=RUN)).encode()
    assert SECRET._seed not in shown
    assert repr(SECRET._seed)[2:-1].encode() not in shown


# ---- making and showing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_new_key_is_for_its_owner_and_its_public_half_for_all(tmp_path: Path, umask: int):
    path = tmp_path / "config/airgap/key"
    before = os.umask(umask)
    try:
        public = new_key(path, passphrase=None)
    finally:
        os.umask(before)
    modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()}
    assert modes == {"key": 0o600, "key.pub": 0o644}
    assert not stat.S_IMODE(path.parent.stat().st_mode) & 0o077
    assert read_public(public_file(path)) == public == open_signer(path, environ={}, run=RUN).public


def test_a_key_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "key"
    new_key(path, passphrase=None)
    before = path.read_bytes(), public_file(path).read_bytes()
    with pytest.raises(SignatureError, match="never overwritten"):
        new_key(path, passphrase=None)
    assert (path.read_bytes(), public_file(path).read_bytes()) == before
    path.unlink()
    with pytest.raises(SignatureError, match="never overwritten"):
        new_key(path, passphrase=None)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["key.pub"]


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SignatureError, match="cannot be written"):
        new_key(tmp_path / "file/key", passphrase=None)


def test_showing_an_encrypted_key_takes_no_passphrase_where_its_public_half_lies_beside_it(tmp_path: Path):
    key = private(tmp_path / "key", ENCRYPTED)
    public_file(key).write_text(SECRET.public.text())
    assert shown_key(key, environ={}) == SECRET.public
    public_file(key).unlink()
    assert shown_key(key, environ={"P": "geheim"}, passphrase="env:P") == SECRET.public
    assert shown_key("env:KEY", environ={"KEY": PLAIN}) == SECRET.public
    with pytest.raises(UsageError):
        shown_key("cmd:sign", environ={})


# ---- a program that signs ------------------------------------------------------------------------------------------------


def program(tmp_path: Path, body: str) -> str:
    """A signer in Python that has `secret`, `data` and `comment`, and prints what it answers."""
    private(tmp_path / "hsm.key", PLAIN)
    head = (
        "import os, sys\n"
        "from airgap.bundle.signing import SecretKey, sign\n"
        f"secret = SecretKey.parse(open({str(tmp_path / 'hsm.key')!r}).read())\n"
        "data = sys.stdin.buffer.read()\n"
        "comment = sys.argv[1] if len(sys.argv) > 1 else os.environ['AIRGAP_TRUSTED_COMMENT']\n"
    )
    (tmp_path / "hsm.py").write_text(head + body)
    return f"cmd:{sys.executable} {tmp_path / 'hsm.py'}"


RIGHT = "sys.stdout.buffer.write(sign(data, secret, trusted_comment=comment))\n"


@pytest.mark.parametrize("how", ["", " {comment}"])
def test_a_program_signs_what_it_is_given_with_the_comment_it_is_told(tmp_path: Path, how: str):
    assert signs(program(tmp_path, RIGHT) + how, public=SECRET.public.line)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "not the four lines"),
        ("print('signed, trust me')", "not the four lines"),
        ("sys.stdout.buffer.write(sign(data + b' ', secret, trusted_comment=comment))", "other content"),
        ("sys.stdout.buffer.write(sign(data, SecretKey.generate(), trusted_comment=comment))", "stranger"),
        ("sys.stdout.buffer.write(sign(data, secret, trusted_comment='mine'))", "not the one asked for"),
        ("sys.exit('no token in slot 3')", "no token in slot 3"),
        ("sys.stdout.buffer.write(b'x' * 100000)", "more than the 4096"),
    ],
)
def test_an_answer_that_is_not_right_is_not_believed(tmp_path: Path, body: str, said: str):
    signer = open_signer(program(tmp_path, body), environ={}, run=RUN, public=SECRET.public.line)
    with pytest.raises(SignatureError, match=said):
        signer.seal(INDEX, bundle="buildfarm", serial=7)


def test_a_program_that_is_not_there_is_an_error_of_signing():
    with pytest.raises(SignatureError, match="cannot be started"):
        CommandSigner(("/nowhere/sign",), SECRET.public, RUN).seal(INDEX, bundle="x", serial=1)


@pytest.mark.parametrize("command", ["cmd:", "cmd:'unclosed"])
def test_a_command_that_is_none(command: str):
    with pytest.raises(UsageError, match="cmd:"):
        open_signer(command, environ={}, run=RUN, public=SECRET.public.line)


@needs_minisign
def test_minisign_itself_can_be_the_program(tmp_path: Path):
    private(tmp_path / "hsm.key", PLAIN)
    command = f"cmd:minisign -S -W -s {tmp_path / 'hsm.key'} -m /dev/stdin -x /dev/stdout -t {{comment}}"
    assert signs(command, public=SECRET.public.line)


def test_the_answer_is_brought_into_the_one_form_that_hosts_take(tmp_path: Path):
    # Nobody signs the first line; another tool's words there are replaced, as `check` insists on ours.
    body = (
        "first, rest = sign(data, secret, trusted_comment=comment).split(b'\\n', 1)\n"
        "sys.stdout.buffer.write(b'untrusted comment: by hsm\\n' + rest)"
    )
    signer = open_signer(program(tmp_path, body), environ={}, run=RUN, public=SECRET.public.line)
    made = signer.seal(INDEX, bundle="buildfarm", serial=7)
    assert made == sign(INDEX, SECRET, trusted_comment=made.decode().split("\n")[2].removeprefix("trusted comment: "))
