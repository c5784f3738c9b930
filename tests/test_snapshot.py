"""What was at a path comes back: type, mode, owner, content, target, extended attributes, and folders that were not there."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable
from airgap.offline.host import TEMPORARY, Host
from airgap.offline.snapshot import Snapshot, is_back, restore, take
from tests.fakes import Machine, tree


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Machine(tmp_path / "host").host()


def nothing(host: Host) -> None:
    return


def file(host: Host) -> None:
    host.write("/etc/x/y", b"was here" * 300_000, mode=0o640)


def link(host: Host) -> None:
    host.link("/etc/x/y", "../nowhere")


def broken(host: Host) -> None:
    host.remove("/etc/x")


def other(host: Host) -> None:
    host.write("/etc/x/y", b"another", mode=0o600)


def led(host: Host) -> None:
    host.link("/etc/x/y", "/etc/passwd")


@pytest.mark.parametrize("before", [nothing, file, link])
@pytest.mark.parametrize("change", [nothing, other, led, broken])
def test_whatever_was_there_comes_back_over_whatever_came_after(host: Host, tmp_path: Path, before, change):
    before(host)
    was = tree(host.root)
    snapshot = take(host, "/etc/x/y", tmp_path / "saved")
    change(host)
    for _ in range(2):
        restore(host, snapshot, tmp_path / "saved")
        assert is_back(host, snapshot)
        if before is not nothing or change is not broken:
            assert tree(host.root) == was


def test_a_snapshot_survives_the_journal(host: Host, tmp_path: Path):
    file(host)
    snapshot = take(host, "/etc/x/y", tmp_path / "saved")
    assert Snapshot.from_json(snapshot.to_json()) == snapshot


def test_folders_that_were_not_there_go_unless_somebody_uses_them(host: Host, tmp_path: Path):
    snapshot = take(host, "/etc/new/deep/y", tmp_path)
    host.write("/etc/new/deep/y", b"")
    host.write("/etc/new/other", b"")
    restore(host, snapshot, tmp_path)
    assert host.names("/etc/new") == ("other",)


def test_unfinished_files_go_too(host: Host, tmp_path: Path):
    file(host)
    snapshot = take(host, "/etc/x/y", tmp_path)
    host.path("/etc/x/y").with_name(f".y{TEMPORARY}").write_text("half")
    restore(host, snapshot, tmp_path)
    assert host.names("/etc/x") == ("y",)


def test_extended_attributes_come_back(host: Host, tmp_path: Path):
    file(host)
    place = host.path("/etc/x/y")
    with suppress(OSError):
        os.setxattr(place, "user.label", b"bin_t")
    if not os.listxattr(place):
        pytest.skip("this filesystem has none")
    snapshot = take(host, "/etc/x/y", tmp_path)
    other(host)
    restore(host, snapshot, tmp_path)
    assert os.getxattr(place, "user.label") == b"bin_t"


def test_saved_bytes_are_for_root_only(host: Host, tmp_path: Path):
    file(host)
    snapshot = take(host, "/etc/x/y", tmp_path / "saved")
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "saved" / snapshot.saved).stat().st_mode) == 0o600


def test_folders_and_pipes_cannot_be_replaced(host: Host, tmp_path: Path):
    host.make_folder("/etc/x/y")
    with pytest.raises(HostUnsuitable, match="is a folder, where a file has to be"):
        take(host, "/etc/x/y", tmp_path)
    os.mkfifo(host.path("/etc/x/z"))
    with pytest.raises(HostUnsuitable, match="a device, pipe or socket"):
        take(host, "/etc/x/z", tmp_path)
