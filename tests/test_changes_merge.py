"""JSON files of somebody else: our keys get in, the rest stays, undo is byte for byte."""

import json
import os
import stat
from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable
from airgap.offline.changes import Context
from airgap.offline.changes.merge import Merged, merge
from airgap.steps import MergeJson
from tests.fakes import Machine

PATH = "/etc/docker/daemon.json"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


@pytest.fixture
def ctx(machine: Machine, tmp_path: Path) -> Context:
    return Context(host=machine.host(), saved=tmp_path / "saved")


@pytest.mark.parametrize(
    ("known", "changes", "merged"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": [1, 2]}, {"a": [2, 3]}, {"a": [1, 2, 3]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 5}}, {"a": {"b": 5, "c": 2}}),
        ({"a": "text"}, {"a": ["list"]}, {"a": ["list"]}),
        ({"z": 1, "a": 2}, {"a": 3, "b": 4}, {"z": 1, "a": 3, "b": 4}),
    ],
)
def test_mappings_are_merged_lists_united_and_the_rest_replaced(known, changes, merged):
    assert list(merge(known, changes).items()) == list(merged.items())


@pytest.mark.parametrize(
    "text",
    ['{\n    "debug": true\n}', '{"debug":true}', '{\n\t"debug": true\n}\n', "", "  \n", '{"log-opts": {"tag": "ü"}}\n'],
)
def test_unknown_keys_and_the_way_it_was_written_survive_and_undo_is_byte_for_byte(machine: Machine, ctx: Context, text: str):
    machine.write(PATH, text, mode=0o640)
    step = MergeJson(PATH, {"bip": "10.1.0.1/16"})
    record = Merged().before(step, ctx)
    Merged().apply(step, ctx)
    written = (machine.root / PATH[1:]).read_text()
    assert json.loads(written) == {**json.loads(text if text.strip() else "{}"), "bip": "10.1.0.1/16"}
    assert ("\t" in written) == ("\t" in text)
    assert "\\u" not in written
    assert stat.S_IMODE((machine.root / PATH[1:]).stat().st_mode) == 0o640
    assert Merged().before(step, ctx) is None
    Merged().undo(step, record, ctx)
    assert (machine.root / PATH[1:]).read_text() == text


def test_a_file_that_was_not_there_is_gone_again_with_its_folder(machine: Machine, ctx: Context):
    step = MergeJson(PATH, {"a": 1})
    record = Merged().before(step, ctx)
    Merged().apply(step, ctx)
    Merged().undo(step, record, ctx)
    assert not (machine.root / "etc/docker").exists()


def test_a_link_stays_a_link_and_the_file_behind_it_changes(machine: Machine, ctx: Context):
    machine.write("/data/daemon.json", "{}")
    (machine.root / "etc/docker").mkdir()
    (machine.root / PATH[1:]).symlink_to("/data/daemon.json")
    step = MergeJson(PATH, {"a": 1})
    record = Merged().before(step, ctx)
    Merged().apply(step, ctx)
    assert (machine.root / PATH[1:]).is_symlink()
    assert json.loads((machine.root / "data/daemon.json").read_text()) == {"a": 1}
    Merged().undo(step, record, ctx)
    assert (machine.root / "data/daemon.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": 1,}', "line 1, column"),
        (b"[1]", "no mapping"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a":' * 100_000, "not valid JSON"),
    ],
)
def test_what_is_no_json_mapping_is_refused_with_its_place(machine: Machine, ctx: Context, data: bytes, words: str):
    machine.write(PATH, data)
    with pytest.raises(HostUnsuitable, match=words) as caught:
        Merged().before(MergeJson(PATH, {"a": 1}), ctx)
    assert PATH in caught.value.message
    assert "mend" in caught.value.hint


def test_a_users_file_is_for_that_user_alone(machine: Machine, ctx: Context):
    step = MergeJson("/home/dev/.docker/config.json", {"experimental": "enabled"}, 0o600, "dev")
    Merged().before(step, ctx)
    Merged().apply(step, ctx)
    place = machine.root / "home/dev/.docker/config.json"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert place.stat().st_uid == os.geteuid()


def test_a_user_who_does_not_exist_is_said(ctx: Context):
    with pytest.raises(HostUnsuitable, match="its owner, ghost, does not exist"):
        Merged().before(MergeJson("/home/ghost/x.json", {}, 0o600, "ghost"), ctx)
