"""Images and their names: told by ID, and given back to what had them."""

import json
from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable
from airgap.oci import Digest, Reference
from airgap.offline.changes import Context
from airgap.offline.changes.images import Loaded, Tagged
from airgap.progress import SILENT
from airgap.steps import LoadImage, TagImage
from tests.bundles import Packer
from tests.fakes import Container, Data, Engine, Machine, Recorder


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    return Packer(tmp_path_factory.mktemp("pack"))


class Blobs:
    def __init__(self, packer: Packer) -> None:
        self.store = packer.store

    def open(self, digest):
        return self.store.path(digest).open("rb")

    def read(self, digest, *, limit):
        return self.store.read(digest, limit=limit)

    def content(self, digest):
        raise AssertionError(digest)


@pytest.fixture(params=["classic", "containerd"])
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    machine = Machine(tmp_path / "host", engine=Engine(store=request.param))
    machine.package()
    return machine


def context(machine: Machine, packer: Packer, progress=SILENT) -> Context:
    return Context(host=machine.host(), saved=machine.root.parent / "saved", bundle=Blobs(packer), progress=progress)


def load(packer: Packer, reference: str = "alpine:3.22", flavour: str = "") -> LoadImage:
    image = packer.image(reference, {"x": f"{reference}{flavour}".encode()}, kinds=["image"])
    config = json.loads(packer.store.read(image.manifests[0].digest, limit=1 << 20))["config"]["digest"]
    return LoadImage(
        reference=image.reference, root=image.root, manifest=image.manifests[0], config=Digest.parse(config), size=image.size
    )  # fmt: skip


def test_an_image_is_loaded_compared_and_found_again(machine: Machine, packer: Packer):
    ctx, step = context(machine, packer), load(packer)
    assert Loaded().before(step, ctx) is not None
    Loaded().apply(step, ctx)
    assert machine.engine.image("alpine:3.22").id in step.ids
    assert Loaded().before(step, ctx) is None


def test_undo_of_a_new_image_leaves_nothing(machine: Machine, packer: Packer):
    ctx, step = context(machine, packer), load(packer)
    record = Loaded().before(step, ctx)
    Loaded().apply(step, ctx)
    for _ in range(2):
        Loaded().undo(step, record, ctx)
    assert machine.engine.data == Data()


def test_the_users_image_of_that_name_gets_it_back(machine: Machine, packer: Packer):
    ctx, step = context(machine, packer), load(packer)
    users = machine.engine.have("alpine:3.22", content="the user's")
    record = Loaded().before(step, ctx)
    Loaded().apply(step, ctx)
    assert machine.engine.image("alpine:3.22").id != users
    for _ in range(2):
        Loaded().undo(step, record, ctx)
    assert machine.engine.image("alpine:3.22").id == users
    assert machine.engine.data.ids == {users}


def test_a_name_that_somebody_moved_meanwhile_stays_where_it_is(machine: Machine, packer: Packer):
    ctx, step = context(machine, packer), load(packer)
    record = Loaded().before(step, ctx)
    Loaded().apply(step, ctx)
    moved = machine.engine.have("alpine:3.22", content="moved")
    Loaded().undo(step, record, ctx)
    assert machine.engine.image("alpine:3.22").id == moved


def test_an_image_that_a_container_needs_is_said_and_left(machine: Machine, packer: Packer):
    progress = Recorder()
    ctx, step = context(machine, packer, progress), load(packer)
    record = Loaded().before(step, ctx)
    Loaded().apply(step, ctx)
    machine.engine.data.containers["db"] = Container("1", machine.engine.image("alpine:3.22").id)
    Loaded().undo(step, record, ctx)
    assert machine.engine.image("alpine:3.22")
    assert "conflict" in dict(progress.said)["left"]


def test_an_engine_that_calls_it_something_else_is_not_believed(machine: Machine, packer: Packer):
    ctx, step = context(machine, packer), load(packer)
    other = load(packer, flavour=" other")
    wrong = LoadImage(reference=step.reference, root=other.root, manifest=step.manifest, config=other.config, size=1)
    if machine.engine.store == "containerd":
        wrong = LoadImage(reference=step.reference, root=other.root, manifest=other.manifest, config=other.config, size=1)
        machine.engine.load = lambda stream, name="": (b"".join(stream), machine.engine.have("alpine:3.22"))[:0]
    with pytest.raises(HostUnsuitable, match=r"the engine calls it sha256:.*expected one of"):
        Loaded().apply(wrong, ctx)


def test_a_further_tag_is_set_and_taken_away(machine: Machine, packer: Packer):
    ctx, step = context(machine, packer), load(packer)
    Loaded().apply(step, ctx)
    tag = TagImage(Reference.parse("moby/buildkit:buildx-stable-1"), step.reference, step.ids)
    record = Tagged().before(tag, ctx)
    Tagged().apply(tag, ctx)
    assert Tagged().before(tag, ctx) is None
    for _ in range(2):
        Tagged().undo(tag, record, ctx)
    assert set(machine.engine.data.tags) == {"docker.io/library/alpine:3.22"}


def test_an_old_image_that_is_gone_is_said(machine: Machine, packer: Packer):
    ctx, step = context(machine, packer), load(packer)
    users = machine.engine.have("alpine:3.22", content="the user's")
    record = Loaded().before(step, ctx)
    Loaded().apply(step, ctx)
    machine.engine.remove(users)
    with pytest.raises(HostUnsuitable, match=r"the image it named before .* is gone"):
        Loaded().undo(step, record, ctx)
