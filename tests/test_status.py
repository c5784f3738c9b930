"""Status and doctor: what is installed, whether it is so still, and what to do about what is not."""

from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable
from airgap.offline.install import Wishes, install
from airgap.offline.journal import Journal
from airgap.offline.status import doctor, status
from airgap.progress import SILENT
from tests.bundles import KEPT, Packer
from tests.fakes import Machine, tree


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    return Packer(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def machine(tmp_path: Path, packer: Packer) -> Machine:
    machine = Machine(tmp_path / "host")
    install(packer.bundle(), Wishes(confirm=lambda question: True), machine.host(), progress=SILENT)
    return machine


def plain(header, rows):
    return "\n".join(" | ".join(row) for row in (header, *rows))


def test_all_is_well_after_an_install_and_after_a_reboot(machine: Machine):
    before = tree(machine.root, without=("proc",))
    report = status(machine.host())
    assert report.good
    assert "parts are as they were installed" in report.text(plain)
    assert "28.5.2 answers" in report.text(plain)
    assert tree(machine.root, without=("proc",)) == before
    machine.boot()
    machine.engine.start_container("buildx_buildkit_mybuilder0")
    assert status(machine.host()).good


def test_an_engine_that_does_not_answer_is_the_first_thing_said(machine: Machine):
    machine(["systemctl", "stop", "docker.service"])
    report = status(machine.host())
    assert not report.good
    assert next(item.name for item in report.checks if not item.good) == "engine"
    assert any("systemctl restart docker.service" in item.cure for item in report.checks)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("usr/local/lib/docker/cli-plugins/docker-buildx", "file:/usr/local/lib/docker/cli-plugins/docker-buildx"),
        ("opt/airgap/generations/1/engine/runc", "file:/opt/airgap/generations/1/engine/docker"),
        ("etc/docker/daemon.json", "file:/etc/docker/daemon.json"),
    ],
)
def test_a_part_that_is_gone_is_named_with_its_cure(machine: Machine, path: str, target: str):
    (machine.root / path).unlink()
    wrong = [item for item in status(machine.host()).checks if not item.good]
    assert target in [item.name for item in wrong]
    assert all(item.cure for item in wrong)


def test_a_builder_that_stands_still_and_an_image_that_was_exchanged_are_named(machine: Machine):
    machine.engine.data.containers["buildx_buildkit_mybuilder0"].running = False
    machine.engine.data.tags["docker.io/library/alpine:3.22"] = machine.engine.have("other:1")
    names = [item.name for item in status(machine.host()).checks if not item.good]
    assert names == ["tag:docker.io/library/alpine:3.22", "builder:root:mybuilder"]


def test_an_install_that_ended_in_the_middle_is_said(machine: Machine):
    Journal.begin(machine.host(), serial=2, steps=3)
    report = status(machine.host())
    assert not report.good
    assert "an install of serial 2 ended in the middle" in report.text(plain)


def test_doctor_proves_again_and_finds_what_no_file_shows(machine: Machine):
    assert doctor(machine.host(), progress=SILENT).good
    machine.broken.add("buildkit")
    report = doctor(machine.host(), progress=SILENT)
    assert [item.name for item in report.checks if not item.good] == ["proof: builder mybuilder"]
    assert "docker logs buildx_buildkit_mybuilder0" in report.text(plain)


def test_doctor_serves_a_host_whose_engine_was_kept(tmp_path: Path, packer: Packer):
    machine = Machine(tmp_path / "kept")
    machine.package()
    install(packer.bundle(KEPT), Wishes(confirm=lambda question: True), machine.host(), progress=SILENT)
    assert doctor(machine.host(), progress=SILENT).good


def test_a_host_without_airgap_is_told_so(tmp_path: Path):
    with pytest.raises(HostUnsuitable, match="installed nothing"):
        status(Machine(tmp_path / "bare").host())


def test_a_receipt_of_another_format_is_refused(machine: Machine):
    place = machine.root / "var/lib/airgap/receipt.json"
    place.write_text(place.read_text().replace('"airgap-receipt": 1', '"airgap-receipt": 2'))
    with pytest.raises(HostUnsuitable, match="receipt of format 2"):
        status(machine.host())
