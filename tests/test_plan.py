"""The plan is pure: ordered by need, one step a target; the preflight says in rows what would fail."""

from dataclasses import replace
from pathlib import Path

import pytest

from airgap.bundle.archive import Bundle
from airgap.errors import BundleError, HostUnsuitable
from airgap.kinds import builder, emulation, engine, registry
from airgap.kinds.site import EngineFacts, HostFacts, Site
from airgap.manifest import Manifest
from airgap.oci import Platform
from airgap.offline.foresee import Outlook
from airgap.offline.plan import RANK, plan, site
from airgap.offline.preflight import check, refuse
from airgap.offline.row import Row
from airgap.steps import Builder, Link, LoadImage, MergeJson, PlaceFiles, ServeImage, Service, TagImage, WriteFile
from tests.bundles import SITE, Packer
from tests.fakes import AMD64, Machine

ENGINE = EngineFacts(version="20.10.24", api="1.41", store="classic", data_root="/var/lib/docker", ours=False, cli="/usr/bin/docker")
FACTS = HostFacts(
    platform=AMD64, kernel=(5, 10), systemd=252, engine=None, foreign_containerd=False, homes={"root": "/root", "dev": "/home/dev"}
)  # fmt: skip


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    return Packer(tmp_path_factory.mktemp("pack"))


def where(packer: Packer, yaml: str = SITE, facts: HostFacts = FACTS, *, engine_replaced: bool = True) -> Site:
    with Bundle.at(packer.bundle(yaml)) as bundle:
        return site(bundle, Manifest.from_json(bundle.lock.manifest), facts, replace=engine_replaced, runtime="")


def everything(steps) -> tuple[Outlook, ...]:
    return tuple(Outlook(step=step, changes=True) for step in steps)


def rows(tmp_path: Path, made: Site, machine: Machine | None = None) -> dict[str, Row]:
    machine = machine or Machine(tmp_path / "host")
    return {row.name: row for row in check(machine.host(), made, everything(plan(made)))}


def test_steps_are_in_the_order_of_what_they_need_and_one_link_switches_the_generation(packer: Packer):
    steps = plan(where(packer))
    assert [RANK[type(step)] for step in steps] == sorted(RANK[type(step)] for step in steps)
    assert sum(step.target == "file:/opt/airgap/current" for step in steps) == 1
    assert len({step.target for step in steps}) == len(steps)


def test_the_same_site_has_the_same_plan(packer: Packer):
    assert plan(where(packer)) == plan(where(packer))


def test_an_image_that_two_kinds_ask_for_is_loaded_once(packer: Packer):
    yaml = SITE.replace('images: ["alpine:3.22"]', 'images: ["alpine:3.22", "moby/buildkit:v0.25.1"]')
    loads = [step.reference.familiar for step in plan(where(packer, yaml)) if isinstance(step, LoadImage)]
    assert sorted(loads) == ["alpine:3.22", "moby/buildkit:v0.25.1"]


def test_two_different_things_at_one_place_are_refused(packer: Packer):
    made = where(packer)
    twice = replace(made.manifest, builders=(made.manifest.builders[0], replace(made.manifest.builders[0], network="host")))
    with pytest.raises(BundleError, match="two things at builder:root:mybuilder"):
        plan(replace(made, manifest=twice))


def test_only_some_kinds_are_planned_if_asked(packer: Packer):
    assert {type(step) for step in plan(where(packer), only=frozenset({"image"}))} == {LoadImage}
    assert plan(where(packer), only=frozenset({"plugin"}))[-1].target == "file:/opt/airgap/current"


def test_an_image_pinned_by_digest_gets_a_tag_that_it_is_found_by(packer: Packer):
    made = where(packer)
    image = next(iter(made.images.values()))
    pinned = replace(image, reference=replace(image.reference, tag="", digest=image.root.digest))
    assert pinned.load().reference.tag == f"sha256-{image.root.digest.hex[:12]}"
    assert pinned.load().reference.digest is None


# ---- kinds ----


def test_a_kept_engine_gets_no_program_of_ours_and_no_unit(packer: Packer):
    steps = list(engine.steps(where(packer, facts=replace(FACTS, engine=ENGINE), engine_replaced=False)))
    assert [type(step) for step in steps] == [MergeJson, Service]
    assert steps[1].program == ""


