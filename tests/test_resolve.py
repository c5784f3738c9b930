"""A manifest becomes exact bytes, each with somebody's word for them; what upstream does not have is said with what it has."""

import io
import json
import tarfile
import threading
import time
from concurrent.futures import wait
from dataclasses import replace

import pytest

from airgap.errors import DigestMismatch, FetchError, ResolveError
from airgap.kinds import wants
from airgap.kinds.want import FileWant, ImageWant
from airgap.oci import Digest, Reference
from airgap.online.resolve import fetch_file, merge, resolve, resolve_image
from airgap.online.together import together
from airgap.online.web import Stopped
from tests.fakes import program
from tests.packing import AMD64, ARM64, BUILDX, ENGINE, MANIFEST, RELEASE, engine, layer, listing, manifest, tgz, upstream
from tests.serving import File, in_turn, reset_after


@pytest.fixture
def up(tmp_path):
    with upstream(tmp_path) as up:
        yield up


def locked(up, text=MANIFEST, *, serial=1):
    return resolve(manifest(text), up.online, serial=serial)


def the(lock, kind):
    (item,) = lock.of_kind(kind)
    return item


def want(kind, text=MANIFEST):
    return next(item for item in wants(manifest(text)) if isinstance(item, FileWant) and item.kind == kind)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_every_artefact_is_in_the_store_with_its_digest_and_its_voucher(up):
    lock = locked(up)
    for item in lock.files:
        assert up.store.has(item.upstream.digest)
    assert the(lock, "engine").upstream.digest == Digest.of(engine())
    assert the(lock, "engine").voucher.how == "first-seen"
    assert the(lock, "plugin").voucher.how == "published"
    assert the(lock, "plugin").voucher.by == up.site.url(f"{RELEASE}/checksums.txt")
    assert the(lock, "runtime").voucher.how == "published"
    assert "first-seen" in up.recorder.events
    (image,) = lock.images
    assert [str(item) for item in image.platforms] == ["linux/amd64"]
    assert len(image.manifests) == 2  # the image and its attestation


def test_locked_again_nothing_is_fetched_again_and_the_lock_is_the_same(up):
    first = locked(up)
    up.site.seen.clear()
    assert locked(up).dump() == first.dump()
    files = [path for path in up.bodies() if not path.endswith(("checksums.txt", "SHA256SUMS", ".sha256"))]
    assert not files


def test_a_first_seen_file_that_upstream_replaced_is_fetched_anew(up):
    first = locked(up)
    up.site.routes[ENGINE] = File(engine(AMD64, "docker", "dockerd", "more"), etag='"another"')
    assert the(locked(up), "engine").upstream != the(first, "engine").upstream


def test_the_address_in_the_lock_stays_when_the_store_answers(up):
    sources = {**up.online.sources, "github": ["http://127.0.0.1:9", up.site.url("/github")]}
    up.online = replace(up.online, sources=sources)
    first = locked(up)
    assert the(first, "plugin").url == up.site.url(BUILDX)
    assert locked(up).dump() == first.dump()


def test_a_checksum_that_does_not_fit_shows_both_values(up):
    up.site.routes[BUILDX] = File(program("another"))
    with pytest.raises(DigestMismatch) as caught:
        locked(up)
    assert str(Digest.of(program("buildx"))) in caught.value.message
    assert str(Digest.of(program("another"))) in caught.value.message


def test_an_unknown_version_names_the_nearest_there_are(up):
    up.site.routes["/api/repos/docker/buildx/releases"] = File(listing("0.30.1", "0.29.1", "0.28.0"))
    with pytest.raises(ResolveError, match=r"buildx 0\.29\.9 for linux/amd64: no source has it") as caught:
        locked(up, MANIFEST.replace("0.29.1", "0.29.9"))
    assert "0.29.1" in caught.value.hint


def test_an_unknown_engine_names_the_nearest_of_the_index_page(up):
    up.site.routes["/static/stable/x86_64/"] = File(b'<a href="docker-28.5.1.tgz">x</a><a href="docker-28.5.2.tgz">x</a>')
    with pytest.raises(ResolveError) as caught:
        locked(up, MANIFEST.replace("28.5.2", "28.5.9"))
    assert "28.5.1, 28.5.2" in caught.value.hint


