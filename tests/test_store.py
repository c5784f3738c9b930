from __future__ import annotations

import os
import threading

import pytest

from airgap.bundle.store import Store
from airgap.errors import BundleError, DigestMismatch, FetchError
from airgap.lock import Blob
from airgap.oci import Digest


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_store_is_an_oci_layout(store):
    assert (store.root / "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    digest = store.add(b"hello")
    assert (store.root / "blobs" / "sha256" / digest.hex).read_bytes() == b"hello"


def test_a_name_appears_only_when_the_bytes_are_whole(store):
    digest = Digest.of(b"hello world")
    with store.intake("key") as intake:
        intake.restart()
        intake.write(b"hello ")
        assert not store.has(digest)
        intake.write(b"world")
        assert not store.has(digest)
        blob = store.commit(intake, expected=digest, size=11)
    assert blob == Blob(digest, 11)
    assert store.has(digest)
    assert store.size(digest) == 11
    assert store.path(digest).stat().st_mode & 0o777 == 0o444
    assert list(store.partial.iterdir()) == []


def test_what_came_before_a_failure_is_kept_with_its_validator_and_hashed_on(store):
    def cut() -> None:
        with store.intake("key") as intake:
            intake.restart('"etag-1"')
            intake.write(b"first ")
            raise OSError("cable")

    with pytest.raises(OSError, match="cable"):
        cut()
    with store.intake("key") as intake:
        assert (intake.offset, intake.validator) == (6, '"etag-1"')
        intake.write(b"second")
        assert store.commit(intake).digest == Digest.of(b"first second")


def test_a_restart_forgets_what_was_there(store):
    with store.intake("key") as intake:
        intake.restart("a")
        intake.write(b"old and long")
    with store.intake("key") as intake:
        intake.restart("b")
        intake.write(b"new")
        assert store.commit(intake).digest == Digest.of(b"new")


def test_wrong_bytes_are_dropped_with_both_values_named(store):
    with store.intake("key") as intake:
        intake.restart()
        intake.write(b"<html>")
        with pytest.raises(DigestMismatch) as caught:
            store.commit(intake, expected=Digest.of(b"tool"), size=4, source="https://mirror.test/tool")
    for word in ("https://mirror.test/tool", str(Digest.of(b"tool")), str(Digest.of(b"<html>")), "4 bytes", "6 bytes"):
        assert word in caught.value.message
    assert list(store.partial.iterdir()) == []
    assert not store.has(Digest.of(b"<html>"))


def test_two_who_want_the_same_key_wait_for_each_other(store):
    order = []

    def take(name: str) -> None:
        with store.intake("key") as intake:
            order.append(f"{name} begins at {intake.offset}")
            intake.write(name.encode())
            order.append(f"{name} ends")

    with store.intake("key") as intake:
        threads = [threading.Thread(target=take, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        intake.write(b"x")
        order.append("first ends")
    for thread in threads:
        thread.join(10)
    assert order[0] == "first ends"
    assert [line.split()[0] for line in order[1:]] in (["a", "a", "b", "b"], ["b", "b", "a", "a"])
    assert order[1].endswith("begins at 1")
    assert order[3].endswith("begins at 2")


def test_threads_that_add_the_same_bytes_do_not_meet(store):
    failed = []

    def add(data: bytes) -> None:
        try:
            store.add(data)
        except OSError as problem:
            failed.append(problem)

    for number in range(30):
        threads = [threading.Thread(target=add, args=(b"%d" % number,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert not failed


def test_reading_finds_a_disk_that_changed_its_mind(store):
    digest = store.add(b"hello")
    store.path(digest).unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        store.read(digest, limit=10)
    store.path(digest).write_bytes(b"hellO")
    with pytest.raises(DigestMismatch, match="no longer holds"):
        store.read(digest, limit=10)
    with pytest.raises(BundleError, match="larger than the 3"):
        store.read(digest, limit=3)


def test_a_sweep_frees_what_was_begun_but_not_what_is_in_use(store):
    with store.intake("dead") as intake:
        intake.restart()
        intake.write(b"x" * 1000)
    assert store.sweep() >= 1000
    assert list(store.partial.iterdir()) == []
    with store.intake("alive") as intake:
        intake.write(b"y")
        with pytest.raises(FetchError, match="in use"):
            store.sweep()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_in_a_folder_that_cannot_be_written_is_an_oserror(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        Store(tmp_path / "store")
