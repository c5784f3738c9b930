from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import zlib

import pytest

from airgap.bundle import frames
from airgap.bundle.frames import Frame, Packed
from airgap.bundle.store import Store
from airgap.bundle.streams import PIECE, ahead, gunzip
from airgap.document import dump_json, parse_json
from airgap.errors import BundleError, DigestMismatch, FetchError
from airgap.lock import Blob
from airgap.oci import Digest


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def some(size: int, seed: int = 1) -> bytes:
    """Bytes that compress a little, as programs do."""
    words = random.Random(seed).randbytes(4096)
    return (words * (size // 4096 + 1))[:size]


def packed(store, data, *, gzipped=False, name="tool") -> Packed:
    path = store.path(store.add(data))
    return frames.compress(path, store, gzipped=gzipped, name=name)


def reader(data):
    def read(offset, size):
        assert offset >= 0
        assert offset + size <= len(data)
        return data[offset : offset + size]

    return read


def blob_of(store, made) -> bytes:
    return store.path(made.blob.digest).read_bytes()


def content(store, made) -> bytes:
    return b"".join(frames.decompress(reader(blob_of(store, made)), made, name="tool"))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, (16 << 20) - 1, 16 << 20, (16 << 20) + 1, 21_000_001])
def test_what_is_compressed_comes_out_as_it_was(store, size):
    data = some(size)
    made = packed(store, data)
    assert made.content == Blob(Digest.of(data), size)
    assert made.blob == Blob(Digest.of(blob_of(store, made)), len(blob_of(store, made)))
    assert content(store, made) == data
    assert len(made.frames) == (2 if size >= 16 << 20 else 1)
    made.check(name="x", error=FetchError)


def test_a_large_content_is_undone_frame_by_frame_in_bounded_pieces(store):
    data = some(130 << 20)
    made = packed(store, data)
    assert len(made.frames) == 2
    assert max(frame.content for frame in made.frames) * 2 > frames.LARGEST_FRAME
    blob, position = blob_of(store, made), 0
    for piece in frames.decompress(reader(blob), made, name="tool"):
        assert len(piece) <= PIECE
        assert data[position : position + len(piece)] == piece
        position += len(piece)
    assert position == len(data)


def test_the_same_content_gives_the_same_blob_in_whatever_it_came(store):
    data = some(17 << 20)
    plain = packed(store, data)
    assert packed(store, gzip.compress(data, 1), gzipped=True) == plain
    assert packed(store, data) == plain


def test_gzip_of_several_members_with_padding_is_one_content(store):
    first, second = some(100_000, 1), some(200_000, 2)
    data = gzip.compress(first) + gzip.compress(b"") + gzip.compress(second) + bytes(512)
    assert content(store, packed(store, data, gzipped=True)) == first + second


@pytest.mark.parametrize("damage", ["cut", "cut head", "flip", "garbage behind", "empty", "no gzip", "checksum"])
def test_damaged_gzip_is_refused_by_the_name_of_its_source(store, damage):
    good = gzip.compress(some(3 << 20), 1)
    data = {
        "cut": good[:-9],
        "cut head": good[:5],
        "flip": good[:2000] + bytes([good[2000] ^ 0xFF]) + good[2001:],
        "garbage behind": good + b"<html>",
        "empty": b"",
        "no gzip": b"<html>" * 100,
        "checksum": good[:-8] + bytes(4) + good[-4:],
    }[damage]
    with pytest.raises(FetchError, match=r"https://upstream\.test/x\.tgz"):
        packed(store, data, gzipped=True, name="https://upstream.test/x.tgz")
    assert [path.name for path in store.partial.iterdir()] == []


def test_a_gzip_bomb_comes_out_in_small_pieces():
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(100)) + bomb.flush()
    sizes = [len(piece) for piece in gunzip(iter([data]), name="x", error=FetchError)]
    assert sum(sizes) == 100 << 20
    assert max(sizes) <= PIECE


def test_every_kind_of_wrong_blob_is_refused_before_its_last_piece(store):
    data = some(3 << 20) + b"the end"
    made = packed(store, data)
    blob = blob_of(store, made)
    rng = random.Random(5)
    refused = 0
    for offset in [*range(24), len(blob) - 1, *(rng.randrange(len(blob)) for _ in range(200))]:
        bad = blob[:offset] + bytes([blob[offset] ^ (1 << rng.randrange(8))]) + blob[offset + 1 :]
        got: list[bytes] = []
        try:
            got.extend(frames.decompress(reader(bad), made, name="tool"))
        except DigestMismatch:
            refused += 1
            assert sum(map(len, got)) < len(data)
        else:
            # A bit that zstd ignores: the content is right, and the blob's own digest is verify's business.
            assert b"".join(got) == data
    assert refused > 200