def test_a_login_page_instead_of_a_checksum_document_is_no_missing_checksum(up):
    up.site.routes[f"{RELEASE}/checksums.txt"] = lambda e, s: e.give(200, b"<html>log in</html>", Content_Type="text/html")
    with pytest.raises(FetchError, match="no checksum: '<html>"):
        locked(up)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (engine(ARM64), "is an executable for arm64"),
        (tgz({"docker/docker": program("docker")}), "lacks docker/dockerd"),
        (engine()[:-60], "ends too early|not a whole"),
        (engine()[:-2], "ends too early"),
        (b"<html>", "login page"),
    ],
)
def test_an_engine_that_is_none_is_refused_and_not_kept(up, data, why):
    up.site.routes[ENGINE] = File(data)
    with pytest.raises(FetchError, match=why):
        locked(up)
    assert not up.store.has(Digest.of(data))


def test_a_binary_for_another_machine_is_refused_even_with_a_good_checksum(up):
    up.release(BUILDX, program("buildx", ARM64))
    with pytest.raises(FetchError, match="an executable for arm64, but linux/amd64"):
        locked(up)


# ---- out of images ---------------------------------------------------------------------------------------------------


def borne(up):
    """buildx-bin and docker's own image carry the same files."""
    up.images.image("docker/buildx-bin", "0.29.1", layers=(layer({"/buildx": program("buildx")}),))
    names = ("docker", "dockerd", "runc")
    up.images.image("library/docker", "28.5.2-dind", layers=(layer({f"/usr/local/bin/{name}": program(name) for name in names}),))


def test_where_the_static_host_and_github_are_blocked_the_images_serve(up):
    borne(up)
    up.site.routes[ENGINE] = up.site.routes[BUILDX] = lambda e, s: e.give(403)
    up.site.routes[f"{RELEASE}/checksums.txt"] = lambda e, s: e.give(403)
    lock = locked(up)
    assert the(lock, "plugin").url.startswith("docker://docker.io/docker/buildx-bin:0.29.1@sha256:")
    assert the(lock, "plugin").content.digest == Digest.of(program("buildx"))
    found = the(lock, "engine")
    assert found.filename == "docker-28.5.2.tar"
    with tarfile.open(up.store.path(found.content.digest)) as tar:
        assert tar.getnames() == ["docker/docker", "docker/dockerd", "docker/runc"]
    assert locked(up).dump() == lock.dump()


def test_an_image_that_lacks_the_file_or_the_platform_does_not_serve(up):
    up.images.image("docker/buildx-bin", "0.29.1", layers=(layer({"/other": b"x"}),))
    del up.site.routes[BUILDX]
    with pytest.raises(FetchError):
        fetch_file(want("plugin"), up.online)
    up.images.index("docker/buildx-bin", "0.29.1", platforms=("linux/arm64",))
    with pytest.raises((FetchError, ResolveError), match="no linux/amd64"):
        fetch_file(want("plugin"), up.online)


def test_an_engine_in_an_image_must_be_for_the_platform_too(up):
    del up.site.routes[ENGINE]
    parts = {f"/usr/local/bin/{name}": program(name, ARM64) for name in ("docker", "dockerd")}
    up.images.image("library/docker", "28.5.2-dind", layers=(layer(parts),))
    with pytest.raises(FetchError, match="docker is no executable for linux/amd64"):
        fetch_file(want("engine"), up.online)


# ---- images ----------------------------------------------------------------------------------------------------------


def test_an_unknown_tag_names_the_nearest(up):
    up.images.image("library/alpine", "3.20", "3.21")
    with pytest.raises(ResolveError) as caught:
        locked(up, MANIFEST.replace("3.22", "3.99"))
    assert "alpine:3.99" in caught.value.message
    assert "3.20, 3.21, 3.22" in caught.value.hint


def test_a_platform_that_is_insisted_on_must_be_there(up):
    insisting = MANIFEST.replace('"alpine:3.22"', '{image: "alpine:3.22", platforms: [linux/amd64, linux/s390x]}')
    with pytest.raises(ResolveError, match=r"alpine:3\.22 has no linux/s390x") as caught:
        locked(up, insisting)
    assert "linux/arm64" in caught.value.hint


def test_a_platform_that_is_only_hoped_for_is_left_out_and_said(up):
    hoping = MANIFEST.replace("[linux/amd64]", "[linux/amd64, linux/arm64]")
    up.images.index("library/alpine", "3.22", platforms=("linux/amd64",))
    image = next(item for item in wants(manifest(hoping)) if isinstance(item, ImageWant))
    assert resolve_image(image, up.online).platforms == (AMD64,)
    assert "platform-missing" in up.recorder.events


def test_a_lone_manifest_has_the_platform_of_its_config(up):
    up.images.image("library/alpine", "3.22")
    assert locked(up).images[0].manifests[0].platform == AMD64
    up.images.image("library/alpine", "3.22", platform="linux/arm64")
    with pytest.raises(ResolveError, match="has no linux/amd64"):
        locked(up)


