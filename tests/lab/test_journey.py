"""The main job, for real: packed from the lab's upstream, carried as a file, installed on a booted bare host, built there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import site
from tests.lab.host import SiteHost, packaged_engine
from tests.lab.servers import Upstream
from tests.lab.test_host import busybox_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.lab

BUILT = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}

@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(arches=("amd64",)) as running:
        yield running


@pytest.fixture(scope="module")
def pack(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Pack a manifest of the lab, changed by replacing text; one store for all of them."""
    home = tmp_path_factory.mktemp("packer")

    def packed(name: str, *changes: tuple[str, str]) -> Path:
        text = (site.HERE / f"{name}.yaml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        manifest = home / f"{name}.yaml"
        manifest.write_text(text)
        disc = tmp_path_factory.mktemp("disc")
        return site.packed(manifest, upstream.sources_yaml(), home=home, disc=disc)

    return packed


def builders(host: SiteHost) -> dict[str, str]:
    rows = [json.loads(line) for line in host.run(["docker", "buildx", "ls", "--format", "json"]).out.splitlines()]
    return {row["Name"]: row["Nodes"][0].get("Status", "") for row in rows if row.get("Driver") == "docker-container"}


def emulation_flags(host: SiteHost) -> str:
    text = host.sh("cat /proc/sys/fs/binfmt_misc/airgap-arm64").out
    assert "enabled" in text
    found = re.search(r"flags: (\S+)", text)
    assert found
    return found[1]


@pytest.mark.parametrize("store", ["classic", "containerd"])
def test_a_bare_host_builds_for_two_platforms_after_one_command_and_after_a_reboot_and_is_as_before_after_rollback(
    store: str, pack: Callable[..., Path]
) -> None:
    driver_line = "log-driver: json-file"
    features = f"{driver_line}\n    features: {{containerd-snapshotter: true}}"
    bundle = pack("site", *([(driver_line, features)] if store == "containerd" else []))
    with SiteHost(media=bundle.parent) as host:
        before = site.compared(host)
        plan = site.install(host, bundle, "--plan")
        assert site.differences(before, site.compared(host)) == [], "--plan changes nothing"
        assert "docker.service" in plan.out

        site.install(host, bundle)
        assert host.sh("systemctl is-active docker.service").out == "active\n"
        assert host.run(["docker", "version", "-f", "{{.Server.Version}}"]).out.startswith("28.5.2")
        assert "0.29.1" in host.run(["docker", "buildx", "version"]).out
        driver = host.run(["docker", "info", "-f", "{{.DriverStatus}}"]).out
        assert ("io.containerd.snapshotter" in driver) == (store == "containerd")
        assert "F" in emulation_flags(host)
        assert builders(host) == {"mybuilder": "running", "mybuilder2": "running"}
        site.application(host)
        assert site.build(host, "mybuilder") == BUILT
        assert site.build(host, "mybuilder2", "--allow", "network.host") == BUILT

        between = site.compared(host)
        again = site.install(host, bundle, "--json")
        assert site.differences(between, site.compared(host)) == [], "a second install changes nothing"
        assert again.seconds < 60

        host.power_off()
        assert host.emulation() == set(), "the kernel has forgotten"
        host.power_on()
        assert "F" in emulation_flags(host)
        host.run(["airgap", "status"])
        host.run(["airgap", "doctor"], timeout=300)
        assert site.build(host, "mybuilder") == BUILT

        host.run(["airgap", "rollback"], timeout=300)
        assert site.differences(before, site.compared(host)) == []
        assert host.sh("systemctl is-active docker.service", check=False).out.strip() in ("inactive", "unknown")
        assert host.sh("systemctl list-unit-files 'docker*' 'airgap*' --no-legend", check=False).out.strip() == ""
        assert host.emulation() == set()


def test_an_engine_that_was_there_is_kept_with_its_containers_and_what_it_cannot_do_is_told(pack: Callable[..., Path]) -> None:
    bundle = pack("site-kept")
    with SiteHost(media=bundle.parent, prepare=packaged_engine) as host:
        host.run(["docker", "import", "-", "app:7"], stdin=busybox_tar())
        host.run(["docker", "run", "-d", "--name", "app", "--network=none", "app:7", "sleep", "100000"])
        running = host.run(["docker", "inspect", "-f", "{{.State.StartedAt}}", "app"]).out
        before = site.compared(host)

        # This bundle changes daemon.json, which takes a restart of an engine that has no live-restore.
        refused = site.install(host, bundle, check=False)
        assert refused.code == 20, refused
        assert "app" in refused.err, refused
        assert site.differences(before, site.compared(host)) == []

        done = site.install(host, bundle, "--only", "plugin,emulation,image")
        assert "20.10.24" in done.out, done
        assert host.run(["docker", "version", "-f", "{{.Server.Version}}"]).out.startswith("20.10.24")
        assert "0.29.1" in host.run(["docker", "buildx", "version"]).out
        assert "F" in emulation_flags(host)
        assert host.run(["docker", "run", "--rm", "--network=none", "alpine:3.22", "echo", "runs"]).out == "runs\n"
        assert host.run(["docker", "inspect", "-f", "{{.State.StartedAt}}", "app"]).out == running, "the user's container ran on"

        host.run(["airgap", "rollback"], timeout=300)
        assert site.differences(before, site.compared(host)) == []
        assert host.run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).out == "app:7\n"
        assert host.run(["docker", "inspect", "-f", "{{.State.StartedAt}}", "app"]).out == running


def test_builders_come_to_a_kept_engine_or_it_is_told_why_they_cannot_and_the_host_is_put_back(pack: Callable[..., Path]) -> None:
    daemon = "  daemon:\n    log-driver: json-file\n    log-opts: {max-size: 10m}\n"
    bundle = pack("site-kept", (daemon, ""))
    with SiteHost(media=bundle.parent, prepare=packaged_engine) as host:
        host.run(["docker", "info"])
        before = site.compared(host)
        done = site.install(host, bundle, check=False)
        if not withholds_a_capability():
            assert done.code == 0, done
            site.application(host)
            assert site.build(host, "mybuilder") == BUILT
        else:
            # 20.10 gives its privileged containers every capability there is, and here is a machine that withholds one (lab.md).
            assert done.code == 21, done
            assert "unable to apply caps" in done.err, done
            assert site.differences(before, site.compared(host)) == []


def withholds_a_capability() -> bool:
    """Whether this machine keeps CAP_SYS_RESOURCE (number 24) from its processes."""
    rows = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    return not int(rows["CapBnd"], 16) >> 24 & 1
