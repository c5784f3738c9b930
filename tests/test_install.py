"""Install on a host in a folder: what is planned, what is done, what is left when it goes wrong."""

import json
from pathlib import Path

import pytest

from airgap.errors import DigestMismatch, HostUnsuitable, Interrupted, StepFailed, UsageError
from airgap.offline import receipt
from airgap.offline.install import Report, Wishes, install
from airgap.offline.journal import JOURNAL, Journal, exclusive
from airgap.progress import SILENT
from tests.bundles import KEPT, SITE, Packer
from tests.fakes import Machine, Recorder, world


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    return Packer(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


def wishes(**words: object) -> Wishes:
    return Wishes(**{"confirm": lambda question: False, **words})


def run(machine: Machine, bundle: Path, *, progress=SILENT, **words: object) -> Report:
    return install(bundle, wishes(**words), machine.host(), progress=progress)


def plain_table(header, rows):
    return "\n".join(" | ".join(row) for row in (header, *rows))


def test_a_bare_host_gets_everything_and_it_is_proven(machine: Machine, packer: Packer):
    report = run(machine, packer.bundle())
    assert report.proven
    assert [item.name for item in report.proofs] == ["engine", "buildx", "emulation of linux/arm64", "builder mybuilder"]
    assert machine.engine.version() == "28.5.2"
    assert (machine.root / "opt/airgap/current").readlink() == Path("/opt/airgap/generations/1")
    assert (machine.root / "usr/local/lib/docker/cli-plugins/docker-buildx").is_symlink()
    assert json.loads((machine.root / "etc/docker/daemon.json").read_text()) == {"insecure-registries": ["depot.site:5000"]}
    assert set(machine.engine.data.tags) == {
        "docker.io/library/alpine:3.22", "docker.io/moby/buildkit:v0.25.1", "docker.io/moby/buildkit:buildx-stable-1",
        "127.0.0.1:1/moby/buildkit:v0.25.1",
    }  # fmt: skip
    assert machine.engine.containers() == ("buildx_buildkit_mybuilder0",)
    assert not Journal.pending(machine.host())


def test_the_containerd_store_is_served_as_well(tmp_path: Path, packer: Packer):
    machine = Machine(tmp_path / "host")
    machine.engine.store = "containerd"
    assert run(machine, packer.bundle()).proven


def test_a_second_install_changes_nothing_and_says_so(machine: Machine, packer: Packer):
    run(machine, packer.bundle())
    before, journals = world(machine), len(Journal.every(machine.host()))
    report = run(machine, packer.bundle())
    assert report.changed == ()
    assert report.proofs
    assert "nothing to change" in report.text(plain_table)
    assert world(machine) == before
    assert len(Journal.every(machine.host())) == journals


def test_a_plan_shows_every_step_and_writes_nothing(machine: Machine, packer: Packer):
    before = world(machine)
    report = run(machine, packer.bundle(), plan_only=True)
    text = report.text(plain_table)
    assert "builder mybuilder for root (default)" in text
    assert "nothing was changed" in text
    assert all(item.changes for item in report.outlooks)
    assert world(machine) == before
    assert not (machine.root / "var/lib/airgap").exists()


def test_what_came_loose_is_mended_and_nothing_else(machine: Machine, packer: Packer):
    run(machine, packer.bundle())
    (machine.root / "usr/local/bin/docker").unlink()
    machine.engine.data.containers["buildx_buildkit_mybuilder0"].running = False
    report = run(machine, packer.bundle())
    assert [step.target for step in report.changed] == ["file:/usr/local/bin/docker", "builder:root:mybuilder"]


def test_after_a_reboot_everything_is_still_there(machine: Machine, packer: Packer):
    run(machine, packer.bundle())
    machine.boot()
    machine.engine.start_container("buildx_buildkit_mybuilder0")
    report = run(machine, packer.bundle())
    assert report.changed == ()
    assert report.proven


def test_the_next_bundle_switches_generations_and_makes_the_builder_anew(machine: Machine, packer: Packer):
    run(machine, packer.bundle())
    container = machine.engine.container("buildx_buildkit_mybuilder0").id
    machine.engine.data.volumes.add("buildx_buildkit_mybuilder0_state")
    newer = packer.bundle(SITE.replace("28.5.2", "29.1.0"), serial=2, flavour=" newer")
    report = run(machine, newer, confirm=lambda question: True)
    assert report.proven
    assert machine.engine.version() == "29.1.0"
    assert machine.engine.container("buildx_buildkit_mybuilder0").id != container
    assert receipt.read(machine.host()).serial == 2


def test_the_receipt_says_what_the_host_holds(machine: Machine, packer: Packer):
    run(machine, packer.bundle())
    host = machine.host()
    found = receipt.read(host)
    assert (found.name, found.serial, found.proven) == ("farm", 1, True)
    assert found.document["engine"] == {"version": "28.5.2", "installed": True}
    assert found.document["plugins"] == {"buildx": "0.29.1"}
    assert [item["reference"] for item in found.document["images"]] == [
        "docker.io/library/alpine:3.22",
        "docker.io/moby/buildkit:v0.25.1",
    ]
    assert receipt.lock(host, found).serial == 1


def test_a_receipt_whose_lock_was_exchanged_is_not_believed(machine: Machine, packer: Packer):
    run(machine, packer.bundle())
    host = machine.host()
    place = machine.root / "var/lib/airgap/generations/1/lock.json"
    place.write_text(place.read_text().replace("farm", "barn"))
    with pytest.raises(HostUnsuitable, match=r"is not the lock that the receipt names"):
        receipt.lock(host, receipt.read(host))


# ---- engines that are there ----


@pytest.mark.parametrize("version", ["20.10.24", "19.03.15", "18.09.6"])
def test_an_engine_that_is_good_enough_is_kept_and_told_so(machine: Machine, packer: Packer, version: str):
    machine.package(version)
    machine.engine.have("user/app:1")
    progress = Recorder()
    report = run(machine, packer.bundle(), progress=progress, confirm=lambda question: True)
    assert report.proven
    assert f"engine {version} was here before and is good enough: kept" in dict(progress.said)["engine"]
    assert machine.engine.version() == version
    assert not (machine.root / "usr/local/bin/dockerd").exists()
    assert machine.engine.image("user/app:1")


def test_docker_18_09_runs_buildx_by_its_own_name(machine: Machine, packer: Packer):
    machine.package("18.09.6")
    report = run(machine, packer.bundle(KEPT))
    assert (machine.root / "usr/local/bin/buildx").is_symlink()
    assert any(row.name == "CLI plugins" and row.level == "warn" for row in report.rows)


def test_docker_19_03_gets_its_command_line_told_of_experimental_plugins(machine: Machine, packer: Packer):
    machine.package("19.03.15")
    run(machine, packer.bundle(KEPT + "users: [dev]\n"))
    for home in ("root", "home/dev"):
        assert json.loads((machine.root / home / ".docker/config.json").read_text()) == {"experimental": "enabled"}
    assert "experimental" not in json.loads((machine.root / "etc/docker/daemon.json").read_text())


def test_a_kept_engine_is_told_of_registries_but_never_of_another_data_root(machine: Machine, packer: Packer):
    machine.package()
    asked = SITE.replace("insecure-registries", "data-root: /data, bip: 172.30.0.1/24, insecure-registries")
    run(machine, packer.bundle(asked), confirm=lambda question: True)
    assert json.loads((machine.root / "etc/docker/daemon.json").read_text()) == {"insecure-registries": ["depot.site:5000"]}


def test_a_data_root_that_would_hide_a_kept_engines_images_is_refused(machine: Machine, packer: Packer):
    machine.package()
    asked = KEPT.replace("insecure-registries", "data-root: /data, insecure-registries")
    with pytest.raises(HostUnsuitable, match="data-root: found the engine keeps its data in /var/lib/docker"):
        run(machine, packer.bundle(asked))


def test_containers_are_stopped_only_after_asking(machine: Machine, packer: Packer):
    machine.package()
    identity = machine.engine.have("user/db:1")
    machine.engine.data.containers["db"] = _running(identity)
    before = world(machine)
    asked: list[str] = []
    with pytest.raises(HostUnsuitable, match="these containers would be stopped: db; nothing was changed"):
        run(machine, packer.bundle(KEPT), confirm=lambda question: bool(asked.append(question)))
    assert asked == ["1 running containers will be stopped (db). Go on?"]
    assert world(machine) == before


def test_nothing_is_asked_where_live_restore_keeps_containers(machine: Machine, packer: Packer):
    machine.package()
    machine.engine.live_restore = True
    machine.engine.data.containers["db"] = _running(machine.engine.have("user/db:1"))
    run(machine, packer.bundle(KEPT))
    assert machine.engine.container("db").running


def _running(image: str):
    from tests.fakes import Container

    return Container("1" * 64, image)


def test_an_engine_of_packages_is_replaced_when_asked_socket_and_all(machine: Machine, packer: Packer):
    machine.package(containerd=True)
    report = run(machine, packer.bundle(), engine="replace")
    assert report.proven
    assert machine.engine.version() == "28.5.2"
    assert (machine.root / "etc/systemd/system/docker.socket").readlink() == Path("/dev/null")
    assert "docker-containerd.service" in machine.units
    machine.boot()
    assert machine.engine.version() == "28.5.2"


def test_an_engine_that_does_not_answer_is_not_replaced_unasked(machine: Machine, packer: Packer):
    machine.package()
    machine(["systemctl", "stop", "docker.service"])
    with pytest.raises(HostUnsuitable, match="/usr/bin/dockerd does not answer") as caught:
        run(machine, packer.bundle())
    assert "--engine replace" in caught.value.message


def test_a_drop_in_that_would_start_the_old_engine_is_named(machine: Machine, packer: Packer):
    machine.package()
    machine.write(
        "/etc/systemd/system/docker.service.d/site.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0\n"
    )
    with pytest.raises(HostUnsuitable, match=r"drop-in: found /etc/systemd/system/docker.service.d/site.conf says ExecStart"):
        run(machine, packer.bundle(), engine="replace")


def test_a_flag_of_the_kept_engine_that_clashes_with_its_new_configuration_is_named(machine: Machine, packer: Packer):
    machine.package()
    with pytest.raises(HostUnsuitable, match="dockerd's flags: found -H on its command line"):
        run(machine, packer.bundle(KEPT.replace("daemon: {", 'daemon: {hosts: ["unix:///var/run/docker.sock"], ')))


def test_keep_needs_an_engine_and_replace_needs_one_in_the_bundle(machine: Machine, packer: Packer):
    with pytest.raises(HostUnsuitable, match="there is none to keep"):
        run(machine, packer.bundle(), engine="keep")
    with pytest.raises(UsageError, match="the bundle holds no engine"):
        run(machine, packer.bundle(KEPT), engine="replace")


# ---- what is refused ----


def test_a_kind_that_does_not_exist_is_a_usage_error_that_names_those_that_do(machine: Machine, packer: Packer):
    with pytest.raises(UsageError, match="'plugins'") as caught:
        run(machine, packer.bundle(), only=frozenset({"plugins", "engine"}))
    assert "plugin" in caught.value.hint


def test_only_some_kinds_are_installed_if_asked(machine: Machine, packer: Packer):
    machine.package()
    report = run(machine, packer.bundle(KEPT), only=frozenset({"image"}))
    assert [step.target for step in report.changed] == ["tag:docker.io/library/alpine:3.22"]
    assert run(machine, packer.bundle(KEPT)).proven


def test_only_never_takes_away_what_runs_from_the_current_generation(machine: Machine, packer: Packer):
    run(machine, packer.bundle())
    newer = packer.bundle(SITE.replace("28.5.2", "29.1.0"), serial=2)
    with pytest.raises(HostUnsuitable, match="current generation: found emulation, engine of it not in this bundle"):
        run(machine, newer, only=frozenset({"plugin"}))


def test_a_host_without_systemd_or_iptables_is_refused_and_unchanged(machine: Machine, packer: Packer):
    (machine.root / "run/systemd/system").rmdir()
    (machine.root / "usr/sbin/iptables").unlink()
    before = world(machine)
    with pytest.raises(HostUnsuitable, match=r"(?s)systemd: found none.*iptables: found not in PATH"):
        run(machine, packer.bundle())
    assert world(machine) == before


def test_a_daemon_json_that_is_not_json_is_refused_before_anything_changes(machine: Machine, packer: Packer):
    machine.write("/etc/docker/daemon.json", '{"debug": true,}')
    before = world(machine)
    with pytest.raises(HostUnsuitable, match=r"daemon.json: line 1, column \d+: not valid JSON"):
        run(machine, packer.bundle())
    assert world(machine) == before


def test_a_user_who_does_not_exist_is_refused(machine: Machine, packer: Packer):
    with pytest.raises(HostUnsuitable, match="the user nobody2 does not exist"):
        run(machine, packer.bundle(), users=("nobody2",))


def test_users_get_their_own_builders(machine: Machine, packer: Packer):
    report = run(machine, packer.bundle(), users=("dev",))
    assert "builder:dev:mybuilder" in {step.target for step in report.changed}
    assert (machine.root / "home/dev/.docker/buildx/instances/mybuilder").exists()


def test_a_kernel_before_4_8_gets_no_emulation_and_is_told_why(tmp_path: Path, packer: Packer):
    machine = Machine(tmp_path / "host", kernel="3.10.0-1160.el7")
    report = run(machine, packer.bundle())
    assert report.proven
    assert "airgap-emulation.service" not in machine.units
    assert any(row.name == "emulation" and "before 4.8" in row.cure for row in report.rows)


def test_a_damaged_bundle_is_refused_before_the_host_is_looked_at(machine: Machine, packer: Packer, tmp_path: Path):
    data = bytearray(packer.bundle().read_bytes())
    data[-20_000] ^= 1
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data)
    with pytest.raises(DigestMismatch):
        run(machine, bad)
    assert machine.ran == []