def test_a_kept_engine_that_no_unit_runs_is_not_restarted(packer: Packer):
    facts = replace(FACTS, engine=replace(ENGINE, service=""))
    assert [type(step) for step in engine.steps(where(packer, facts=facts, engine_replaced=False))] == [MergeJson]


@pytest.mark.parametrize(("version", "experimental"), [("19.03.15", True), ("18.09.6", True), ("20.10.24", False), ("28.5.2", False)])
def test_old_engines_of_ours_are_told_of_experimental_features(packer: Packer, version: str, experimental: bool):
    assert ("experimental" in engine.configuration(where(packer, SITE.replace("28.5.2", version)))) is experimental


def test_what_the_manifest_says_of_experimental_stands(packer: Packer):
    yaml = SITE.replace('"28.5.2", daemon: {', '"19.03.15", daemon: {experimental: false, ')
    assert engine.configuration(where(packer, yaml))["experimental"] is False


def test_our_unit_names_no_address_so_that_daemon_json_may():
    for systemd in (219, 228, 252):
        text = engine.unit(systemd, own_containerd=False)
        assert "-H" not in text
        assert ("TasksMax" in text) == (systemd >= 226)
        assert ("StartLimitIntervalSec" in text) == (systemd >= 230)


def test_a_foreign_containerd_gets_dockers_own_beside_it(packer: Packer):
    steps = plan(where(packer, facts=replace(FACTS, foreign_containerd=True)))
    names = [step.name for step in steps if isinstance(step, Service)]
    assert names.index("docker-containerd.service") < names.index("docker.service")


def test_emulators_are_for_foreign_platforms_of_kernels_that_can_hold_them(packer: Packer):
    made = where(packer)
    assert emulation.emulated(made) == (Platform("linux", "arm64"),)
    assert emulation.emulated(replace(made, facts=replace(FACTS, kernel=(4, 7)))) == ()
    assert emulation.emulated(replace(made, facts=replace(FACTS, platform=Platform("linux", "arm64")))) == ()


def test_a_builder_asks_for_its_image_where_the_refusal_comes_at_once(packer: Packer):
    steps = plan(where(packer))
    (made,) = (step for step in steps if isinstance(step, Builder))
    assert "image=127.0.0.1:1/moby/buildkit:v0.25.1" in made.arguments
    assert {"127.0.0.1:1/moby/buildkit:v0.25.1", "moby/buildkit:buildx-stable-1"} == {
        step.reference.familiar for step in steps if isinstance(step, TagImage)
    }


def test_old_buildx_spells_its_configuration_otherwise(packer: Packer):
    item = where(packer).manifest.builders[0]
    assert "--config" in builder.create_words(item, config="/x", buildx=(0, 12))
    assert "--buildkitd-config" in builder.create_words(item, config="/x", buildx=(0, 13))


def test_values_with_commas_are_quoted_for_buildx(packer: Packer):
    item = replace(where(packer).manifest.builders[0], driver_opts={"env.no_proxy": 'a,b"c'})
    assert '"env.no_proxy=a,b""c"' in builder.create_words(item, config="/x", buildx=(0, 29))


def test_plugins_run_by_their_own_names_below_19_03(packer: Packer):
    facts = replace(FACTS, engine=replace(ENGINE, version="18.09.6"))
    links = {step.path for step in plan(where(packer, facts=facts, engine_replaced=False)) if isinstance(step, Link)}
    assert {"/usr/local/bin/buildx", "/usr/local/bin/docker-buildx"} <= links
    assert not {"/usr/local/bin/buildx"} & {step.path for step in plan(where(packer)) if isinstance(step, Link)}


# ---- preflight ----