def test_declared_sizes_are_limits(store):
    bomb = packed(store, bytes(40 << 20))
    blob = blob_of(store, bomb)
    assert len(blob) < 10_000
    for lie in (1, 1 << 20, bomb.frames[0].content - 1, bomb.frames[0].content + 1):
        first = Frame(lie, bomb.frames[0].blob)
        told = Packed(Blob(bomb.content.digest, lie), Blob(bomb.blob.digest, first.blob), (first,))
        with pytest.raises(DigestMismatch, match=f"claims {bomb.frames[0].content} bytes, {lie} were declared"):
            list(frames.decompress(reader(blob), told, name="x"))
    told = Packed(Blob(Digest.of(b"other"), bomb.content.size), bomb.blob, bomb.frames)
    with pytest.raises(DigestMismatch, match="expected sha256:"):
        list(frames.decompress(reader(blob), told, name="x"))


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        (Frame(100, 50), Frame(1, 1)),
        (Frame(101, 50), Frame(-1, 0)),
        (Frame(100, 0), Frame(0, 50)),
        (Frame(100, 49),),
    ],
)
def test_frames_that_do_not_add_up_are_refused(wrong):
    told = Packed(Blob(Digest("0" * 64), 100), Blob(Digest("1" * 64), 50), wrong)
    with pytest.raises(DigestMismatch):
        list(frames.decompress(reader(bytes(50)), told, name="x"))


def test_a_frame_larger_than_ours_is_refused():
    size = frames.LARGEST_FRAME + 1
    with pytest.raises(FetchError, match="not one of ours"):
        Packed(Blob(Digest("0" * 64), size), Blob(Digest("1" * 64), 50), (Frame(size, 50),)).check(name="x", error=FetchError)


def test_notes_round_trip_and_unsound_ones_are_refused(store):
    made = packed(store, some(20 << 20))
    assert Packed.read(parse_json(dump_json(made.to_json()), name="note", error=FetchError)) == made
    for change in ({"frames": [[1, 2, 3]]}, {"frames": [[1]]}, {"frames": [["1", 2]]}, {"frames": [[1, 2]]}, {"frames": None}):
        with pytest.raises(FetchError):
            Packed.read(parse_json(dump_json(made.to_json() | change), name="note", error=FetchError))


def test_the_recipe_names_all_that_changes_bytes():
    for word in ("zstd 1.", "zstandard", "level 3", "window 27", "112 MiB"):
        assert word in frames.RECIPE


def test_somebody_elses_zstd_of_several_frames_is_expanded_and_damage_is_an_error_of_the_callers_kind(store, tmp_path):
    made = packed(store, some(17 << 20))
    with store.path(made.blob.digest).open("rb") as file:
        pieces = list(frames.expand(file, name="layer", error=BundleError))
    assert b"".join(pieces) == some(17 << 20)
    assert max(map(len, pieces)) <= PIECE
    bad = tmp_path / "bad"
    second = made.frames[0].blob
    bad.write_bytes(blob_of(store, made)[:second] + b"xxxx" + blob_of(store, made)[second + 4 :])
    with bad.open("rb") as file, pytest.raises(BundleError, match="layer"):
        list(frames.expand(file, name="layer", error=BundleError))


@pytest.mark.skipif(not shutil.which("zstd"), reason="the zstd program is not here")
def test_the_zstd_program_opens_our_blobs_as_the_readme_says(store):
    data = some(17 << 20)
    made = packed(store, data)
    argv = ["zstd", "-d", "--long=27", "-c", store.path(made.blob.digest)]
    assert subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout == data


def test_a_full_disk_is_a_fetch_error(tmp_path):
    store = Store(tmp_path / "store")
    path = store.path(store.add(os.urandom(100)))
    store.partial.rmdir()
    with pytest.raises(FetchError, match="cannot be compressed into"):
        frames.compress(path, store, gzipped=True, name="x")


def test_ahead_keeps_order_and_brings_errors_where_the_piece_would_be():
    assert list(ahead(iter([b"a", b"b", b"c"]))) == [b"a", b"b", b"c"]

    def failing():
        yield b"a"
        raise FetchError("broken")

    got = []
    with pytest.raises(FetchError, match="broken"):
        got.extend(ahead(failing()))
    assert got == [b"a"]
