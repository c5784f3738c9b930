"""The way back: to the bundle before, to any serial, to the host before airgap; and what is said about it."""

from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable, PutBackFailed, UsageError
from airgap.offline import receipt
from airgap.offline.install import Wishes, install
from airgap.offline.journal import Journal
from airgap.offline.rollback import rollback, uninstall
from airgap.progress import SILENT
from tests.bundles import KEPT, SITE, Packer
from tests.fakes import Container, Machine, world


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    return Packer(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


def yes(question: str) -> bool:
    return True


def put(machine: Machine, bundle: Path, **words: object) -> None:
    install(bundle, Wishes(**{"confirm": yes, **words}), machine.host(), progress=SILENT)


def quarters(machine: Machine, packer: Packer) -> list[dict[str, object]]:
    """Three bundles, one after the other; the host before and after each."""
    worlds = [world(machine)]
    for serial, version in ((1, "26.1.5"), (2, "28.5.2"), (3, "29.1.0")):
        put(machine, packer.bundle(SITE.replace("28.5.2", version), serial=serial, flavour=f" {serial}"))
        worlds.append(world(machine))
    return worlds


def test_rollback_takes_back_the_newest_bundle(machine: Machine, packer: Packer):
    worlds = quarters(machine, packer)
    report = rollback(machine.host(), confirm=yes, progress=SILENT)
    assert world(machine) == worlds[2]
    assert machine.engine.version() == "28.5.2"
    assert receipt.read(machine.host()).serial == report.serial == 2
    assert "the host is at serial 2" in report.text()
    assert "builder mybuilder for root (default)" in report.text()


def test_rollback_to_a_serial_takes_back_everything_above_it_newest_first(machine: Machine, packer: Packer):
    worlds = quarters(machine, packer)
    report = rollback(machine.host(), to=1, confirm=yes, progress=SILENT)
    assert [item.serial for item in report.undone] == [3, 2]
    assert world(machine) == worlds[1]


def test_uninstall_takes_back_everything_and_the_host_is_as_it_was(machine: Machine, packer: Packer):
    worlds = quarters(machine, packer)
    assert uninstall(machine.host(), confirm=yes, progress=SILENT).serial == 0
    assert world(machine) == worlds[0]
    assert receipt.read(machine.host()) is None


def test_installed_taken_back_and_installed_again_is_as_installed(machine: Machine, packer: Packer):
    bundle = packer.bundle()
    put(machine, bundle)
    rollback(machine.host(), confirm=yes, progress=SILENT)
    put(machine, bundle)
    assert receipt.read(machine.host()).serial == 1


def test_a_bundle_that_was_mended_is_taken_back_whole(machine: Machine, packer: Packer):
    before = world(machine)
    put(machine, packer.bundle())
    (machine.root / "usr/local/bin/docker").unlink()
    put(machine, packer.bundle())
    report = rollback(machine.host(), confirm=yes, progress=SILENT)
    assert [item.serial for item in report.undone] == [1, 1]
    assert world(machine) == before


def test_the_engine_that_was_there_before_comes_back_with_its_containers_and_socket(machine: Machine, packer: Packer):
    machine.package()
    machine.write("/etc/docker/daemon.json", '{"log-driver": "local"}')
    machine.engine.data.containers["db"] = Container("1" * 64, machine.engine.have("user/db:1"))
    put(machine, packer.bundle(), engine="replace")
    assert machine.engine.version() == "28.5.2"
    uninstall(machine.host(), confirm=yes, progress=SILENT)
    assert machine.engine.version() == "20.10.24"
    assert machine.engine.image("user/db:1")
    assert (machine.root / "etc/docker/daemon.json").read_text() == '{"log-driver": "local"}'


def test_a_socket_that_waited_for_a_first_client_waits_again(machine: Machine, packer: Packer):
    machine.package()
    machine(["systemctl", "stop", "docker.service"])
    before = world(machine)
    assert before["units"] == {"docker.socket": "active"}
    put(machine, packer.bundle(), engine="replace")
    uninstall(machine.host(), confirm=yes, progress=SILENT)
    assert world(machine)["units"] == before["units"]
    machine(["systemctl", "start", "docker.service"])
    assert machine.engine.version() == "20.10.24"


def test_what_users_loaded_meanwhile_stays(machine: Machine, packer: Packer):
    machine.package()
    put(machine, packer.bundle(KEPT))
    machine.engine.have("user/new:1")
    machine.engine.data.tags["docker.io/library/alpine:3.22"] = machine.engine.have("user/new:2")
    uninstall(machine.host(), confirm=yes, progress=SILENT)
    assert {"docker.io/user/new:1", "docker.io/library/alpine:3.22"} <= set(machine.engine.data.tags)


def test_containers_are_stopped_only_after_asking(machine: Machine, packer: Packer):
    put(machine, packer.bundle())
    machine.engine.data.containers["web"] = Container("2" * 64, machine.engine.have("user/web:1"))
    before = world(machine)
    with pytest.raises(HostUnsuitable, match="these containers would be stopped: web; nothing was changed"):
        uninstall(machine.host(), confirm=lambda question: False, progress=SILENT)
    assert world(machine) == before


def test_a_plan_names_the_steps_and_changes_nothing(machine: Machine, packer: Packer):
    put(machine, packer.bundle())
    before = world(machine)
    report = uninstall(machine.host(), plan_only=True, confirm=yes, progress=SILENT)
    assert "would be undone" in report.text()
    assert "nothing was changed" in report.text()
    assert report.to_json()["undone"][0]["serial"] == 1
    assert world(machine) == before


def test_a_serial_that_is_not_there_names_those_that_are(machine: Machine, packer: Packer):
    quarters(machine, packer)
    with pytest.raises(UsageError, match="serial 7 was never installed here") as caught:
        rollback(machine.host(), to=7, confirm=yes, progress=SILENT)
    assert "older ones: 1, 2" in caught.value.hint
    with pytest.raises(UsageError, match="serial 3 is what is installed"):
        rollback(machine.host(), to=3, confirm=yes, progress=SILENT)


def test_where_nothing_was_installed_there_is_nothing_to_take_back(machine: Machine):
    with pytest.raises(HostUnsuitable, match="installed nothing on this host"):
        rollback(machine.host(), confirm=yes, progress=SILENT)


def test_a_rollback_is_not_believed_until_it_was_looked_at(machine: Machine, packer: Packer):
    machine.package()
    put(machine, packer.bundle(), engine="replace")
    host = machine.host()

    def meddle(argv, **words):
        result = machine(argv, **words)
        if tuple(argv[:2]) == ("systemctl", "daemon-reload"):
            machine.write("/usr/local/bin/docker", "somebody else was quicker")
        return result

    host.run = meddle
    with pytest.raises(PutBackFailed, match=r"/usr/local/bin/docker is not what it was \(none\)"):
        uninstall(host, confirm=yes, progress=SILENT)


def test_journals_that_were_put_back_are_not_taken_back_again(machine: Machine, packer: Packer):
    put(machine, packer.bundle())
    uninstall(machine.host(), confirm=yes, progress=SILENT)
    assert [item.state for item in Journal.every(machine.host())] == ["put-back"]
    with pytest.raises(HostUnsuitable):
        uninstall(machine.host(), confirm=yes, progress=SILENT)
