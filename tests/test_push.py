"""A push leaves upstream's own images behind, whole or not at all, in a real registry and in one that misbehaves."""

import datetime
import gzip
import json
import re
import shutil
import ssl
import urllib.error
import urllib.request
from contextlib import ExitStack
from itertools import accumulate

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airgap.bundle.archive import Bundle, write_bundle
from airgap.bundle.layout import Index
from airgap.bundle.readme import readme
from airgap.bundle.store import Store
from airgap.errors import BundleError, DigestMismatch, FetchError, UsageError
from airgap.lock import MEDIA_TYPE, ImageArtifact, Lock, Voucher
from airgap.oci import (
    ATTESTATION_OF,
    ATTESTATION_TYPE,
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Descriptor,
    Digest,
    ImageManifest,
    Platform,
    Reference,
)
from airgap.online import older
from airgap.online.credentials import Credentials, Login
from airgap.online.depot import Depot
from airgap.online.exchange import Exchange
from airgap.online.push import push
from airgap.online.target import Target, certificates
from airgap.progress import SILENT
from tests.depots import BCRYPT_OF_PW, Trouble, cut_after, depot_serving, distribution, giving, refusing
from tests.sample import descriptor, one_platform, tar
from tests.test_web import Listener

AMD64, ARM64, S390X = (Platform.of("linux", name) for name in ("amd64", "arm64", "s390x"))
BIG = gzip.compress(tar(("usr/lib/big", bytes(range(256)) * 2000)), compresslevel=0, mtime=0)
"""A layer that several images share; half a megabyte, so that it is sent in pieces."""
real = pytest.mark.skipif(not shutil.which("docker-registry"), reason="apt-get install docker-registry")


# ---- bundles ---------------------------------------------------------------------------------------------------------


def proof(store, of):
    """The attestation manifest of an image."""
    statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "subject": str(of.digest)}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(store, b'{"os":"unknown","architecture":"unknown"}', CONFIG).to_json(),
        "layers": [descriptor(store, statement, "application/vnd.in-toto+json").to_json()],
    }
    made = descriptor(store, json.dumps(document).encode(), MANIFEST, Platform("unknown", "unknown"))
    notes = {ATTESTATION_TYPE: "attestation-manifest", ATTESTATION_OF: str(of.digest)}
    return Descriptor(media_type=MANIFEST, digest=made.digest, size=made.size, platform=made.platform, annotations=notes)


def multi(store, name, platforms, carried, *, kind=INDEX):
    """An image with attestations whose index names `platforms`, of which the bundle has `carried`."""
    children = []
    for platform in platforms:
        own = gzip.compress(tar(("etc/name", f"{name} {platform}".encode() * 50)), mtime=0)
        child = one_platform(store, platform, BIG, own)
        children += [child, proof(store, child)]
    data = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [item.to_json() for item in children]}).encode()
    chosen = {item.digest for item in children if item.platform in carried}
    kept = tuple(item for item in children if item.digest in chosen or item.attestation_of in chosen)
    return locked(name, descriptor(store, data, kind), kept)


def lone(store, name):
    """An image without an index."""
    root = one_platform(store, AMD64, gzip.compress(tar(("lone", name.encode())), mtime=0))
    return locked(name, root, (root,))


def locked(name, root, manifests):
    return ImageArtifact(
        kinds=("image",), reference=Reference.parse(name), root=root, manifests=manifests, size=root.size,
        url="https://up.test/v2/", voucher=Voucher("published", "up.test"),
    )  # fmt: skip


