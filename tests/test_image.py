from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile

import pytest

from airgap.bundle import frames
from airgap.bundle.archive import Bundle
from airgap.bundle.image import docker_archive, image_file
from airgap.bundle.layer import Layer, normal
from airgap.bundle.store import Store
from airgap.document import parse_json
from airgap.errors import BundleError, DigestMismatch
from airgap.oci import CONTAINERD_NAME, REF_NAME, Descriptor, Digest, ImageManifest, Reference
from tests.sample import AMD64, LAYER, ingredients, one_platform, tar

CONFIG = Descriptor(media_type="x", digest=Digest.of(b"{}"), size=2)


class Image:
    """Layers, lowest first, in memory."""

    def __init__(self, *layers: bytes):
        self.blobs = {Digest.of(layer): layer for layer in layers}
        self.manifest = ImageManifest(
            CONFIG, tuple(Descriptor(media_type=LAYER, digest=Digest.of(layer), size=len(layer)) for layer in layers)
        )

    def open(self, digest):
        return io.BytesIO(self.blobs[digest])

    def file(self, path) -> bytes:
        return b"".join(image_file(self.open, self.manifest, path))

    def lacks(self, path) -> bool:
        with pytest.raises(BundleError):
            self.file(path)
        return True


def link(path, to, *, hard=False):
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, to
    return info


def folder(path):
    info = tarfile.TarInfo(path)
    info.type = tarfile.DIRTYPE
    return info


def test_the_topmost_layer_wins_and_lower_ones_show_through():
    image = Image(tar(("bin/a", b"old"), ("bin/b", b"b")), tar(("bin/a", b"new")))
    assert image.file("bin/a") == b"new"
    assert image.file("/bin/b") == b"b"
    assert image.file("./bin//b") == b"b"
    assert image.lacks("bin/c")
    assert image.lacks("bin")
    assert image.lacks("")


def test_whiteouts_hide_files_folders_and_what_is_below_opaque_ones():
    lower = tar(("bin/a", b"a"), ("opt/x/y", b"y"), ("etc/keep", b"k"), ("var/z", b"z"))
    assert Image(lower, tar(("bin/.wh.a", b""))).lacks("bin/a")
    assert Image(lower, tar(("opt/.wh.x", b""))).lacks("opt/x/y")
    assert Image(lower, tar((".wh.opt", b""))).lacks("opt/x/y")
    assert Image(lower, tar(("opt/.wh..wh..opq", b""))).lacks("opt/x/y")
    assert Image(lower, tar((".wh..wh..opq", b""))).lacks("var/z")
    assert Image(lower, tar(("bin/.wh.a", b""))).file("etc/keep") == b"k"
    assert Image(lower, tar(("bin/.wh.a", b"")), tar(("bin/a", b"again"))).file("bin/a") == b"again"
    # A whiteout hides what is below it, never what its own layer brings, wherever in the layer that comes.
    assert Image(lower, tar(("opt/x/y", b"mine"), ("opt/x/.wh..wh..opq", b""))).file("opt/x/y") == b"mine"
    assert Image(lower, tar(("opt/x/.wh..wh..opq", b""), ("opt/x/y", b"mine"))).file("opt/x/y") == b"mine"


def test_a_file_in_the_place_of_a_folder_or_a_folder_in_the_place_of_a_file_hides_it():
    lower = tar(("opt/x/y", b"y"), ("bin/a", b"a"))
    assert Image(lower, tar(("opt/x", b"now a file"))).lacks("opt/x/y")
    assert Image(lower, tar(folder("bin/a"))).lacks("bin/a")
    assert Image(lower, tar(folder("bin"), folder("opt/x"))).file("opt/x/y") == b"y"


def test_links_are_followed_inside_the_image_only():
    usr = tar(link("bin", "usr/bin"), ("usr/bin/tool-1", b"tool"), link("usr/bin/tool", "tool-1"))
    assert Image(usr).file("bin/tool") == b"tool"
    assert Image(usr, tar(("usr/bin/tool-1", b"newer"))).file("bin/tool") == b"newer"
    assert Image(tar(link("a", "/../../b"), ("b", b"b"))).file("a") == b"b"
    assert Image(tar(link("x/a", "../b"), ("b", b"b"))).file("x/a") == b"b"
    assert Image(tar(link("a", "/etc/passwd"))).lacks("a")
    assert Image(tar(link("a", "b"), link("b", "a"))).lacks("a")
    assert Image(tar(link("a", "a/a"))).lacks("a")


def test_hard_links_are_the_file_that_their_own_layer_or_one_below_has():
    assert Image(tar(("bin/real", b"r"), link("bin/other", "bin/real", hard=True))).file("bin/other") == b"r"
    assert Image(tar(("bin/real", b"r")), tar(link("bin/other", "bin/real", hard=True))).file("bin/other") == b"r"
    upper = tar(("bin/real", b"changed later"))
    assert Image(tar(("bin/real", b"r"), link("bin/other", "bin/real", hard=True)), upper).file("bin/other") == b"r"
    assert Image(tar(link("a", "a", hard=True))).lacks("a")


