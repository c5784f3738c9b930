"""Programs placed out of a bundle: all or none, of this machine only, verified, remembered."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from airgap.errors import BundleError, DigestMismatch
from airgap.oci import Digest, Platform
from airgap.offline.changes import Context
from airgap.offline.changes.files import PLACED, Linked, Placed, Written
from airgap.steps import Link, PlaceFiles, WriteFile
from tests.bundles import tar
from tests.fakes import AMD64, Machine, program, tree


class Carried:
    """A bundle of one content, which may turn out wrong at its end."""

    def __init__(self, data: bytes, *, wrong: bool = False) -> None:
        self.data, self.wrong = data, wrong

    @property
    def digest(self) -> Digest:
        return Digest(hashlib.sha256(self.data).hexdigest())

    def content(self, digest: Digest) -> Iterator[bytes]:
        assert digest == self.digest
        for start in range(0, len(self.data), 700):
            yield self.data[start : start + 700]
        if self.wrong:
            raise DigestMismatch("not what was promised")

    def open(self, digest: Digest) -> IO[bytes]:
        raise AssertionError(digest)

    def read(self, digest: Digest, *, limit: int) -> bytes:
        raise AssertionError(digest)


ARM64 = Platform("linux", "arm64")
FILES = {"docker/docker": program("docker"), "docker/dockerd": program("dockerd"), "docker/README": b"text"}
NAMES = (("docker/docker", "/opt/g/docker"), ("docker/dockerd", "/opt/g/dockerd"), ("docker/ctr", "/opt/g/ctr"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


def context(machine: Machine, carried: Carried) -> Context:
    return Context(host=machine.host(), saved=machine.root.parent / "saved", bundle=carried)


def step(carried: Carried, **words: object) -> PlaceFiles:
    return PlaceFiles(**{"content": carried.digest, "size": len(carried.data), "members": NAMES, "platform": AMD64,
                         "optional": ("docker/ctr",), **words})  # fmt: skip


def test_only_the_named_members_are_placed_and_a_second_look_finds_them(machine: Machine):
    carried = Carried(tar(FILES))
    ctx, asked = context(machine, carried), step(carried)
    assert Placed().before(asked, ctx) is not None
    Placed().apply(asked, ctx)
    assert ctx.host.names("/opt/g") == ("docker", "dockerd")
    assert ctx.host.path("/opt/g/docker").stat().st_mode & 0o777 == 0o755
    assert Placed().before(asked, ctx) is None


@pytest.mark.parametrize("spoil", ["changed", "gone", "mode", "link", "extra", "forgotten"])
def test_a_file_that_is_not_as_it_was_placed_is_placed_again(machine: Machine, spoil: str):
    carried = Carried(tar(FILES))
    ctx, asked = context(machine, carried), step(carried)
    Placed().apply(asked, ctx)
    place = ctx.host.path("/opt/g/docker")
    if spoil == "changed":
        place.write_bytes(program("other"))
    elif spoil == "gone":
        place.unlink()
    elif spoil == "mode":
        place.chmod(0o644)
    elif spoil == "link":
        place.rename(place.with_name("moved"))
        place.symlink_to("moved")
    elif spoil == "extra":
        ctx.host.path("/opt/g/ctr").write_bytes(program("from elsewhere"))
    else:
        ctx.host.path(f"{PLACED}/{carried.digest.hex}.json").write_text("{")
    assert Placed().before(asked, ctx) is not None
    Placed().apply(asked, ctx)
    assert Placed().before(asked, ctx) is None


def test_undo_takes_files_folders_and_the_memory_away(machine: Machine):
    carried = Carried(tar(FILES))
    ctx, asked = context(machine, carried), step(carried)
    was = tree(machine.root, without=("proc",))
    record = Placed().before(asked, ctx)
    Placed().apply(asked, ctx)
    for _ in range(2):
        Placed().undo(asked, record, ctx)
    assert tree(machine.root, without=("proc",)) == was


@pytest.mark.parametrize(
    ("carried", "words"),
    [
        (Carried(tar(FILES), wrong=True), "not what was promised"),
        (Carried(tar({**FILES, "docker/dockerd": program("x", ARM64)})), "a program for arm64; this host is linux/amd64"),
        (Carried(tar({**FILES, "docker/dockerd": b"#!/bin/sh\n" * 9})), "is no program"),
        (Carried(tar({**FILES, "docker/dockerd": b"\x7f"})), "is no program"),
        (Carried(tar({"docker/docker": program("docker")})), "lacks docker/dockerd"),
        (Carried(tar(FILES)[:600]), "no whole tar"),
        (Carried(tar({**FILES, "./docker/docker": program("twice")})), "there twice"),
    ],
    ids=["digest", "machine", "script", "tiny", "lacking", "cut", "twice"],
)  # fmt: skip
def test_a_content_that_is_wrong_places_nothing_at_all(machine: Machine, carried: Carried, words: str):
    ctx = context(machine, carried)
    ctx.host.write("/opt/g/docker", b"old", mode=0o755)
    was = tree(machine.root)
    with pytest.raises(BundleError, match=words):
        Placed().apply(step(carried), ctx)
    assert tree(machine.root) == was


def test_a_plain_file_is_its_own_content(machine: Machine):
    carried = Carried(program("buildx"))
    ctx, asked = context(machine, carried), step(carried, members=(("", "/opt/g/buildx"),), optional=())
    Placed().apply(asked, ctx)
    assert ctx.host.read("/opt/g/buildx") == carried.data
    assert Placed().before(asked, ctx) is None


def test_a_text_is_written_when_content_mode_or_type_differ(machine: Machine):
    ctx, asked = context(machine, Carried(b"")), WriteFile(path="/etc/x", text="ä\n", mode=0o640)
    place = machine.root / "etc/x"

    def replaced() -> None:
        place.unlink()
        place.symlink_to("/etc/passwd")

    for spoil in (lambda: None, lambda: place.write_text("b"), lambda: place.chmod(0o644), replaced):
        spoil()
        assert Written().before(asked, ctx) is not None
        Written().apply(asked, ctx)
        assert Written().before(asked, ctx) is None


def test_a_link_is_set_when_it_leads_elsewhere_or_is_none(machine: Machine):
    ctx, asked = context(machine, Carried(b"")), Link("/usr/local/bin/x", "/opt/x")
    record = Linked().before(asked, ctx)
    Linked().apply(asked, ctx)
    assert Linked().before(asked, ctx) is None
    Linked().undo(asked, record, ctx)
    assert ctx.host.names("/usr/local/bin") == ()
