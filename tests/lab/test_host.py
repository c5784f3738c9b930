"""The lab's host is what it says it is, before anything of airgap is on it."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.lab.cache import unpacked
from tests.lab.host import SiteHost, enable, packaged_engine

pytestmark = pytest.mark.lab

UNIT = """\
[Service]
Type=notify
ExecStart=/usr/local/bin/dockerd
Delegate=yes
KillMode=process
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


def bare_engine(tree: Path) -> None:
    """Docker 28.5.2 by hand, as the old notes told people to."""
    places = {
        "docker.io": ("usr/sbin/dockerd", "usr/sbin/docker-proxy"), "docker-cli": ("usr/bin/docker",),
        "containerd": ("usr/bin/containerd", "usr/bin/containerd-shim-runc-v2"),
    }  # fmt: skip
    for package, members in places.items():
        for member in members:
            shutil.copy2(unpacked(package, suite="sid") / member, tree / "usr/local/bin")
    shutil.copy2(unpacked("runc", suite="bookworm") / "usr/sbin/runc", tree / "usr/local/bin")
    (tree / "etc/systemd/system/docker.service").write_text(UNIT)
    enable(tree, "docker.service")


def busybox_tar() -> bytes:
    """A root filesystem with a shell, for `docker import`."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("bin", "tmp", "proc", "sys", "dev", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        tar.add(unpacked("busybox-static", suite="bookworm") / "bin/busybox", "bin/busybox")
        for name in ("sh", "echo", "sleep", "cat", "mount"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return made.getvalue()


def test_a_bare_host_has_systemd_no_python_and_a_network_that_answers_nothing() -> None:
    with SiteHost() as host:
        assert host.sh("cat /proc/1/comm").out == "systemd\n"
        assert host.sh("systemctl is-system-running").out == "running\n"
        assert host.sh("command -v python3 python docker curl wget || true").out == ""
        dropped = host.run(["timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/198.51.100.1/80"], check=False)
        assert dropped.code == 124, f"packets must be dropped, not refused: {dropped}"
        before = host.snapshot()
        host.reboot()
        assert host.snapshot() == before
        folder = host.folder
    assert not folder.exists()


def test_docker_28_runs_privileged_containers_there_before_and_after_a_reboot_and_emulators_can_be_registered() -> None:
    with SiteHost(prepare=bare_engine) as host:
        assert host.run(["docker", "version", "-f", "{{.Server.Version}}"]).out.startswith("28.5.2")
        host.run(["docker", "import", "-", "lab/busybox:1"], stdin=busybox_tar())
        # What upstream's emulation image does: register from inside a privileged container.
        # Entries live as long as somebody has the registry mounted.
        registry = "/proc/sys/fs/binfmt_misc"
        host.sh(f"mount -t binfmt_misc none {registry}")
        rule = ":lab-probe:E::labprobe::/bin/busybox:"
        script = f"mount -t binfmt_misc none {registry} && echo '{rule}' >{registry}/register && echo done"
        words = ["docker", "run", "--rm", "--privileged", "--network=none", "lab/busybox:1", "sh", "-c", script]
        assert host.run(words).out == "done\n"
        assert host.emulation() == {"lab-probe"}
        host.reboot()
        assert host.emulation() == set()
        assert host.run(["docker", "run", "--rm", "--privileged", "lab/busybox:1", "echo", "again"]).out == "again\n"


def test_docker_20_from_packages_is_there_with_its_users_container() -> None:
    with SiteHost(prepare=packaged_engine) as host:
        assert host.run(["docker", "version", "-f", "{{.Server.Version}}"]).out.startswith("20.10.24")
        host.run(["docker", "import", "-", "app:7"], stdin=busybox_tar())
        host.run(["docker", "run", "-d", "--name", "app", "--network=none", "app:7", "sleep", "1000"])
        assert host.run(["docker", "ps", "--format", "{{.Names}} {{.Image}}"]).out == "app app:7\n"


def test_nothing_is_left_when_a_host_ends_in_an_error(tmp_path: Path) -> None:
    folders: list[Path] = []

    def interrupted() -> None:
        with SiteHost(media=tmp_path) as host:
            folders.append(host.folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (folder,) = folders
    assert not folder.exists()
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if str(folder) in _command(pid)]


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""