def bundle_of(folder, make):
    """A bundle of the images that `make` puts into a store."""
    store = Store(folder / "store")
    images = tuple(make(store))
    lock = Lock(name="site", serial=1, manifest={"airgap": 1}, files=(), images=images)
    data = lock.dump()
    members = {"install.sh": b"#!/bin/sh\n", "README.txt": readme(lock).encode()}
    index = Index.build(
        lock, [], members=members, lock_blob=Descriptor(media_type=MEDIA_TYPE, digest=store.add(data), size=len(data))
    )
    blobs = {}
    for image in images:
        blobs[image.root.digest] = image.root.size
        for child in image.manifests:
            blobs[child.digest] = child.size
            parsed = ImageManifest.parse(store.read(child.digest, limit=1 << 20), name="x", error=BundleError)
            blobs.update({blob.digest: blob.size for blob in parsed.blobs})
    path = folder / "airgap-site-1.tar"
    write_bundle(path, index=index, members=members, lock=data, blobs=blobs, store=store)
    return path


def several(store):
    """Docker Hub's, another registry's, one pinned without a tag; these share a layer. And one without an index."""
    both = (AMD64, ARM64)
    pinned = multi(store, "docker.io/moby/buildkit:x", both, both)
    return [
        multi(store, "alpine:3.22", both, both),
        multi(store, "quay.io:443/org/tool:1", both, both),
        locked(f"docker.io/moby/buildkit@{pinned.root.digest}", pinned.root, pinned.manifests),
        lone(store, "lone:1"),
    ]


