"""Documents are bounded, typed, and precise about where they are wrong."""

import json
import os
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.document import Node, below, dump_json, parse_json, read_bounded, write_atomic
from airgap.errors import LockError, ManifestError


def node(value, *, path=""):
    return Node(value, path=path, error=ManifestError)


def read(text, **options):
    return parse_json(text.encode() if isinstance(text, str) else text, name="a.json", error=LockError, **options)


def complaint(action):
    with pytest.raises((ManifestError, LockError)) as caught:
        action()
    return caught.value.message, caught.value.hint or ""


# ---- places and types ------------------------------------------------------------------------------------------------


def test_a_complaint_names_file_and_place():
    document = read('{"files": [{"size": 1}, {"size": "two"}]}')
    second = list(document.get("files").items())[1]
    assert complaint(second.get("size").integer)[0] == "a.json: files[1].size: must be a whole number, not the text 'two'"


def test_a_complaint_about_the_whole_names_the_file():
    assert complaint(lambda: read("[]").get("x"))[0] == "a.json: must be a mapping, not a list"


@pytest.mark.parametrize(
    ("value", "getter", "says"),
    [
        (1, Node.text, "must be text, not the number 1"),
        (True, Node.text, "must be text, not true"),
        (None, Node.text, "must be text, not nothing"),
        (True, Node.integer, "must be a whole number, not true"),
        (1.5, Node.integer, "must be a whole number, not the number 1.5"),
        (-1, Node.integer, "must be at least 0, not -1"),
        ("yes", Node.flag, "must be true or false, not the text 'yes'"),
        (0, Node.flag, "must be true or false, not the number 0"),
        ({}, lambda n: list(n.items()), "must be a list, not a mapping"),
        ("x", Node.mapping, "must be a mapping, not the text 'x'"),
        ("a\x1b[31mb", Node.text, "contains control characters"),
        ("a\nb", Node.text, "contains control characters"),
        ("a\x9bb", Node.text, "contains control characters"),
        ("a\u202eb", Node.text, "contains control characters"),
        ("\ud800", Node.text, "contains control characters"),
    ],
)
def test_getters_take_their_type_and_nothing_else(value, getter, says):
    assert complaint(lambda: getter(node(value)))[0] == says


def test_a_number_where_text_is_meant_is_answered_with_what_to_write():
    assert complaint(node(29).text)[1] == 'write it in quotes: "29"'
    assert complaint(node(True).text)[1] == 'write it in quotes: "true"'


def test_a_missing_key_is_named_with_the_one_that_was_meant():
    message, hint = complaint(lambda: node({"verison": 1}, path="engine").get("version"))
    assert message == "engine: 'version' is missing"
    assert "'verison'" in hint


def test_null_is_as_good_as_missing():
    assert not node({"a": None}).has("a")
    assert node({"a": None}).find("a") is None


def test_keys_nobody_asked_for_are_refused_with_the_nearest_known():
    found = node({"buildx": "1", "compse": "2"}, path="plugins")
    found.find("buildx")
    found.find("compose")
    assert complaint(found.done) == ("plugins.compse: unknown key", "did you mean 'compose'?")
    other = node({"zzz": 1})
    other.find("buildx")
    assert complaint(other.done)[1] == "known here: buildx"


def test_free_keys_must_be_text_that_can_be_shown():
    assert "must be text" in complaint(lambda: list(node({5: 1}).entries()))[0]
    message, _ = complaint(lambda: list(node({"\x1b[2J": 1}).entries()))
    assert "control characters" in message
    assert "\x1b" not in message


def test_places_are_cut_and_escaped_because_they_are_shown():
    assert below("a", "b") == "a.b"
    assert below("", "b") == "b"
    assert below("a", 3) == "a[3]"
    assert below("a", "\x1b]0;x\x07") == "a.\\x1b]0;x\\x07"
    assert len(below("", "x" * 10_000)) == 80


# ---- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"a": 1} x', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"\x00", "not valid JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"b": {"\\u001b": 1, "\\u001b": 2}}', "is given twice"),
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e999", "is too large"),
        ("9" * 5000, "is too long"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 100_000, "not valid JSON"),
    ],
)
def test_bad_json_is_one_of_our_errors_and_quick(text, says):
    started = time.monotonic()
    message, _ = complaint(lambda: read(text))
    assert message.startswith("a.json: ")
    assert says in message
    assert "\x1b" not in message
    assert len(message) < 300
    assert time.monotonic() - started < 2


def test_a_document_over_its_limit_is_not_parsed():
    assert "8 bytes are more than the 7" in complaint(lambda: read('["aaaa"]', limit=7))[0]
    assert read('["aaaa"]', limit=8).texts() == ("aaaa",)


def test_what_is_dumped_is_canonical_and_whole():
    assert dump_json({"b": "ü", "a": [1]}) == '{\n  "b": "ü",\n  "a": [\n    1\n  ]\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json({"a": float("inf")})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_dump_and_parse_are_inverse(value):
    assert parse_json(dump_json(value), name="x", error=LockError).value == value


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_raise_anything_but_its_error(data):
    try:
        read(data)
    except LockError:
        return
    json.loads(data.decode())


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bounded(path, error=LockError, limit=5) == b"12345"
    assert "larger than the 4 bytes" in complaint(lambda: read_bounded(path, error=LockError, limit=4))[0]
    assert "cannot be read: No such file" in complaint(lambda: read_bounded(tmp_path / "y", error=LockError))[0]
    assert "cannot be read: Is a directory" in complaint(lambda: read_bounded(tmp_path, error=LockError))[0]


def test_an_endless_file_is_not_read_to_its_end(tmp_path):
    link = tmp_path / "endless"
    link.symlink_to("/dev/zero")
    assert "larger than" in complaint(lambda: read_bounded(link, error=LockError, limit=1000))[0]


def test_a_write_replaces_the_whole_file_with_the_mode_it_is_given(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old and longer")
    path.chmod(0o777)
    write_atomic(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "inside").touch()
    with pytest.raises(OSError, match=r"[Dd]irectory"):
        write_atomic(folder, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_link_planted_at_the_temporary_name_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f".x.{os.getpid()}.tmp").symlink_to(victim)
    write_atomic(tmp_path / "x", b"new")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "x").read_bytes() == b"new"
    assert not (tmp_path / "x").is_symlink()