def test_a_good_host_has_only_good_rows_and_everything_has_a_row_for_machines(packer: Packer, tmp_path: Path):
    found = rows(tmp_path, where(packer))
    assert {row.level for row in found.values()} == {"ok"}
    assert {"root", "platform", "systemd", "kernel", "iptables", "overlay", "cgroups"} <= set(found)
    assert set(found["root"].to_json()) == {"name", "found", "needed", "cure", "level"}
    refuse(tuple(found.values()))


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (replace(FACTS, platform=Platform("linux", "arm64")), "platform"),
        (replace(FACTS, systemd=0), "systemd"),
        (replace(FACTS, kernel=(2, 6)), "kernel"),
    ],
)
def test_a_host_that_lacks_something_is_refused_with_found_needed_and_cure(packer: Packer, tmp_path: Path, facts: HostFacts, name: str):
    found = rows(tmp_path, where(packer, facts=facts))
    assert found[name].level == "refuse"
    with pytest.raises(HostUnsuitable, match=rf"(?s)nothing was changed.*{name}: found .*, needed .*\n    cure: "):
        refuse(tuple(found.values()))


@pytest.mark.parametrize(("version", "good"), [("19.03.15", False), ("20.10.24", True)])
def test_engines_before_20_10_cannot_live_on_cgroups_2(packer: Packer, tmp_path: Path, version: str, good: bool):
    assert (rows(tmp_path, where(packer, SITE.replace("28.5.2", version)))["cgroups"].level == "ok") is good


@pytest.mark.parametrize(
    ("buildx", "kept", "good"),
    [("0.29.1", "18.09.6", True), ("0.31.1", "20.10.24", False), ("0.31.1", "25.0.0", True), ("0.33.0", "18.09.6", False),
     ("0.33.0", "19.03.15", True)],
)  # fmt: skip
def test_buildx_and_engine_must_speak_to_each_other(packer: Packer, tmp_path: Path, buildx: str, kept: str, good: bool):
    facts = replace(FACTS, engine=replace(ENGINE, version=kept))
    made = where(packer, SITE.replace("0.29.1", buildx), facts, engine_replaced=False)
    assert (rows(tmp_path, made)["buildx and engine"].level == "ok") is good


def test_space_is_counted_for_each_filesystem_and_only_for_what_is_not_there(packer: Packer, tmp_path: Path):
    machine = Machine(tmp_path / "host")
    made = where(packer)
    steps = plan(made)
    images = sum(4 * step.size for step in steps if isinstance(step, LoadImage))
    programs = sum(step.size for step in steps if isinstance(step, PlaceFiles))
    machine.write("/proc/mounts", "a / ext4 rw 0 0\nb /var ext4 rw 0 0\n")
    found = {row.name: row for row in check(machine.host(), made, everything(steps))}
    assert int(found["space on /var"].needed.split()[0]) == images + (64 << 20)
    assert int(found["space on /"].needed.split()[0]) >= programs + (64 << 20)
    there = tuple(Outlook(step=step, changes=False) for step in steps)
    assert not [row for row in check(machine.host(), made, there) if row.name.startswith("space")]


def test_a_plugin_in_a_home_folder_that_would_hide_ours_is_named(packer: Packer, tmp_path: Path):
    machine = Machine(tmp_path / "host")
    machine.write("/home/dev/.docker/cli-plugins/docker-buildx", "old", mode=0o755)
    row = rows(tmp_path, where(packer), machine)["plugin of dev"]
    assert row.level == "warn"
    assert row.cure.startswith("it hides the site's docker-buildx: mv /home/dev")


# ---- the site registry ----

DEPOT = SITE + 'registry: {image: "registry:2.8.3", listen: "0.0.0.0:5000", names: ["depot.site:5000"]}\n'


def test_a_registry_serves_every_image_and_runs_before_the_engine(packer: Packer):
    made = where(packer, DEPOT)
    steps = plan(made)
    assert {step.tag for step in steps if isinstance(step, ServeImage)} == {image.reference.tag for image in made.lock.images}
    services = [step.name for step in steps if isinstance(step, Service)]
    assert services.index("airgap-registry.service") < services.index("docker.service")
    assert max(n for n, s in enumerate(steps) if isinstance(s, ServeImage)) < min(n for n, s in enumerate(steps) if isinstance(s, Service))