def test_layers_are_read_however_they_are_compressed_and_named(tmp_path):
    store = Store(tmp_path / "store")
    plain = tar(("bin/" + "long" * 60, b"x" * 3_000_000), ("übung/ä", b"ae"))
    zstd = store.path(frames.compress(store.path(store.add(plain)), store, gzipped=False, name="x").blob.digest).read_bytes()
    half = len(plain) // 2
    for layer in (plain, gzip.compress(plain), gzip.compress(plain[:half]) + gzip.compress(plain[half:]), zstd):
        assert Image(layer).file("bin/" + "long" * 60) == b"x" * 3_000_000
        assert Image(layer).file("übung/ä") == b"ae"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(form):
    buffer = io.BytesIO()
    name = "/".join(["d" * 40] * 4) + "/file"
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        info = tarfile.TarInfo(name)
        info.size = 5
        made.addfile(info, io.BytesIO(b"hello"))
    assert Image(buffer.getvalue()).file(name) == b"hello"


def test_a_layer_of_gnu_tar_and_one_without_end_mark_are_read(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / ("n" * 120)).write_bytes(b"gnu")
    data = subprocess.run(["tar", "-C", tmp_path, "-cf", "-", "./bin"], stdout=subprocess.PIPE, check=True).stdout
    assert Image(data).file("bin/" + "n" * 120) == b"gnu"
    assert Image(tar(("a", b"a"))[:1024]).file("a") == b"a"


def huge_header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)[-512:]


@pytest.mark.parametrize(
    "layer",
    [
        b"",
        b"<html>" * 1000,
        tar(("a", b"x" * 5000))[:3000],
        gzip.compress(tar(("other", b"x" * 5000)))[:-20],
        gzip.compress(os.urandom(3000)),
        b"\x1f\x8b" + b"garbage" * 99,
        b"\x28\xb5\x2f\xfd" + b"garbage" * 99,
        huge_header(tarfile.XHDTYPE, 4 << 30) + bytes(4096),
        huge_header(tarfile.GNUTYPE_LONGNAME, 2 << 20) + bytes(4096),
        huge_header(tarfile.REGTYPE, -5) + bytes(4096),
        huge_header(tarfile.REGTYPE, 1 << 60) + bytes(4096),
        tar(("a", b"1"), ("a", b"2")),
    ],
)
def test_damaged_and_hostile_layers_are_bundle_errors(layer):
    assert Image(layer).lacks("a")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_asks_for_memory_gets_none(kind):
    layer = huge_header(kind, 3 << 20) + bytes(3 << 20) + tar(("a", b"a"))
    with pytest.raises(BundleError, match="more than any path needs"):
        Image(layer).file("a")


@pytest.mark.parametrize("layer", [tar(("a", b"found")), gzip.compress(tar(("a", b"found")))])
def test_damage_behind_the_file_and_behind_the_tar_is_found_all_the_same(layer):
    image = Image(layer + bytes(4 << 20) if layer[:1] == b"a" else layer)

    class Verified(io.BytesIO):
        def read(self, size=-1):
            data = super().read(size)
            if not data or self.tell() == len(self.getbuffer()):
                raise DigestMismatch("the layer is damaged")
            return data

        def readinto(self, buffer):
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    with pytest.raises(DigestMismatch):
        b"".join(image_file(lambda digest: Verified(image.blobs[digest]), image.manifest, "a"))


