"""Builders: each user's own, the container shared, made anew when the words change, the cache kept."""

import json
from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable
from airgap.machine.run import RunError
from airgap.offline.changes import Context
from airgap.offline.changes.builder import Built
from airgap.steps import Builder
from tests.fakes import Machine, Recorder, program, world

IMAGE = "127.0.0.1:1/moby/buildkit:v1"
BUILDX = "/opt/airgap/current/cli-plugins/docker-buildx"
CONTAINER = "buildx_buildkit_b0"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "host")
    machine.package()
    machine.write(BUILDX, program("buildx"), mode=0o755)
    machine.write("/etc/airgap/builders/b.toml", "")
    machine.engine.have(IMAGE)
    return machine


@pytest.fixture
def ctx(machine: Machine, tmp_path: Path) -> Context:
    return Context(host=machine.host(), saved=tmp_path / "saved", progress=Recorder())


def step(machine: Machine, fingerprint: str = "one", *, user: str = "root", use: bool = True, image: str = IMAGE) -> Builder:
    words = (
        "--driver", "docker-container", "--driver-opt", f"image={image}", "--buildkitd-config", "/etc/airgap/builders/b.toml",
        "--driver-opt", f"env.AIRGAP_FINGERPRINT={fingerprint}",
    )  # fmt: skip
    found = machine.engine.image(image)
    return Builder(
        user=user, name="b", buildx=(BUILDX,), arguments=words, fingerprint=fingerprint,
        image_ids=frozenset({found.id} if found else ()), use=use,
    )  # fmt: skip


def run(ctx: Context, asked: Builder) -> dict | None:
    record = Built().before(asked, ctx)
    if record is not None:
        Built().apply(asked, ctx)
    return record


def test_a_builder_is_made_booted_and_used(machine: Machine, ctx: Context):
    assert run(ctx, step(machine)) is not None
    assert machine.engine.container(CONTAINER).running
    assert json.loads((machine.root / "root/.docker/buildx/current").read_text())["Name"] == "b"
    assert run(ctx, step(machine)) is None


def test_another_configuration_makes_it_anew_with_its_cache_and_its_place_as_default(machine: Machine, ctx: Context):
    run(ctx, step(machine))
    first = machine.engine.container(CONTAINER).id
    run(ctx, step(machine, "two"))
    assert machine.engine.container(CONTAINER).id != first
    assert machine.engine.volume(f"{CONTAINER}_state")
    assert json.loads((machine.root / "root/.docker/buildx/current").read_text())["Name"] == "b"


@pytest.mark.parametrize("spoil", ["stopped", "gone", "other image", "entry", "default"])
def test_what_came_loose_is_mended(machine: Machine, ctx: Context, spoil: str):
    asked = step(machine)
    run(ctx, asked)
    data = machine.engine.data
    if spoil == "stopped":
        data.containers[CONTAINER].running = False
    elif spoil == "gone":
        del data.containers[CONTAINER]
    elif spoil == "other image":
        data.containers[CONTAINER].image = machine.engine.have("moby/buildkit:old")
    elif spoil == "entry":
        (machine.root / "root/.docker/buildx/instances/b").unlink()
    else:
        (machine.root / "root/.docker/buildx/current").write_text("{}")
    assert run(ctx, asked) is not None
    assert run(ctx, asked) is None


def test_two_users_share_the_container_and_neither_takes_it_from_the_other(machine: Machine, ctx: Context):
    run(ctx, step(machine))
    first = machine.engine.container(CONTAINER).id
    run(ctx, step(machine, user="dev"))
    assert machine.engine.container(CONTAINER).id == first
    assert run(ctx, step(machine)) is None


@pytest.mark.parametrize("before", [False, True], ids=["none before", "one before"])
def test_undo_and_settle_bring_back_what_was_there(machine: Machine, ctx: Context, before: bool):
    if before:
        run(ctx, step(machine, "old"))
    was = world(machine)
    asked = step(machine)
    record = run(ctx, asked)
    for _ in range(2):
        Built().undo(asked, record, ctx)
        Built().settle(asked, record, ctx)
        assert world(machine) == was


def test_a_builder_that_does_not_boot_says_what_buildx_and_buildkitd_said(machine: Machine, ctx: Context):
    asked = step(machine, image="127.0.0.1:1/moby/buildkit:none")
    with pytest.raises(HostUnsuitable, match=r"(?s)the builder b of root does not start.*not found") as caught:
        run(ctx, asked)
    assert "docker logs" in caught.value.hint


def test_a_name_that_is_a_docker_context_is_refused(machine: Machine, ctx: Context):
    key = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"  # sha256 of "b"
    machine.write(f"/root/.docker/contexts/meta/{key}/meta.json", "{}")
    with pytest.raises(HostUnsuitable, match="docker context named b"):
        run(ctx, step(machine))


def test_a_user_who_does_not_exist_is_said(machine: Machine, ctx: Context):
    with pytest.raises(HostUnsuitable, match="ghost does not exist"):
        run(ctx, step(machine, user="ghost"))


def test_an_old_container_that_cannot_be_made_again_is_said_and_left_to_the_next_build(machine: Machine, ctx: Context):
    run(ctx, step(machine, "old"))
    asked = step(machine)
    record = run(ctx, asked)
    Built().undo(asked, record, ctx)
    machine.engine.data.tags.clear()
    Built().settle(asked, record, ctx)
    assert "will be made by the next build" in dict(ctx.progress.said)["left"]


def test_a_buildx_that_is_gone_is_an_error_and_no_silence(machine: Machine, ctx: Context):
    (machine.root / BUILDX[1:]).unlink()
    with pytest.raises(RunError, match="not found"):
        run(ctx, step(machine))
