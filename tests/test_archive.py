from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from airgap.bundle import ustar
from airgap.bundle.archive import Bundle, verify
from airgap.errors import AirgapError, BundleError, DigestMismatch, FetchError, UsageError
from airgap.oci import Digest, ImageManifest
from tests.sample import ingredients

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    parts = ingredients(folder)
    return parts, parts.write(folder / "airgap-site-7.tar")


class Counting:
    """Progress that keeps what it was told."""

    def __init__(self):
        self.said, self.done, self.totals = [], 0, []

    def gauge(self, what, total, unit="B"):
        self.totals.append(total)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def advance(self, size):
        self.done += size

    def say(self, event, text, **facts):
        self.said.append(event)


def changed(path, target, *edits):
    data = bytearray(path.read_bytes())
    for offset, value in edits:
        data[offset : offset + len(value)] = value
    target.write_bytes(data)
    return target


def members_of(path):
    """Name -> (header offset, data offset, size), by Python's own tar."""
    with tarfile.open(path) as tar:
        return {m.name: (m.offset, m.offset_data, m.size) for m in tar}


def rebuilt(path, target, order):
    """The file again, from these (name, data) members with our own headers."""
    with target.open("wb") as out:
        for name, data in order:
            out.write(ustar.header(name, len(data)) + data + bytes(ustar.padding(len(data))))
        out.write(ustar.END)
    return target


def parts_of(path):
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar]


def refusal(path) -> AirgapError:
    with pytest.raises(BundleError) as caught, Bundle.at(path) as bundle:
        verify(bundle)
    assert str(path) in caught.value.message or path.name in caught.value.message
    return caught.value


def test_a_bundle_opens_verifies_and_gives_back_every_content(made):
    parts, path = made
    with Bundle.at(path) as bundle:
        assert bundle.lock.dump() == parts.lock
        assert bundle.index.data == parts.index.data
        report = verify(bundle)
        assert report.size == path.stat().st_size
        assert report.blobs == len(set(parts.blobs) | {parts.index.lock_blob.digest, Digest.of(parts.index.artifact)})
        for item in bundle.lock.files:
            content = b"".join(bundle.content(item.content.digest))
            assert (Digest.of(content), len(content)) == (item.content.digest, item.content.size)
        for digest in parts.blobs:
            with bundle.open(digest) as file:
                assert Digest.of(file.read()) == digest
            assert bundle.has(digest)


def test_the_same_ingredients_give_the_same_bytes(made, tmp_path):
    _, path = made
    again = ingredients(tmp_path).write(tmp_path / "again.tar")
    assert subprocess.run(["cmp", path, again], check=False).returncode == 0


def test_members_are_in_the_order_of_the_design_with_fixed_owner_mode_and_time(made):
    parts, path = made
    with tarfile.open(path) as tar:
        found = tar.getmembers()
    names = [m.name for m in found]
    assert names[:4] == ["install.sh", "README.txt", "oci-layout", "index.json"]
    assert names[4] == f"blobs/sha256/{parts.index.lock_blob.digest.hex}"
    documents = 1 + sum(1 + len(i.manifests) for i in parts.index.lock.images)
    assert names[5 : 5 + documents] == sorted(names[5 : 5 + documents])
    assert names[5 + documents :] == sorted(names[5 + documents :])
    assert {(m.uid, m.gid, m.mtime, m.uname, m.gname) for m in found} == {(0, 0, 0, "", "")}
    assert [m.name for m in found if m.mode != 0o644] == ["install.sh"]


def test_opening_reads_little_however_large_the_payload(tmp_path):
    parts = ingredients(tmp_path, files={"large": os.urandom(9 << 20)})
    path = parts.write(tmp_path / "large.tar")
    with Bundle.at(path) as bundle:
        asked = []

        class Seen(Bundle):
            def pread_into(self, offset, view):
                asked.append(len(view))
                super().pread_into(offset, view)

        with Seen.at(path):
            assert sum(asked) < 200_000
        assert bundle.size > 9 << 20