@pytest.mark.parametrize(
    "record",
    [b"9 path=a\n", b"99 path=a\n", b"path=a\n", b"0 path=a\n", b"-9 path=a\n", b"11 size=-1\n", b"12 size=1e9\n"],
)
def test_damaged_pax_records_are_bundle_errors(record):
    head = huge_header(tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0")
    found = Image(head + tar(("b", b"x")))
    if record == b"9 path=a\n":
        assert found.file("a") == b"x"
    else:
        assert found.lacks("b")


def test_a_bomb_is_stopped(tmp_path):
    info = tarfile.TarInfo("zeros")
    info.size = 2 << 30
    # 2 GiB of zeros in 8 KiB, as zstd has them: a frame of run-length blocks, 128 KiB each.
    blocks = (2 << 30) // (128 << 10)
    head = b"\x28\xb5\x2f\xfd\x00\x38"
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    raw = info.tobuf(tarfile.USTAR_FORMAT)
    first = (len(raw) << 3).to_bytes(3, "little") + raw
    with pytest.raises(BundleError, match="a hundred times its size"):
        Image(head + first + block * blocks + b"\x01\0\0").file("bin/tool")


def test_nothing_leads_above_the_root():
    assert [normal(path) for path in ("a/../..//b/.", "/", "..", "./a/", "a//b")] == ["b", "", "", "a", "a/b"]


def test_an_entry_whose_data_nobody_reads_is_passed_over():
    layer = Layer(iter([tar(("a", b"a" * 2000), ("b", b"b"))]), name="x")
    assert [(entry.path, entry.size) for entry in layer.entries()] == [("a", 2000), ("b", 1)]


# ---- docker_archive --------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    path = ingredients(tmp_path).write(tmp_path / "b.tar")
    with Bundle.at(path) as opened:
        yield opened


def archived(contents, manifest, reference) -> dict[str, bytes]:
    data = b"".join(docker_archive(contents, manifest, reference=reference))
    with tarfile.open(fileobj=io.BytesIO(data)) as made:
        members = {m.name: made.extractfile(m).read() for m in made}
        assert next(iter(members)) == "oci-layout"
        assert list(members)[-1] == "manifest.json"
    return members


def test_the_archive_is_an_oci_layout_and_a_docker_archive_of_one_platform(bundle):
    image = bundle.lock.images[0]
    for child in image.manifests:
        members = archived(bundle, child, image.reference)
        (only,) = json.loads(members["index.json"])["manifests"]
        assert only["digest"] == str(child.digest)
        assert only["annotations"] == {CONTAINERD_NAME: "docker.io/library/tiny:1", REF_NAME: "1"}
        (listed,) = json.loads(members["manifest.json"])
        manifest = ImageManifest.parse(members[f"blobs/sha256/{child.digest.hex}"], name="x", error=BundleError)
        assert listed["RepoTags"] == ["tiny:1"]
        assert listed["Config"] == f"blobs/sha256/{manifest.config.digest.hex}"
        assert listed["Layers"] == [f"blobs/sha256/{layer.digest.hex}" for layer in manifest.layers]
        for name in (listed["Config"], *listed["Layers"]):
            assert Digest.of(members[name]).hex == name.rpartition("/")[2]
        config = parse_json(members[listed["Config"]], name="config", error=BundleError)
        diffs = [Digest.of(gzip.decompress(members[name])) for name in listed["Layers"]]
        assert [str(item) for item in diffs] == list(config.get("rootfs").get("diff_ids").texts())


def test_a_reference_by_digest_alone_is_archived_without_a_name(bundle):
    image = bundle.lock.images[0]
    members = archived(bundle, image.manifests[0], Reference.parse(f"alpine@{image.root.digest}"))
    assert json.loads(members["manifest.json"])[0]["RepoTags"] == []
    assert "annotations" not in json.loads(members["index.json"])["manifests"][0]


def test_a_layer_listed_twice_is_carried_once(tmp_path):
    store = Store(tmp_path / "store")
    layer = gzip.compress(tar(("a", b"a")), mtime=0)
    child = one_platform(store, AMD64, layer, layer)

    class Stored:
        def open(self, digest):
            return store.path(digest).open("rb")

        def read(self, digest, *, limit):
            return store.read(digest, limit=limit)

    members = archived(Stored(), child, Reference.parse("twice:1"))
    assert len(json.loads(members["manifest.json"])[0]["Layers"]) == 2
    assert sum(name.startswith("blobs/") for name in members) == 3


def test_a_damaged_layer_never_makes_a_whole_archive(tmp_path):
    parts = ingredients(tmp_path)
    path = parts.write(tmp_path / "b.tar")
    image = parts.index.lock.images[0]
    child = image.manifests[0]
    manifest = ImageManifest.parse(parts.store.read(child.digest, limit=1 << 20), name="x", error=BundleError)
    with Bundle.at(path) as opened:
        place = opened.blobs[manifest.layers[-1].digest]
        whole = b"".join(docker_archive(opened, child, reference=image.reference))
    with path.open("r+b") as file:
        file.seek(place.offset + place.size // 2)
        file.write(b"\x00\xff\x00")
    got: list[bytes] = []
    with Bundle.at(path) as opened, pytest.raises(DigestMismatch):
        got.extend(docker_archive(opened, child, reference=image.reference))
    sent = b"".join(got)
    assert b"manifest.json" not in sent
    assert len(sent) < len(whole) - place.size


@pytest.mark.parametrize("size", [0, 5, 10_000])
def test_a_blob_of_another_size_than_its_manifest_says_ends_the_archive(tmp_path, size):
    store = Store(tmp_path / "store")
    child = one_platform(store, AMD64, gzip.compress(tar(("a", os.urandom(2000)))))

    class Lying:
        def open(self, digest):
            return io.BytesIO(bytes(size))

        def read(self, digest, *, limit):
            return store.read(digest, limit=limit)

    with pytest.raises(BundleError, match="bytes that its manifest says"):
        list(docker_archive(Lying(), child, reference=Reference.parse("x:1")))