def test_somebody_else_who_installs_is_waited_for_by_hand(machine: Machine, packer: Packer):
    with exclusive(machine.host()), pytest.raises(HostUnsuitable, match=r"another airgap \(process \d+\) is changing this host"):
        run(machine, packer.bundle())


# ---- what goes wrong ----


def test_a_step_that_fails_puts_the_host_back(machine: Machine, packer: Packer):
    machine.broken.add("docker.service")
    before = world(machine)
    with pytest.raises(
        StepFailed, match=r"(?s)enable and start docker.service: docker.service did not start.*the host was put back"
    ):
        run(machine, packer.bundle())
    assert world(machine) == before
    assert not Journal.pending(machine.host())


def test_a_proof_that_fails_puts_the_host_back(machine: Machine, packer: Packer):
    machine.broken.add("buildkit")
    before = world(machine)
    with pytest.raises(StepFailed, match=r"(?s)cannot do what the bundle is for.*builder mybuilder.*no builder"):
        run(machine, packer.bundle())
    assert world(machine) == before


def test_a_proof_that_fails_is_kept_if_asked_and_the_receipt_says_so(machine: Machine, packer: Packer):
    machine.broken.add("buildkit")
    report = run(machine, packer.bundle(), keep_unproven=True)
    assert not report.proven
    assert "NOT PROVEN: builder mybuilder" in report.text(plain_table)
    assert receipt.read(machine.host()).proven is False


def test_a_replaced_engine_that_does_not_start_gives_way_to_the_old_one_with_its_socket(machine: Machine, packer: Packer):
    machine.package()
    machine.engine.have("user/app:1")
    before = world(machine)
    machine.engine.refuse_load = "no space left on device"
    with pytest.raises(StepFailed, match="no space left"):
        run(machine, packer.bundle(), engine="replace")
    assert world(machine) == before
    assert machine.engine.version() == "20.10.24"


def test_ctrl_c_while_proving_puts_the_host_back(machine: Machine, packer: Packer):
    class Stop(Recorder):
        def say(self, event: str, text: str, **facts: object) -> None:
            if event == "proof":
                raise KeyboardInterrupt

    before = world(machine)
    with pytest.raises(Interrupted, match="stopped while proving; the host was put back"):
        run(machine, packer.bundle(), progress=Stop())
    assert world(machine) == before


def test_no_journal_is_left_where_nothing_was_done(machine: Machine, packer: Packer):
    with pytest.raises(HostUnsuitable):
        run(machine, packer.bundle(), engine="keep")
    assert not (machine.root / JOURNAL[1:]).exists()