def test_verify_tells_of_every_byte_of_every_blob(made):
    _, path = made
    progress = Counting()
    with Bundle.at(path) as bundle:
        verify(bundle, progress=progress)
        assert progress.done == progress.totals[0] == sum(place.size for place in bundle.blobs.values())


def test_verify_names_the_damaged_member_with_expected_and_found(made, tmp_path):
    parts, path = made
    target = next(item for item in parts.index.carried if item.artifact.name == "tool").blob.digest
    _, start, size = members_of(path)[f"blobs/sha256/{target.hex}"]
    bad = changed(path, tmp_path / "bad.tar", (start + size // 2, b"\x00\xff"))
    with Bundle.at(bad) as bundle, pytest.raises(DigestMismatch) as caught:
        verify(bundle)
    assert caught.value.exit_code == 11
    found = Digest.of(bad.read_bytes()[start : start + size])
    for word in (target.hex, "tool.bin", f"expected {target}", f"found    {found}"):
        assert word in caught.value.message


def test_who_reads_a_damaged_blob_never_gets_its_last_bytes(made, tmp_path):
    parts, path = made
    for item in parts.index.carried:
        _, start, size = members_of(path)[f"blobs/sha256/{item.blob.digest.hex}"]
        bad = changed(path, tmp_path / "bad.tar", (start + size - 1, b"\x55"))
        got: list[bytes] = []
        with Bundle.at(bad) as bundle, pytest.raises(DigestMismatch):
            got.extend(bundle.content(item.artifact.content.digest))
        assert sum(map(len, got)) < item.artifact.content.size


def test_every_byte_of_the_metadata_is_guarded(tmp_path):
    parts = ingredients(tmp_path, files={})
    path = parts.write(tmp_path / "small.tar")
    data = path.read_bytes()
    payload = set(parts.blobs) - {d for i in parts.index.lock.images for d in (i.root.digest, *(c.digest for c in i.manifests))}
    skip = set()
    for name, (_, start, size) in members_of(path).items():
        if name.startswith("blobs/") and Digest(name.rpartition("/")[2]) in payload:
            skip |= set(range(start, start + size))
        elif name != "index.json":
            # Found by one hash over all of it: a sample of its bytes is as good. Headers and index are tried byte by byte.
            skip |= set(range(start, start + size)) - set(range(start, start + size, 11)) - {start + size - 1}
    # Image indexes are read by verify only; all else is refused by opening alone.
    roots = [members_of(path)[f"blobs/sha256/{i.root.digest.hex}"] for i in parts.index.lock.images]
    late = {offset for _, start, size in roots for offset in range(start, start + size)}
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data)
    fd = os.open(bad, os.O_RDWR)
    accepted, codes = [], set()
    try:
        for offset in range(len(data)):
            if offset in skip:
                continue
            os.pwrite(fd, bytes([data[offset] ^ (1 << offset % 8)]), offset)
            try:
                with Bundle.at(bad) as bundle:
                    if offset in late:
                        verify(bundle)
                accepted.append(offset)
            except BundleError as refused:
                codes.add(refused.exit_code)
            os.pwrite(fd, data[offset : offset + 1], offset)
    finally:
        os.close(fd)
    assert not accepted
    assert codes == {10, 11}


def test_a_bundle_cut_anywhere_is_refused(made, tmp_path):
    _, path = made
    data = path.read_bytes()
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data)
    offsets = sorted({0, 1, 511, *range(0, len(data), 61)}, reverse=True)
    for name, (head, start, size) in members_of(path).items():
        offsets += [head, head + 1, start - 1, start, start + size] if name else []
    for length in sorted(set(offsets) - {len(data)}, reverse=True):
        os.truncate(bad, length)
        with pytest.raises(BundleError) as caught:
            Bundle.at(bad).close()
        assert caught.value.exit_code == 10
        assert "cut off" in caught.value.message or "empty" in caught.value.message, (length, caught.value.message)