def partial(store):
    return [multi(store, "alpine:3.22", (AMD64, ARM64, S390X), (AMD64, ARM64))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return bundle_of(tmp_path_factory.mktemp("whole"), several)


@pytest.fixture(scope="module")
def subset(tmp_path_factory):
    return bundle_of(tmp_path_factory.mktemp("subset"), partial)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def pushed(listener):
    """Push a bundle, as one command does."""

    def run(bundle, target, *, login=None, ca="", strict=False, retries=2):
        place = Target.parse(target)
        credentials = Credentials({place.host: login} if login else {}, run=lambda *_, **__: None)
        with (
            Exchange(progress=listener, ca=ca, stall=5, retries=retries, pause=lambda seconds: None) as web,
            Bundle.at(bundle) as opened,
        ):
            return push(opened, Depot(place, web=web, credentials=credentials), progress=listener, strict=strict)

    return run


def roots(bundle):
    with Bundle.at(bundle) as opened:
        return {str(item.reference): str(item.root.digest) for item in opened.lock.images}


def parts(bundle):
    """Digest -> bytes of every manifest and every blob of its images."""
    with Bundle.at(bundle) as opened:
        manifests, blobs = {}, {}
        for image in opened.lock.images:
            for item in (image.root, *image.manifests):
                manifests[str(item.digest)] = opened.read(item.digest, limit=1 << 20)
            for item in image.manifests:
                for blob in ImageManifest.parse(manifests[str(item.digest)], name="x", error=BundleError).blobs:
                    blobs[str(blob.digest)] = opened.read(blob.digest, limit=1 << 24)
    return manifests, blobs


def filled(listener):
    """Whether the gauge of the push came out at its total."""
    total, gauge = next(value for name, value in listener.gauges.items() if name.startswith("push to"))
    return sum(gauge.steps) == total == max(accumulate(gauge.steps))


# ---- a real registry -------------------------------------------------------------------------------------------------


@real
def test_a_real_registry_gets_upstreams_own_digests_attestations_included_and_a_second_push_moves_nothing(
    whole, tmp_path, pushed, listener, stack
):
    server = stack.enter_context(distribution(tmp_path))
    first = pushed(whole, f"http://{server.host}/mirror")
    manifests, blobs = parts(whole)
    pinned = next(item.upstream.hex[:12] for item in first.images if "@" in item.reference)
    assert {item.form for item in first.images} == {"whole"}
    assert all(item.moved and item.digest == item.upstream for item in first.images)
    names = ("library/alpine:3.22", "library/lone:1", "quay.io-443/org/tool:1", f"moby/buildkit:sha256-{pinned}")
    assert sorted(item.name for item in first.images) == sorted(f"{server.host}/mirror/{name}" for name in names)
    accept = f"{INDEX}, {MANIFEST}"
    for item in first.images:
        repository, _, tag = item.name.removeprefix(f"{server.host}/").rpartition(":")
        top = server.get(f"/v2/{repository}/manifests/{tag}", accept)
        assert top == manifests[str(item.digest)]
        for child in json.loads(top).get("manifests", []):
            data = server.get(f"/v2/{repository}/manifests/{child['digest']}", accept)
            assert data == manifests[child["digest"]]
            for blob in (json.loads(data)["config"], *json.loads(data)["layers"]):
                assert server.get(f"/v2/{repository}/blobs/{blob['digest']}") == blobs[blob["digest"]]
    assert first.mounted >= 2
    assert first.size == sum(map(len, blobs.values()))
    assert filled(listener)

    writes = server.asked("PUT", "POST", "PATCH")
    assert writes
    listener.gauges.clear()
    second = pushed(whole, f"http://{server.host}/mirror")
    assert server.asked("PUT", "POST", "PATCH") == writes
    assert (second.pushed, second.mounted, second.size) == (0, 0, 0)
    assert second.skipped == first.pushed + first.mounted
    assert not any(item.moved for item in second.images)
    assert filled(listener)


@real
def test_a_real_registry_that_insists_on_all_children_gets_those_carried_and_both_digests_are_said(
    subset, tmp_path, pushed, listener, stack
):
    server = stack.enter_context(distribution(tmp_path))
    with pytest.raises(FetchError, match="insists on all") as caught:
        pushed(subset, f"http://{server.host}/m", strict=True)
    assert "MANIFEST_BLOB_UNKNOWN" in caught.value.message
    assert "platforms: none" in caught.value.hint
    assert caught.value.exit_code == 6
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.get("/v2/m/library/alpine/manifests/3.22", INDEX)

    (placed,) = pushed(subset, f"http://{server.host}/m").images
    assert (placed.form, placed.moved) == ("subset", True)
    assert str(placed.upstream) == roots(subset)["docker.io/library/alpine:3.22"]
    (text,) = listener.said("subset")
    assert str(placed.upstream) in text
    assert str(placed.digest) in text
    assert "linux/amd64, linux/arm64 only" in text
    index = server.get("/v2/m/library/alpine/manifests/3.22", INDEX)
    assert Digest.of(index) == placed.digest
    children = json.loads(index)["manifests"]
    assert [child["platform"]["architecture"] for child in children] == ["amd64", "unknown", "arm64", "unknown"]
    upstream = json.loads(parts(subset)[0][str(placed.upstream)])["manifests"]
    assert children == upstream[:4]
    again = pushed(subset, f"http://{server.host}/m")
    assert (again.pushed, again.images[0].moved, again.images[0].digest) == (0, False, placed.digest)


def certificate(folder):
    """A CA and a certificate of localhost by it, in files."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name, issuer, key, signer, ca):
        built = x509.CertificateBuilder(
            issuer_name=issuer, subject_name=name, public_key=key.public_key(), serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(days=1), not_valid_after=now + datetime.timedelta(days=1),
        ).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)  # fmt: skip
        if ca:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            built = built.add_extension(usage, critical=True)
            built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        else:
            built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            built = built.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        return built.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("the site's CA", "localhost")]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    (folder / "ca.crt").write_bytes(make(names[0], names[0], keys[0], keys[0], ca=True))
    (folder / "own.crt").write_bytes(make(names[1], names[0], keys[1], keys[0], ca=False))
    (folder / "own.key").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip


@real
def test_a_real_registry_with_a_private_ca_and_basic_login(whole, tmp_path, pushed, stack):
    certificate(tmp_path)
    (tmp_path / "htpasswd").write_text(f"me:{BCRYPT_OF_PW}\n")
    extra = (
        f"  tls: {{certificate: {tmp_path / 'own.crt'}, key: {tmp_path / 'own.key'}}}\n"
        f"auth: {{htpasswd: {{realm: depot, path: {tmp_path / 'htpasswd'}}}}}\n"
    )
    server = stack.enter_context(distribution(tmp_path, extra=extra, scheme="https"))
    ca = str(tmp_path / "ca.crt")
    with pytest.raises(FetchError, match="not trusted") as caught:
        pushed(whole, f"{server.host}/m")
    assert "--ca FILE" in caught.value.hint
    assert f"/etc/docker/certs.d/{server.host}/ca.crt" in caught.value.hint
    with pytest.raises(FetchError, match="wants a login") as caught:
        pushed(whole, f"{server.host}/m", ca=ca)
    assert f"docker login {server.host}" in caught.value.hint
    with pytest.raises(FetchError, match="our login is not taken") as caught:
        pushed(whole, f"{server.host}/m", ca=ca, login=Login(user="me", password="wrong"))
    assert "wrong" not in caught.value.message
    report = pushed(whole, f"{server.host}/m", ca=ca, login=Login(user="me", password="pw"))
    assert len(report.images) == 4
    context = ssl.create_default_context(cafile=ca)
    manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    manager.add_password(None, f"https://{server.host}", "me", "pw")
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), urllib.request.HTTPBasicAuthHandler(manager)
    )
    with opener.open(f"https://{server.host}/v2/m/library/alpine/tags/list") as answer:
        assert json.load(answer)["tags"] == ["3.22"]


@real
def test_plain_http_is_spoken_only_where_it_is_written_out(whole, tmp_path, pushed, stack):
    server = stack.enter_context(distribution(tmp_path))
    with pytest.raises(FetchError, match="TLS failed") as caught:
        pushed(whole, server.host)
    assert "http://" in caught.value.hint


# ---- what is sent, and what is not -----------------------------------------------------------------------------------


def test_a_shared_layer_is_sent_once_and_mounted_everywhere_else(whole, pushed, stack):
    depot = stack.enter_context(depot_serving())
    report = pushed(whole, f"http://{depot.host}")
    shared = str(Digest.of(BIG))
    assert depot.count("PUT", shared) == 1
    assert sum(shared in found for found in depot.blobs.values()) == 3
    assert (report.pushed, report.mounted) == (len(parts(whole)[1]), depot.count("POST", "mount="))


def test_a_mount_that_is_not_done_becomes_an_upload(whole, pushed, stack):
    for knobs in ({"mounts": False}, {"trouble": [Trouble("POST", "uploads/", kept_from_mounting, 999)]}):
        depot = stack.enter_context(depot_serving(**knobs))
        report = pushed(whole, f"http://{depot.host}")
        assert report.mounted == 0
        assert depot.count("PUT", str(Digest.of(BIG))) == 3
        assert len(depot.tags()) == 4


def kept_from_mounting(door):
    if "mount" in door.query:
        door.refuse(403, "DENIED")
    else:
        door.depot.route(door, door.path)


def test_a_blob_that_only_one_repository_has_is_mounted_from_there_and_not_sent(whole, pushed, stack):
    depot = stack.enter_context(depot_serving())
    shared = str(Digest.of(BIG))
    depot.blobs["moby/buildkit"] = {shared}
    depot.data[shared] = BIG
    pushed(whole, f"http://{depot.host}")
    assert depot.count("PUT", shared) == 0
    assert depot.count("POST", "from=moby") == 2


def test_a_tag_comes_after_its_children_and_they_after_their_blobs(whole, pushed, stack):
    depot = stack.enter_context(depot_serving())
    pushed(whole, f"http://{depot.host}")
    puts = [line.split(" ")[1] for line in depot.log if line.startswith("PUT")]
    for tag in (line for line in puts if line.endswith("/manifests/3.22")):
        before = puts[: puts.index(tag)]
        assert sum("library/alpine/manifests/sha256:" in line for line in before) == 4
        assert sum("library/alpine/blobs/" in line for line in before) >= 4


@pytest.mark.parametrize("terse", [False, True])
def test_tokens_are_asked_for_with_the_scopes_that_each_request_needs(whole, pushed, stack, terse):
    depot = stack.enter_context(depot_serving(auth="bearer", users={"me": "pw"}, terse=terse))
    report = pushed(whole, f"http://{depot.host}/m", login=Login(user="me", password="pw"))
    assert report.mounted == 4
    assert len(depot.tags()) == 4
    assert ["repository:m/library/alpine:pull,push"] in depot.scopes_asked
    assert any(len(item) == 2 and item[1].endswith(":pull") for item in depot.scopes_asked)
    assert len(depot.scopes_asked) <= 4 + 4 * 3  # once for each repository and mount, not for each request


def test_who_may_only_read_is_told_how_to_get_in(whole, pushed, stack):
    depot = stack.enter_context(depot_serving(auth="bearer", users={"me": "pw"}))
    with pytest.raises(FetchError, match="wants a login, and docker's configuration has none") as caught:
        pushed(whole, f"http://{depot.host}/m")
    assert f"docker login {depot.host}" in caught.value.hint
    with pytest.raises(FetchError, match="our login is not taken"):
        pushed(whole, f"http://{depot.host}/m", login=Login(user="me", password="no"))
    assert not depot.blobs


def test_a_place_for_uploads_on_another_host_gets_the_blob_and_no_secret(whole, pushed, stack):
    depot = stack.enter_context(depot_serving(auth="basic", users={"me": "pw"}))
    storage = stack.enter_context(depot_serving())
    depot.location = f"http://localhost:{storage.port}"
    storage.trouble = [Trouble("PUT", "uploads", giving(201), 999)]
    with pytest.raises(FetchError):  # the blobs do not reach the depot this way
        pushed(whole, f"http://{depot.host}/m", login=Login(user="me", password="pw"))
    assert storage.authorizations
    assert not any(value for _, value in storage.authorizations)


def test_a_registry_behind_a_proxy_that_names_itself_by_another_port_is_reached_the_way_we_came(whole, pushed, stack):
    depot = stack.enter_context(depot_serving(location="http://127.0.0.1:1"))
    assert len(pushed(whole, f"http://{depot.host}/m").images) == 4


# ---- registries that do not take upstream's ---------------------------------------------------------------------------


def test_a_registry_that_takes_partial_indexes_gets_upstreams_own(subset, pushed, listener, stack):
    depot = stack.enter_context(depot_serving(insists=False))
    (placed,) = pushed(subset, f"http://{depot.host}", strict=True).images
    assert (placed.form, placed.digest) == ("whole", placed.upstream)
    assert depot.tags() == {"library/alpine:3.22": roots(subset)["docker.io/library/alpine:3.22"]}
    assert not listener.said("subset")


@pytest.mark.parametrize("refusal", [refusing(404, "MANIFEST_UNKNOWN"), giving(400, b"<html>no</html>"), giving(404)])
def test_whatever_words_refuse_an_index_with_missing_children_it_becomes_a_smaller_one(subset, pushed, stack, refusal):
    depot = stack.enter_context(depot_serving(trouble=[Trouble("PUT", "manifests/3.22", refusal)]))
    (placed,) = pushed(subset, f"http://{depot.host}").images
    assert placed.form == "subset"
    assert depot.tags() == {"library/alpine:3.22": str(placed.digest)}


def test_a_whole_index_that_is_refused_is_not_cut(whole, pushed, stack):
    trouble = [Trouble("PUT", "manifests/3.22", refusing(400, "MANIFEST_BLOB_UNKNOWN"))]
    depot = stack.enter_context(depot_serving(trouble=trouble))
    with pytest.raises(FetchError, match=r"refuses the manifest \(400\) \(MANIFEST_BLOB_UNKNOWN"):
        pushed(whole, f"http://{depot.host}")
    assert "library/alpine:3.22" not in depot.tags()


@pytest.mark.parametrize("name", ["whole", "subset"])
def test_an_old_registry_gets_dockers_types_without_attestations_and_that_is_said(name, request, pushed, listener, stack):
    bundle = request.getfixturevalue(name)
    depot = stack.enter_context(depot_serving(oci=False))
    with pytest.raises(FetchError, match="does not take OCI's types"):
        pushed(bundle, f"http://{depot.host}", strict=True)
    assert not depot.tags()
    report = pushed(bundle, f"http://{depot.host}")
    assert {item.form for item in report.images} == {"docker"}
    alpine = next(item for item in report.images if item.reference == "alpine:3.22")
    assert any(str(alpine.digest) in text and str(alpine.upstream) in text for text in listener.said("converted"))
    assert "without attestations" in listener.said("converted")[0]
    kind, data = depot.manifests["library/alpine"]["3.22"]
    document = json.loads(data)
    assert (kind, document["mediaType"]) == (DOCKER_LIST, DOCKER_LIST)
    assert [child["platform"]["architecture"] for child in document["manifests"]] == ["amd64", "arm64"]
    kind, data = depot.manifests["library/alpine"][document["manifests"][0]["digest"]]
    child = json.loads(data)
    assert kind == child["mediaType"] == DOCKER_MANIFEST
    assert child["config"]["mediaType"] == older.DOCKER_CONFIG
    assert {item["mediaType"] for item in child["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}
    refused = depot.count("PUT", "manifests")
    again = pushed(bundle, f"http://{depot.host}")
    assert [item.digest for item in again.images] == [item.digest for item in report.images]
    assert again.pushed == 0
    assert depot.count("PUT", "manifests") == refused + 1  # one try whether it has learnt


def test_zstd_layers_and_artifacts_cannot_be_said_in_dockers_types(tmp_path):
    store = Store(tmp_path)
    item = one_platform(store, AMD64, b"\x28\xb5\x2f\xfdx", media_type="application/vnd.oci.image.layer.v1.tar+zstd")
    with pytest.raises(FetchError, match=r"alpine: .*tar\+zstd"):
        older.docker_manifest(store.read(item.digest, limit=1 << 20), name="alpine")


# ---- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act", [cut_after(200_000), giving(503), refusing(500, "UNKNOWN"), refusing(404, "BLOB_UPLOAD_UNKNOWN"), giving(507)],
    ids=["cut", "503", "500", "session lost", "507"],
)  # fmt: skip
def test_a_push_that_is_cut_goes_on_by_itself(whole, pushed, listener, stack, act):
    depot = stack.enter_context(depot_serving(trouble=[Trouble("PUT", "blobs/uploads", act, 2)]))
    report = pushed(whole, f"http://{depot.host}/m")
    assert len(depot.tags()) == 4
    assert report.pushed == len(parts(whole)[1])
    assert listener.said("retry")
    assert filled(listener)


def test_the_gauge_takes_back_what_was_sent_in_vain(whole, pushed, listener, stack):
    trouble = [Trouble("PUT", str(Digest.of(BIG)), cut_after(400_000), 2)]
    pushed(whole, f"http://{stack.enter_context(depot_serving(trouble=trouble)).host}/m")
    assert filled(listener)


def test_an_answer_that_is_lost_after_the_blob_was_stored_does_not_send_it_again(whole, pushed, stack):
    def stored_and_gone(door):
        door.depot.route(door, door.path.partition("?")[0])
        door.reset()

    def swallow(door):
        send, door.give = door.give, lambda *_, **__: door.__dict__.pop("rest", None)
        stored_and_gone(door)
        door.give = send

    depot = stack.enter_context(depot_serving(trouble=[Trouble("PUT", "blobs/uploads", swallow)]))
    report = pushed(whole, f"http://{depot.host}/m")
    assert depot.count("PUT", "blobs/uploads") == len(parts(whole)[1])
    assert report.skipped == 1


def test_what_does_not_come_about_says_what_was_done_and_the_next_push_goes_on(whole, pushed, stack):
    shared = str(Digest.of(BIG))
    full = giving(507)
    depot = stack.enter_context(depot_serving())

    def answer(door):
        full(door) if door.query["digest"] == shared else door.depot.route(door, door.path.partition("?")[0])

    depot.trouble = [Trouble("PUT", "blobs/uploads", answer, 999)]
    with pytest.raises(FetchError, match=r"the registry's disk is full \(507\)") as caught:
        pushed(whole, f"http://{depot.host}/m")
    assert "done so far: 0 of 4 images" in caught.value.message
    assert "garbage-collect" in caught.value.hint
    assert "run the same command again, it goes on" in caught.value.hint
    assert caught.value.exit_code == 6
    assert not depot.tags()
    done = set().union(*depot.blobs.values())
    assert done
    depot.trouble.clear()
    depot.log.clear()
    report = pushed(whole, f"http://{depot.host}/m")
    assert len(depot.tags()) == 4
    assert not [line for line in depot.log if line.startswith("PUT") and any(item in line for item in done)]
    assert report.pushed == len(parts(whole)[1]) - len(done)


def test_distributions_own_way_to_say_that_the_disk_is_full_is_understood(whole, pushed, stack):
    detail = {"DriverName": "filesystem", "Enclosed": {"Op": "write", "Path": "/var/lib/registry/x", "Err": 28}}
    errors = [{"code": "UNKNOWN", "message": "unknown error", "detail": detail}]
    body = json.dumps({"errors": errors}, separators=(",", ":")).encode()
    depot = stack.enter_context(depot_serving(trouble=[Trouble("PUT", "blobs/uploads", giving(500, body), 999)]))
    with pytest.raises(FetchError, match="disk is full"):
        pushed(whole, f"http://{depot.host}/m")


@pytest.mark.parametrize(
    ("act", "says", "hint"),
    [
        (refusing(404, "NOT_FOUND", "project x not found"), "no such project.*x not found", "create the project 'mirror'"),
        (refusing(403, "DENIED", "requested access to the resource is denied"), "no such project.*DENIED", "Harbor"),
        (refusing(401, "UNAUTHORIZED", "unauthorized to access repository"), "wants a login", "docker login"),
        (giving(413), "no files of this size", "client_max_body_size"),
        (refusing(403, "DENIED", "will exceed the configured upper limit of 1 GiB"), "may not grow", "quota"),
        (giving(308, Location="https://depot.test/v2/x"), "sends us on to https://depot.test/v2/x", "https"),
        (giving(202), "where they may not go", "external_url"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_it_means_and_what_to_do(whole, pushed, stack, act, says, hint):
    depot = stack.enter_context(depot_serving(trouble=[Trouble("POST", "blobs/uploads", act, 999)]))
    with pytest.raises(FetchError) as caught:
        pushed(whole, f"http://{depot.host}/mirror")
    assert re.search(says, caught.value.message)
    assert re.search(hint, caught.value.hint)
    assert not depot.tags()


def test_a_tag_that_may_not_move_is_called_one(whole, pushed, stack):
    trouble = [Trouble("PUT", "manifests/3.22", refusing(412, "PRECONDITION", "configured as immutable"))]
    depot = stack.enter_context(depot_serving(trouble=trouble))
    with pytest.raises(FetchError, match="may not move"):
        pushed(whole, f"http://{depot.host}")


def test_a_registry_that_changes_what_it_is_given_is_caught(whole, pushed, stack):
    trouble = [Trouble("PUT", "manifests", giving(201, Docker_Content_Digest=f"sha256:{'0' * 64}"))]
    depot = stack.enter_context(depot_serving(trouble=trouble))
    with pytest.raises(FetchError, match="changes what it is given"):
        pushed(whole, f"http://{depot.host}")


def test_a_damaged_bundle_leaves_nothing_wrong_and_no_tag_behind(whole, tmp_path, pushed, stack):
    data = bytearray(whole.read_bytes())
    place = data.index(BIG) + len(BIG) // 2
    data[place] ^= 1
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(data)
    depot = stack.enter_context(depot_serving())
    with pytest.raises(DigestMismatch, match="is damaged"):
        pushed(damaged, f"http://{depot.host}")
    assert str(Digest.of(BIG)) not in depot.data
    assert "library/alpine:3.22" not in depot.tags()


def test_nobody_there_a_name_that_is_none_and_a_web_server_are_told_apart_at_once(whole, pushed, stack):
    with pytest.raises(FetchError, match="refused"):
        pushed(whole, "http://127.0.0.1:1/m")
    with pytest.raises(FetchError, match="cannot be resolved"):
        pushed(whole, "http://depot.invalid/m")
    depot = stack.enter_context(depot_serving(trouble=[Trouble("GET", "/v2/", giving(404, b"<html>"))]))
    with pytest.raises(FetchError, match="no registry"):
        pushed(whole, f"http://{depot.host}/m")


# ---- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "root", "prefix"),
    [
        ("harbor.xx.com/mirror", "https://harbor.xx.com", "mirror/"),
        ("Harbor.xx.com/a/b-c/", "https://harbor.xx.com", "a/b-c/"),
        ("depot:5000", "https://depot:5000", ""),
        ("http://depot:5000/m", "http://depot:5000", "m/"),
        ("https://[::1]:5000", "https://[::1]:5000", ""),
    ],
)
def test_a_place_is_read_as_docker_reads_it_and_tls_is_off_only_where_written(text, root, prefix):
    assert Target.parse(text) == Target(root, prefix)


@pytest.mark.parametrize(
    "text",
    ["", "/mirror", "ftp://x/y", "harbor/UPPER", "harbor/a:tag", "me:secret@harbor/m", "h/a//b", "h/a?b=c", "h:x/m", "h/../m"],
)
def test_what_is_no_place_is_refused_without_its_secrets(text):
    with pytest.raises(UsageError) as caught:
        Target.parse(text)
    assert "secret" not in caught.value.message
    assert caught.value.hint


def test_the_ca_is_the_given_one_else_dockers_unless_the_environment_names_some(tmp_path):
    own, docker = tmp_path / "own.pem", tmp_path / "depot:5000" / "ca.crt"
    own.write_text("x")
    docker.parent.mkdir()
    docker.write_text("x")

    def chosen(host="depot:5000", given=None, **environment):
        return certificates(host, given=given, environment=environment, folder=tmp_path)

    assert chosen() == str(docker)
    assert chosen(given=own, REQUESTS_CA_BUNDLE="/x") == str(own)
    assert chosen(REQUESTS_CA_BUNDLE="/x") == ""
    assert chosen("other") == ""
    with pytest.raises(UsageError, match="no such file"):
        chosen(given=tmp_path / "missing")


def test_the_result_is_said_to_machines(whole, pushed, stack):
    depot = stack.enter_context(depot_serving())
    document = pushed(whole, f"http://{depot.host}/m").to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["registry"] == depot.host
    assert {"reference", "name", "digest", "upstream", "form", "moved"} == set(document["images"][0])


def test_silent_pushes_work_as_well(whole, stack):
    depot = stack.enter_context(depot_serving())
    with Exchange(progress=SILENT) as web, Bundle.at(whole) as opened:
        place = Target.parse(f"http://{depot.host}")
        push(opened, Depot(place, web=web, credentials=Credentials({}, run=lambda *_, **__: None)), progress=SILENT)
    assert len(depot.tags()) == 4
