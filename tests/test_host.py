"""A host's files below a root: links stay inside, writes are whole or not at all, facts are read as the kernel writes them."""

import os
import stat
from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable
from airgap.offline.host import TEMPORARY, Host
from tests.fakes import Clock, Engine, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


@pytest.fixture
def host(machine: Machine) -> Host:
    return machine.host()


def test_links_are_followed_inside_the_root(host: Host):
    host.link("/opt/current", "/opt/generations/1")
    host.link("/opt/up", "../../../../opt/generations")
    host.write("/opt/generations/1/x", b"here")
    assert host.read("/opt/current/x") == host.read("/opt/up/1/x") == b"here"
    assert host.real("/opt/current/x") == "/opt/generations/1/x"


def test_links_in_a_circle_are_refused(host: Host):
    host.link("/opt/a", "b")
    host.link("/opt/b", "a")
    with pytest.raises(HostUnsuitable, match="too many symbolic links"):
        host.real("/opt/a/x")


@pytest.mark.parametrize("path", ["etc/x", "/etc/../x", "/a\0b", ""])
def test_paths_that_are_not_plain_and_absolute_are_refused(host: Host, path: str):
    with pytest.raises(HostUnsuitable, match="not a plain absolute path"):
        host.real(path)


def test_a_write_has_the_mode_asked_for_whatever_the_umask(host: Host):
    before = os.umask(0o077)
    try:
        host.write("/opt/new/folder/x", b"1", mode=0o755)
    finally:
        os.umask(before)
    assert stat.S_IMODE(host.path("/opt/new/folder/x").stat().st_mode) == 0o755
    assert stat.S_IMODE(host.path("/opt/new/folder").stat().st_mode) == 0o755


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(host: Host):
    host.write("/opt/x", b"old")
    with pytest.raises(ZeroDivisionError), host.placing("/opt/x") as fd:
        os.write(fd, b"half")
        raise ZeroDivisionError
    assert host.names("/opt") == ("x",)
    assert host.read("/opt/x") == b"old"


def test_what_a_killed_write_left_is_overwritten(host: Host):
    host.path("/opt/x").with_name(f".x{TEMPORARY}").write_text("half")
    host.write("/opt/x", b"whole")
    assert host.names("/opt") == ("x",)


def test_a_write_through_a_link_replaces_the_link_and_not_what_it_leads_to(host: Host):
    host.write("/etc/passwd2", b"precious")
    host.link("/opt/x", "/etc/passwd2")
    host.write("/opt/x", b"mine")
    assert host.read("/etc/passwd2") == b"precious"


def test_a_folder_in_the_way_is_named_with_what_to_do(host: Host):
    host.make_folder("/opt/x")
    for act in (lambda: host.write("/opt/x", b""), lambda: host.link("/opt/x", "y")):
        with pytest.raises(HostUnsuitable, match="/opt/x is a folder") as caught:
            act()
        assert "mv /opt/x" in caught.value.hint


def test_a_link_replaces_a_file_or_a_link_in_one_go(host: Host):
    host.write("/opt/x", b"file")
    host.link("/opt/x", "one")
    host.link("/opt/x", "two")
    assert host.path("/opt/x").readlink() == Path("two")


def test_reads_are_bounded_and_missing_is_none(host: Host):
    host.write("/opt/x", b"12345")
    assert host.read("/opt/none") is None
    with pytest.raises(HostUnsuitable, match="larger than the 4 bytes"):
        host.read("/opt/x", limit=4)
    with pytest.raises(HostUnsuitable, match="cannot be read"):
        host.read("/opt")


def test_removing_a_link_leaves_what_it_leads_to(host: Host):
    host.write("/opt/folder/x", b"1")
    host.link("/opt/link", "/opt/folder")
    host.remove("/opt/link")
    host.remove("/opt/none")
    assert host.read("/opt/folder/x") == b"1"


def test_users_and_groups_are_rows_of_the_hosts_own_files(machine: Machine, host: Host):
    machine.write("/etc/group", "docker:x:998:dev,ops\nodd:x:many:\n")
    assert host.user("dev").home == "/home/dev"
    assert host.group("docker").members == ("dev", "ops")
    assert host.user("nobody") is None
    assert host.group("odd") is None


@pytest.mark.parametrize(("release", "found"), [("3.10.0-1160.el7.x86_64", (3, 10)), ("6.18.5", (6, 18)), ("odd", (0, 0))])
def test_the_kernels_version_is_read_from_any_release(tmp_path: Path, release: str, found: tuple[int, int]):
    assert Machine(tmp_path / "host", kernel=release).host().kernel() == found


def test_a_machine_nobody_knows_is_refused(tmp_path: Path, machine: Machine):
    host = Host(
        run=machine, daemon=Engine(), root=tmp_path, clock=Clock(), uname=lambda: os.uname_result(("Linux", "", "5", "", "alpha"))
    )
    with pytest.raises(HostUnsuitable, match="'alpha'"):
        host.platform()


def test_mounts_are_found_by_the_longest_point_above_a_path(machine: Machine, host: Host):
    machine.write("/proc/mounts", "/dev/a / ext4 rw 0 0\n/dev/b /var xfs rw,noexec 0 0\n/dev/c /var/with\\040blank xfs rw 0 0\n")
    assert host.mount_of("/var/lib/docker") == "/var"
    assert host.mount_of("/variable") == "/"
    assert host.mount_of("/var/with blank/x") == "/var/with blank"
    assert "noexec" in host.mount_options("/var/lib/x")


@pytest.mark.parametrize(
    ("row", "found"), [("cgroup2 /sys/fs/cgroup cgroup2", 2), ("cgroup /sys/fs/cgroup/memory cgroup", 1), ("x / ext4", 0)]
)
def test_cgroups_are_told_apart(machine: Machine, host: Host, row: str, found: int):
    machine.write("/proc/mounts", f"{row} rw 0 0\n")
    assert host.cgroups() == found


def test_programs_are_found_in_the_path_we_give_and_links_are_followed(machine: Machine, host: Host):
    machine.write("/opt/kube/bin/docker", "", mode=0o755)
    host.link("/usr/bin/docker", "/opt/kube/bin/docker")
    machine.write("/usr/bin/notes", "", mode=0o644)
    assert host.which("docker") == "/opt/kube/bin/docker"
    assert host.which("notes") is None
    assert host.which("nothing") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_acting_as_a_user_has_that_users_rights_and_no_more(machine: Machine, host: Host):
    from airgap.offline.host import User

    for place in (machine.root, *machine.root.parents):
        if place.stat().st_mode & stat.S_ISVTX:
            break
        place.chmod(0o755)
    (machine.root / "home/dev").chmod(0o755)
    os.chown(machine.root / "home/dev", 4321, 4321)
    with host.acting_as(User(name="daemon", uid=4321, gid=4321, home="/home/dev")):
        host.write("/home/dev/.docker/x", b"1")
    assert host.path("/home/dev/.docker/x").stat().st_uid == 4321
    with (
        pytest.raises(HostUnsuitable, match="may not do this"),
        host.acting_as(User(name="daemon", uid=4321, gid=4321, home="/root")),
    ):
        host.write("/etc/x", b"1")
    assert os.geteuid() == 0