def test_members_dropped_doubled_added_swapped_or_grown_are_refused(made, tmp_path):
    _, path = made
    parts = parts_of(path)
    bad = tmp_path / "bad.tar"
    for number, (name, data) in enumerate(parts):
        rest = parts[:number] + parts[number + 1 :]
        cases = [
            rest,
            [*parts[: number + 1], *parts[number:]],
            [*rest, parts[number]] if number + 1 < len(parts) else [parts[-1], *rest],
            [*parts[:number], (name, data + b"x"), *parts[number + 1 :]],
            [*parts[:number], (name, data[:-1]), *parts[number + 1 :]],
            [*parts[:number], ("blobs/sha256/" + "0" * 64, b"stranger"), *parts[number:]],
            [*parts[:number], (name.upper(), data), *parts[number:]],
        ]
        for case in cases:
            refusal(rebuilt(path, bad, case))
        assert "nothing in the bundle names it" in refusal(rebuilt(path, bad, cases[-2])).message or number < 4
    # The same way round it is accepted: the refusals are not the rebuilding's fault.
    Bundle.at(rebuilt(path, bad, parts)).close()
    assert bad.read_bytes() == path.read_bytes()


def test_a_signature_is_given_to_the_one_who_trusts_before_anything_is_parsed(made, tmp_path):
    _, path = made
    parts = parts_of(path)
    seen = []
    signed = rebuilt(path, tmp_path / "signed.tar", [*parts[:4], ("index.json.minisig", b"signature"), *parts[4:]])
    with Bundle.at(signed, trust=lambda index, signature: seen.append((index, signature))) as bundle:
        assert bundle.signature == b"signature"
        verify(bundle)
    assert seen == [(parts[3][1], b"signature")]
    garbage = rebuilt(path, tmp_path / "garbage.tar", [*parts[:3], ("index.json", b"not json"), *parts[4:]])
    with pytest.raises(ZeroDivisionError):
        Bundle.at(garbage, trust=lambda index, signature: [][1 // 0])
    refusal(rebuilt(path, tmp_path / "big.tar", [*parts[:4], ("index.json.minisig", b"s" * 4097), *parts[4:]]))
    refusal(rebuilt(path, tmp_path / "late.tar", [*parts, ("index.json.minisig", b"signature")]))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE,
     tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME],
)  # fmt: skip
def test_only_plain_files_are_let_in(made, tmp_path, kind):
    _, path = made
    info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    info.type, info.linkname = kind, "/etc/passwd"
    data = path.read_bytes()
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data[: -len(ustar.END)] + info.tobuf(tarfile.GNU_FORMAT)[-512:] + ustar.END)
    assert "plain files only" in refusal(bad).message


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "blobs/sha256/../../x", "blobs/sha512/" + "0" * 64, "x", "INSTALL.SH",
     "blobs/sha256/" + "A" * 64, "blobs/sha256/" + "0" * 63, "oci-layout/", "in\x1b[2Jstall"],
)  # fmt: skip
def test_only_known_names_are_let_in(made, tmp_path, name):
    _, path = made
    bad = tmp_path / "bad.tar"
    bad.write_bytes(path.read_bytes()[: -len(ustar.END)] + ustar.header(name, 0) + ustar.END)
    said = refusal(bad)
    assert said.exit_code == 10
    assert "\x1b" not in said.message


def test_nothing_may_follow_the_end(made, tmp_path):
    _, path = made
    for tail in (b"\0", b"\0" * 512, b"x", b"\0" * 10240):
        bad = tmp_path / "bad.tar"
        bad.write_bytes(path.read_bytes() + tail)
        assert "follows its end" in refusal(bad).message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\0" * 1024, "is empty"),
        (b"hello", "is not a tar"),
        (b"hello" * 999, "is not a tar"),
        (b"<!DOCTYPE html><html>login</html>", "web page"),
        (b"\r\n <html>" + b" " * 2000, "web page"),
        (b"\x1f\x8b" + b"x" * 2000, "gzip"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 2000, "zstd"),
        (b"\xfd7zXZ" + b"x" * 2000, "xz"),
        (b"PK\x03\x04" + b"x" * 2000, "zip"),
        (b"\x7fELF" + b"x" * 2000, "program"),
    ],
)
def test_what_is_no_bundle_is_called_by_its_name(tmp_path, data, words):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    assert words in refusal(path).message