def test_an_image_wanted_twice_is_one_image_for_all_its_platforms():
    reference = Reference.parse("alpine")
    one = ImageWant(kinds=("image",), reference=reference, platforms=frozenset({AMD64}), strict=True)
    two = ImageWant(kinds=("builder", "image"), reference=reference, platforms=frozenset({ARM64}), strict=False)
    (both,) = merge([one, two])
    assert (both.kinds, both.platforms, both.strict) == (("image", "builder"), {AMD64, ARM64}, False)
    assert len(merge([one, replace(two, daemon=True)])) == 2


class Saver:
    """An engine that has one image, in the form of an engine of that age."""

    def __init__(self, archive, *, cut=0):
        self.archive = archive[: len(archive) - cut]

    def image(self, reference):
        return object() if self.archive else None

    def save(self, reference):
        for start in range(0, len(self.archive), 1000):
            yield self.archive[start : start + 1000]


def saved(*, old, platform="amd64"):
    config = json.dumps({"os": "linux", "architecture": platform, "rootfs": {"diff_ids": []}}).encode()
    body = b"a layer" * 500
    name = f"{Digest.of(config).hex}.json" if old else f"blobs/sha256/{Digest.of(config).hex}"
    layers = ["a/layer.tar", "b/layer.tar"] if old else [f"blobs/sha256/{Digest.of(body).hex}"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def put(path, data):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        put(name, config)
        put(layers[0], body)
        if old:
            link = tarfile.TarInfo(layers[1])
            link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
            tar.addfile(link)
        put("manifest.json", json.dumps([{"Config": name, "RepoTags": ["app:7"], "Layers": layers}]).encode())
    return buffer.getvalue(), Digest.of(config), len(layers)


LOCAL = MANIFEST.replace('"alpine:3.22"', '{daemon: "registry.local/app:7"}')


@pytest.mark.parametrize("old", [True, False], ids=["before 25", "since 25"])
def test_an_image_of_the_local_engine_keeps_its_config_and_layers(tmp_path, old):
    archive, config, layers = saved(old=old)
    with upstream(tmp_path, daemon=Saver(archive)) as up:
        (image,) = locked(up, LOCAL).images
        document = json.loads(up.store.read(image.root.digest, limit=1 << 20))
        assert image.url == "docker-daemon:registry.local/app:7"
        assert document["config"]["digest"] == str(config)
        assert [item["size"] for item in document["layers"]] == [3500] * layers
        assert locked(up, LOCAL).images == (image,)


def test_an_engine_without_the_image_with_a_foreign_one_or_dying_is_said(tmp_path):
    archive, _, _ = saved(old=False)
    for daemon, why in (
        (Saver(b""), "has no such image"),
        (Saver(saved(old=False, platform="s390x")[0]), "has it for linux/s390x"),
        (Saver(archive, cut=len(archive) - 700), "no whole archive"),
    ):
        with upstream(tmp_path, daemon=daemon) as up, pytest.raises((ResolveError, FetchError), match=why):
            locked(up, LOCAL)


# ---- at once ---------------------------------------------------------------------------------------------------------


def test_the_first_failure_stops_the_rest_and_is_the_one_that_is_told(up):
    def slow():
        while True:
            up.web._transport.check()
            time.sleep(0.01)

    def fail():
        raise ResolveError("the reason")

    started = time.monotonic()
    with pytest.raises(ResolveError, match="the reason"), together(up.web) as work:
        work.begin([slow, slow, fail])
    assert time.monotonic() - started < 5


def test_what_was_stopped_because_of_a_failure_is_not_told_instead_of_it(up):
    def stop():
        raise Stopped("only because of the other")

    def fail():
        raise ResolveError("the reason")

    with pytest.raises(ResolveError, match="the reason"), together(up.web) as work:
        wait(work.begin([*[stop] * 8, fail, *[stop] * 8]))


def test_an_interrupt_stops_the_rest(up):
    stopped = threading.Event()

    def slow():
        try:
            while True:
                up.web._transport.check()
                time.sleep(0.01)
        except Stopped:
            stopped.set()

    with pytest.raises(KeyboardInterrupt), together(up.web) as work:
        work.begin([slow])
        raise KeyboardInterrupt
    assert stopped.is_set()


def test_a_release_that_breaks_off_is_fetched_on(up):
    file = File(program("buildx"), trouble=[reset_after(30)])
    up.site.routes[BUILDX] = in_turn(file, file)
    assert the(locked(up), "plugin").upstream.size == len(program("buildx"))
    assert up.site.sent(BUILDX) == len(program("buildx"))
