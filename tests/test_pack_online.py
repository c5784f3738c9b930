"""From a lock to the one file: everything is fetched once, is what was locked, and gives the same bytes."""

import shutil
from dataclasses import replace

import pytest

from airgap.bundle.archive import Bundle, verify
from airgap.bundle.store import Store
from airgap.errors import DigestMismatch, FetchError, LockError
from airgap.lock import Lock
from airgap.oci import Digest
from airgap.online.credentials import Credentials
from airgap.online.notes import Notes
from airgap.online.pack import complete, pack
from airgap.online.registry import Registry
from airgap.online.resolve import resolve
from airgap.online.web import Web
from tests.packing import BUILDX, ENGINE, MANIFEST, RELEASE, engine, manifest, upstream
from tests.serving import File
from tests.test_resolve import LOCAL, Saver, borne, saved
from tests.test_web import Listener


@pytest.fixture
def up(tmp_path):
    with upstream(tmp_path) as up:
        yield up


def locked(up, **kwargs):
    return resolve(manifest(**kwargs), up.online, serial=7)


def forget(up):
    """As on another machine: nothing stored, nothing noted."""
    shutil.rmtree(up.store.root)
    Store(up.store.root)
    Notes(up.store.root / "notes")
    up.site.seen.clear()


def test_the_bundle_is_whole_and_holds_what_was_locked(up, tmp_path):
    lock = locked(up)
    packed = pack(lock, up.online, folder=tmp_path / "out")
    assert packed.path.name == "airgap-lab-7.tar"
    with Bundle.at(packed.path) as bundle:
        verify(bundle)
        assert bundle.lock == Lock.parse(lock.dump(), name="x")
        for image in lock.images:
            assert bundle.has(image.root.digest)


def test_packed_again_it_is_the_same_bytes_and_nothing_is_fetched(up, tmp_path):
    lock = locked(up)
    first = pack(lock, up.online, folder=tmp_path / "a").path.read_bytes()
    up.site.seen.clear()
    assert pack(lock, up.online, folder=tmp_path / "b").path.read_bytes() == first
    assert not up.site.seen


def test_packed_from_the_lock_on_another_machine_it_is_the_same_bytes(up, tmp_path):
    lock = locked(up)
    first = pack(lock, up.online, folder=tmp_path / "a").path.read_bytes()
    forget(up)
    assert pack(lock, up.online, folder=tmp_path / "b").path.read_bytes() == first
    assert "--require-hashes" in up.pip.calls[-1]


def test_shared_layers_are_fetched_once(up):
    up.images.index("library/other", "1")
    lock = locked(up, text=_with('"alpine:3.22", "other:1"'))
    listener = Listener()
    complete(lock, replace(up.online, progress=listener))
    digests = [item.path.rsplit("/", 1)[-1] for item in up.site.seen if "/blobs/" in item.path]
    assert len(digests) == len(set(digests))
    total, gauge = listener.gauges["images"]
    assert total == sum(gauge.steps) == sum(len(up.images.blobs[digest].data) for digest in digests)


def _with(images):
    return MANIFEST.replace('"alpine:3.22"', images)


def test_what_upstream_replaced_since_is_refused_with_both_digests(up, tmp_path):
    lock = locked(up)
    forget(up)
    changed = engine() + b"\0" * 8
    up.site.routes[ENGINE] = File(changed)
    with pytest.raises(DigestMismatch, match=r"docker-28\.5\.2\.tgz: upstream no longer serves what was locked") as caught:
        pack(lock, up.online, folder=tmp_path)
    assert str(Digest.of(engine())) in caught.value.message
    assert str(Digest.of(changed)) in caught.value.message
    assert not list(tmp_path.glob("*.tar"))


def test_a_file_that_was_locked_out_of_an_image_is_taken_out_of_it_again(up, tmp_path):
    borne(up)
    release, sums = up.site.routes.pop(BUILDX), up.site.routes.pop(f"{RELEASE}/checksums.txt")
    lock = locked(up)
    forget(up)
    up.site.routes.update({BUILDX: release, f"{RELEASE}/checksums.txt": sums})
    assert pack(lock, up.online, folder=tmp_path).blobs
    assert not up.site.asked(BUILDX)


def test_an_image_of_an_engine_elsewhere_cannot_be_packed_here(tmp_path):
    archive, _, _ = saved(old=False)
    with upstream(tmp_path, daemon=Saver(archive)) as up:
        lock = locked(up, text=LOCAL)
        pack(lock, up.online, folder=tmp_path / "a")
        up.store.path(Digest.of(b"a layer" * 500)).unlink()
        with pytest.raises(LockError, match="not whole in this store"):
            pack(lock, up.online, folder=tmp_path / "b")
        forget(up)
        with pytest.raises(LockError, match="taken from the engine that made the lock"):
            pack(lock, up.online, folder=tmp_path / "b")
        assert not [item for item in up.site.seen if "registry.local" in item.path or "/v2/app" in item.path]


def test_a_failing_image_leaves_no_bundle_and_the_next_run_goes_on(up, tmp_path):
    lock = locked(up)
    name = next(name for name, file in up.images.blobs.items() if file.data == b"shared")
    victim = up.images.blobs.pop(name)
    with pytest.raises(FetchError, match=r"alpine:3\.22"):
        pack(lock, up.online, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    up.images.blobs[name] = victim
    with Web(store=up.store, progress=up.recorder) as web:
        registry = Registry(web=web, credentials=Credentials({}, run=up.pip), hosts={"docker.io": [up.site.url("")]})
        assert pack(lock, replace(up.online, web=web, registry=registry), folder=tmp_path / "out").blobs