def test_other_tars_folders_pipes_and_missing_files_are_called_by_their_name(tmp_path):
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as tar:
        tar.add(__file__, "manifest.json")
    assert "no airgap bundle" in refusal(other).message
    assert "folder" in refusal(tmp_path).message
    assert "No such file" in refusal(tmp_path / "missing.tar").message
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(tmp_path / "pipe").message


def test_a_file_of_8_gib_and_more_has_a_header_that_old_tars_read(tmp_path):
    path = tmp_path / "huge.tar"
    size = 9 << 30
    with path.open("wb") as file:
        file.write(ustar.header("blobs/sha256/" + "0" * 64, size))
        file.truncate(512 + size)
        file.seek(0, 2)
        file.write(ustar.END)
    assert ustar.parse(ustar.header("blobs/sha256/" + "0" * 64, size))[1] == size
    listing = subprocess.run(["tar", "-tvf", path], capture_output=True, text=True, check=True).stdout
    assert str(size) in listing
    with tarfile.open(path) as tar:
        assert tar.getmembers()[0].size == size


# ---- writing -----------------------------------------------------------------------------------------------------------


def test_an_identical_bundle_is_left_and_a_damaged_or_older_one_is_replaced(tmp_path):
    parts = ingredients(tmp_path)
    path = parts.write(tmp_path / "b.tar")
    before = path.stat()
    progress = Counting()
    parts.write(path, progress=progress)
    assert progress.said == ["unchanged"]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    parts.write(path)
    assert path.read_bytes() == good
    ingredients(tmp_path / "newer", serial=8).write(path)
    assert path.read_bytes() != good


def leftovers(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path):
    parts = ingredients(tmp_path / "x")
    target = tmp_path / "out"
    target.mkdir()

    class Interrupting(Counting):
        def advance(self, size):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.write(target / "b.tar", progress=Interrupting())
    assert leftovers(target) == []


def test_a_blob_that_changed_its_size_in_the_store_is_found(tmp_path):
    parts = ingredients(tmp_path / "x")
    target = tmp_path / "out"
    target.mkdir()
    place = parts.store.path(next(iter(parts.blobs)))
    data = place.read_bytes()
    place.unlink()
    with pytest.raises(BundleError, match="lacks"):
        parts.write(target / "b.tar")
    place.write_bytes(data + b"x")
    with pytest.raises(DigestMismatch, match="no longer has"):
        parts.write(target / "b.tar")
    assert leftovers(target) == []


def test_a_file_system_that_ends_leaves_nothing_and_says_so(tmp_path):
    parts = ingredients(tmp_path / "x")
    target = tmp_path / "out"
    target.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(FetchError, match="takes no file of"):
            parts.write(target / "b.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert leftovers(target) == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small file system needs root")
def test_a_full_disk_is_found_before_anything_is_written(tmp_path):
    parts = ingredients(tmp_path / "x", files={"large": os.urandom(1 << 20)})
    target = tmp_path / "out"
    target.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", target], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        progress = Counting()
        with pytest.raises(FetchError, match=r"needs \d+ bytes, 524288 are free") as caught:
            parts.write(target / "b.tar", progress=progress)
        assert progress.totals == []
        assert caught.value.exit_code == 6
        assert leftovers(target) == []
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        ingredients(tmp_path).write(tmp_path / "missing" / "b.tar")


def test_images_can_be_read_down_to_their_layers(made):
    _, path = made
    with Bundle.at(path) as bundle:
        for image in bundle.lock.images:
            for child in image.manifests:
                manifest = ImageManifest.parse(bundle.read(child.digest, limit=1 << 20), name="x", error=BundleError)
                assert all(bundle.has(blob.digest) for blob in manifest.blobs)
        with pytest.raises(BundleError, match="more than the 10"):
            bundle.read(bundle.lock.images[0].root.digest, limit=10)
        with pytest.raises(BundleError, match="lacks"):
            bundle.open(Digest("0" * 64))
        with pytest.raises(BundleError, match="no file with the content"):
            bundle.content(Digest("0" * 64))
