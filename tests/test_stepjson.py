"""The vocabulary of steps is closed: every type has a row where rows are kept, and survives the journal."""

import typing

import pytest

from airgap import steps
from airgap.errors import HostUnsuitable
from airgap.oci import INDEX, MANIFEST, Descriptor, Digest, Platform, Reference
from airgap.offline.changes import CHANGES
from airgap.offline.plan import RANK
from airgap.offline.stepjson import TYPES, step_from_json, step_to_json

D = Digest("a" * 64)
AMD64 = Platform("linux", "amd64")
ALPINE = Reference.parse("alpine:3.22")
CHILD = Descriptor(media_type=MANIFEST, digest=D, size=7, platform=AMD64, annotations={"a": "b"})
TOP = Descriptor(media_type=INDEX, digest=Digest("b" * 64), size=9)

EXAMPLES = [
    steps.PlaceFiles(content=D, size=3, members=(("docker/docker", "/opt/x/docker"),), platform=AMD64, optional=("docker/ctr",)),
    steps.PlaceImageFiles(reference=ALPINE, manifest=D, members=(("/usr/bin/qemu", "/opt/x/qemu"),), platform=AMD64),
    steps.WriteFile(path="/etc/x", text="öne\n\ttwo\n", mode=0o600),
    steps.Link("/usr/bin/x", "../x"),
    steps.MergeJson("/etc/docker/daemon.json", {"a": [1, {"b": None}], "c": True}, 0o600, "dev"),
    steps.SystemGroup("docker"),
    steps.SystemUser("airgap-registry"),
    steps.GroupMember("docker", "dev"),
    steps.Service(name="docker.service", program="/opt/x", files=("/etc/a", "/etc/b"), sockets=("docker.socket",), seconds=5),
    steps.LoadImage(reference=ALPINE, root=TOP, manifest=CHILD, config=D, size=12),
    steps.TagImage(Reference.parse("x.site/y:z"), ALPINE, frozenset({"sha256:1", "sha256:0"})),
    steps.ServeImage(root="/r", owner="o", repository="library/alpine", tag="3.22", top=TOP, manifests=(CHILD, CHILD), size=1),
    steps.Builder(
        user="dev", name="b", buildx=("/x",), arguments=("--driver", "y"), fingerprint="f", image_ids=frozenset({"i"}), use=True
    ),
]


@pytest.mark.parametrize("step", EXAMPLES, ids=lambda step: type(step).__name__)
def test_a_step_is_the_same_after_it_was_written_and_read(step: steps.Step):
    assert step_from_json(step_to_json(step)) == step


def test_every_type_of_step_has_an_example_a_change_and_a_rank():
    every = set(typing.get_args(steps.Step))
    assert {type(item) for item in EXAMPLES} == every
    assert set(CHANGES) == set(RANK) == set(TYPES.values()) == every


@pytest.mark.parametrize("step", EXAMPLES, ids=lambda step: type(step).__name__)
def test_every_step_owns_one_target_and_can_be_read_by_people(step: steps.Step):
    kind, _, rest = step.target.partition(":")
    assert kind
    assert rest
    assert step.describe()


def test_a_step_that_only_a_newer_airgap_knows_is_refused():
    with pytest.raises(HostUnsuitable, match="holds a step 'Teleport'") as caught:
        step_from_json({"type": "Teleport", "path": "/"})
    assert "newer" in caught.value.hint


@pytest.mark.parametrize("row", [{"type": "Link", "path": "/x"}, {"type": "Link", "path": "/x", "to": "y", "more": 1}])
def test_a_step_with_missing_or_unknown_fields_is_refused(row: dict):
    with pytest.raises(HostUnsuitable, match="step Link cannot be read"):
        step_from_json(row)