def test_builders_try_the_depot_first_and_then_the_one_that_answers_for_what_is_absent(packer: Packer):
    made = where(packer, DEPOT)
    item = builder.pointed(made, made.manifest.builders[0])
    text = builder.buildkitd_toml(item)
    assert '[registry."docker.io"]\n  mirrors = ["depot.site:5000", "depot.site:5001"]' in text
    assert '[registry."depot.site:5000"]\n  http = true' in text
    assert '[registry."depot.site:5001"]\n  http = true' in text
    assert item.network == "host"


def test_what_the_manifest_says_of_a_registry_or_a_network_stands(packer: Packer):
    own = 'platforms: [linux/amd64, linux/arm64], network: site, registries: {docker.io: {mirrors: ["own.site"]}}}'
    made = where(packer, DEPOT.replace("platforms: [linux/amd64, linux/arm64]}", own))
    item = builder.pointed(made, made.manifest.builders[0])
    assert item.network == "site"
    assert item.registries["docker.io"].mirrors == ("own.site",)


def test_the_engine_is_told_of_the_depot_too(packer: Packer):
    told = engine.configuration(where(packer, DEPOT))
    assert told["registry-mirrors"] == ["http://depot.site:5000", "http://depot.site:5001"]
    assert "depot.site:5000" in told["insecure-registries"]


def test_with_a_certificate_nothing_is_insecure(packer: Packer):
    made = where(packer, DEPOT.replace("names:", "tls: {cert: /c.pem, key: /k.pem, ca: /ca.pem}, names:"))
    assert engine.configuration(made)["registry-mirrors"][0] == "https://depot.site:5000"
    assert made.depot not in engine.configuration(made)["insecure-registries"][1:]
    assert '[registry."depot.site:5000"]\n  ca = ["/ca.pem"]' in builder.buildkitd_toml(
        builder.pointed(made, made.manifest.builders[0])
    )
    assert 'certificate: "/c.pem"' in registry.configuration(made)


@pytest.mark.parametrize(("image", "said"), [("registry:2.8.3", False), ("registry:3.0.0", True)])
def test_version_3_takes_indexes_whose_children_are_not_all_there(packer: Packer, image: str, said: bool):
    made = where(packer, DEPOT.replace("registry:2.8.3", image))
    assert ("platforms: none" in registry.configuration(made)) == said


@pytest.mark.parametrize(("systemd", "user", "ambient"), [(252, True, True), (219, False, False)])
def test_a_port_below_1024_is_given_without_root_where_systemd_can(packer: Packer, systemd: int, user: bool, ambient: bool):
    made = where(packer, DEPOT.replace("0.0.0.0:5000", "0.0.0.0:443"), replace(FACTS, systemd=systemd))
    text = registry.unit(made)
    assert (f"User={registry.USER}" in text, "AmbientCapabilities" in text) == (user, ambient)


def test_the_port_beside_the_registrys_is_where_absence_is_answered(packer: Packer):
    files = {step.path: step.text for step in plan(where(packer, DEPOT)) if isinstance(step, WriteFile)}
    assert "ListenStream=0.0.0.0:5001\n" in files[registry.ABSENT_SOCKET]


def test_a_port_that_is_taken_is_refused_with_the_way_to_see_by_whom(packer: Packer, tmp_path: Path):
    machine = Machine(tmp_path / "host")
    taken = "   0: 00000000:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
    machine.write("/proc/net/tcp", "  sl  local_address rem_address   st\n" + taken)
    row = rows(tmp_path, where(packer, DEPOT), machine)["registry ports"]
    assert (row.level, row.found) == ("refuse", "5000 taken")
    assert "ss -ltnp" in row.cure


def test_plain_http_is_said_out_loud(packer: Packer, tmp_path: Path):
    assert rows(tmp_path, where(packer, DEPOT))["registry"].level == "warn"


def test_nodes_that_this_version_does_not_join_are_said(packer: Packer, tmp_path: Path):
    nodes = "platforms: [linux/amd64], nodes: [{name: arm, endpoint: 'ssh://arm.site', platforms: [linux/arm64]}]}"
    made = where(packer, SITE.replace("platforms: [linux/amd64, linux/arm64]}", nodes))
    row = rows(tmp_path, made)["builder nodes"]
    assert (row.level, row.found) == ("warn", "asked for by mybuilder")
