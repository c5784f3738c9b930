"""The site registry: its storage as distribution writes it, its words, and what it answers for images that are not there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from airgap.kinds import registry
from airgap.kinds.registry import ROOT, USER, absent, repository
from airgap.oci import ImageManifest, Reference
from airgap.offline.changes import Context
from airgap.offline.changes.registry import Stocked
from airgap.steps import ServeImage
from tests import sample
from tests.fakes import Machine
from tests.test_changes_images import Blobs

V2 = f"{ROOT}/docker/registry/v2"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "host")
    machine.write("/etc/passwd", f"root:x:0:0::/root:/bin/sh\n{USER}:x:{os.geteuid()}:{os.getegid()}::/:/bin/false\n")
    return machine


@pytest.fixture
def things(tmp_path: Path) -> sample.Ingredients:
    return sample.ingredients(tmp_path / "pack", images=2)


def context(machine: Machine, things: sample.Ingredients) -> Context:
    return Context(host=machine.host(), saved=machine.root.parent / "saved", bundle=Blobs(things))


def serve(things: sample.Ingredients, *, text: bytes = b"0\n", name: str = "library/tiny", tag: str = "1") -> ServeImage:
    image = sample.image(things.store, text=text)
    return ServeImage(root=ROOT, owner=USER, repository=name, tag=tag, top=image.root, manifests=image.manifests, size=image.size)


def files(machine: Machine) -> dict[str, bytes]:
    root = machine.root / ROOT[1:]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_every_blob_is_stored_under_its_digest_and_every_name_links_to_upstreams_own(machine: Machine, things: sample.Ingredients):
    ctx, step = context(machine, things), serve(things)
    assert Stocked().before(step, ctx) is not None
    Stocked().apply(step, ctx)
    found = files(machine)
    base = "docker/registry/v2"
    assert found[f"{base}/repositories/library/tiny/_manifests/tags/1/current/link"] == str(step.top.digest).encode()
    for item in (step.top, *step.manifests):
        assert found[f"{base}/blobs/sha256/{item.digest.hex[:2]}/{item.digest.hex}/data"] == things.store.read(item.digest, limit=1 << 20)
        assert f"{base}/repositories/library/tiny/_manifests/revisions/sha256/{item.digest.hex}/link" in found
    manifest = ImageManifest.parse(things.store.read(step.manifests[0].digest, limit=1 << 20), name="m", error=ValueError)
    for blob in manifest.blobs:
        assert found[f"{base}/repositories/library/tiny/_layers/sha256/{blob.digest.hex}/link"] == str(blob.digest).encode()
    assert Stocked().before(step, ctx) is None, "what is served needs nothing"


def test_undone_it_leaves_nothing_behind_and_twice_is_as_once(machine: Machine, things: sample.Ingredients):
    ctx, step = context(machine, things), serve(things)
    record = Stocked().before(step, ctx)
    assert record is not None
    Stocked().apply(step, ctx)
    for _ in range(2):
        Stocked().undo(step, record, ctx)
        assert files(machine) == {}
        assert not (machine.root / ROOT[1:]).exists()


def test_a_blob_that_another_repository_uses_by_now_stays(machine: Machine, things: sample.Ingredients):
    ctx, step, pushed = context(machine, things), serve(things), serve(things, name="team/app")
    record = Stocked().before(step, ctx)
    assert record is not None
    Stocked().apply(step, ctx)
    Stocked().apply(pushed, ctx)
    Stocked().undo(step, record, ctx)
    assert Stocked().before(pushed, ctx) is None
    assert not any("library/tiny" in name for name in files(machine))


def test_a_tag_that_moved_goes_back_to_what_it_named(machine: Machine, things: sample.Ingredients):
    ctx, old, new = context(machine, things), serve(things), serve(things, text=b"new\n")
    Stocked().apply(old, ctx)
    before = files(machine)
    record = Stocked().before(new, ctx)
    assert record is not None
    Stocked().apply(new, ctx)
    assert Stocked().before(old, ctx) is not None
    Stocked().undo(new, record, ctx)
    assert files(machine) == before


def test_a_blob_cut_short_by_a_lost_disk_is_written_again(machine: Machine, things: sample.Ingredients):
    ctx, step = context(machine, things), serve(things)
    Stocked().apply(step, ctx)
    place = machine.root / f"{V2}/blobs/sha256/{step.top.digest.hex[:2]}/{step.top.digest.hex}/data"[1:]
    place.write_bytes(b"{")
    assert Stocked().before(step, ctx) is not None
    Stocked().apply(step, ctx)
    assert Stocked().before(step, ctx) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("alpine:3.22", "library/alpine"),
        ("docker/dockerfile:1", "docker/dockerfile"),
        ("quay.io/org/tool:1", "quay.io/org/tool"),
        ("harbor.site:8443/team/app:1", "harbor.site-8443/team/app"),
    ],
)
def test_hubs_images_stand_at_their_own_names_and_others_below_their_registrys(name: str, place: str):
    assert repository(Reference.parse(name)) == place


SHELLS = [words for words in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(words[0])]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("HEAD /v2/library/python/manifests/3.13?ns=docker.io", "399 docker.io/library/python:3.13 is not on this site"),
        ("HEAD /v2/library/python/manifests/3.13", "399 docker.io/library/python:3.13 is not on this site"),
        ("GET /v2/org/tool/manifests/1?ns=quay.io", "399 quay.io/org/tool:1 is not on this site"),
        ("GET /v2/quay.io/org/tool/manifests/1?ns=quay.io", "399 quay.io/org/tool:1 is not on this site"),
        ("HEAD /v2/a/manifests/sha256:00?ns=docker.io", "399 docker.io/a@sha256:00 is not on this site"),
        ("GET /v2/a$(id)`id`;x/manifests/1?ns=docker.io", "399 docker.io/aididx:1 is not on this site"),
        ("GET /v2/", "200 OK"),
        ("GET /v2/a/blobs/sha256:00", "404 Not Found"),
        ("GET /", "404 Not Found"),
    ],
)
def test_what_the_site_lacks_is_answered_in_one_line_whatever_was_asked(
    shell: list[str], request_line: str, status: str, tmp_path: Path
):
    script = tmp_path / "absent"
    script.write_text(absent())
    asked = f"{request_line} HTTP/1.1\r\nHost: depot:5001\r\nAccept: */*\r\n\r\n".encode()
    done = subprocess.run([*shell, str(script)], input=asked, capture_output=True, timeout=10, check=True)
    lines = done.stdout.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {status}"), lines
    assert lines[-2:] == ["", ""]
    assert done.stderr == b""


def test_the_status_is_one_that_ends_a_search_through_mirrors():
    # containerd goes on to the next host for 404 and above 399, and follows 301, 302, 303, 307 and 308.
    assert 299 < registry.ABSENT < 400
    assert registry.ABSENT not in (301, 302, 303, 307, 308)
    assert f'answer "{registry.ABSENT} ' in absent()
