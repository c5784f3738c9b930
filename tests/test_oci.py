"""OCI's words mean what OCI, Docker and containerd mean by them."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.document import Node, parse_json
from airgap.errors import FetchError, ManifestError
from airgap.oci import (
    ATTESTATION_OF,
    ATTESTATION_TYPE,
    INDEX,
    MANIFEST,
    Descriptor,
    Digest,
    ImageIndex,
    ImageManifest,
    Platform,
    Reference,
    read_platform,
    read_reference,
)

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


def digest(text):
    return Digest.of(text.encode())


def descriptor(text, **more):
    return Descriptor(media_type=MANIFEST, digest=digest(text), size=len(text), **more)


def test_a_digest_is_sha256_and_nothing_else():
    text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Digest.of(b"") == Digest.parse(text)
    assert str(Digest.of(b"")) == text


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:" + "A" * 64, "sha512:" + "a" * 128, "a" * 64, "sha256:" + "a" * 64 + "\n", "sha256:../" + "a" * 61],
)
def test_other_digests_are_refused(text):
    with pytest.raises(ValueError, match="not a sha256 digest"):
        Digest.parse(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/i386", "linux/386"),
    ],
)
def test_platforms_have_one_normal_form(text, normal):
    assert str(Platform.parse(text)) == normal
    assert Platform.parse(normal) == Platform.parse(text)


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/amd64 ", "linux/../x", "all"]
)
def test_what_is_no_platform_is_refused(text):
    with pytest.raises(ValueError, match="is not a platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.22", "docker.io/library/alpine:3.22", "alpine:3.22"),
        ("docker/dockerfile:1", "docker.io/docker/dockerfile:1", "docker/dockerfile:1"),
        ("index.docker.io/library/alpine:1", "docker.io/library/alpine:1", "alpine:1"),
        ("quay.io/org/name:tag", "quay.io/org/name:tag", "quay.io/org/name:tag"),
        ("depot.site:5000/a/b/c:1", "depot.site:5000/a/b/c:1", "depot.site:5000/a/b/c:1"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("[::1]:5000/a:b", "[::1]:5000/a:b", "[::1]:5000/a:b"),
        (f"alpine@sha256:{'a' * 64}", f"docker.io/library/alpine@sha256:{'a' * 64}", f"alpine@sha256:{'a' * 64}"),
        (f"alpine:3@sha256:{'a' * 64}", f"docker.io/library/alpine:3@sha256:{'a' * 64}", f"alpine:3@sha256:{'a' * 64}"),
    ],
)
def test_references_are_read_by_docker_s_rules(text, full, familiar):
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert Reference.parse(full) == reference
    assert Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Alpine",
        "alpine:",
        "alpine@",
        "alpine:3 22",
        "https://quay.io/a",
        "a//b",
        "../a",
        "a/../b",
        "quay.io/",
        "alpine:3\n",
        "-a",
        "a:" + "x" * 129,
        "a@sha256:123",
        "a" * 300,
        "user:pass@host/a:1",
        "quay.io/a:b:c",
        "é",
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(ValueError, match=r"is not an image reference|is not a sha256"):
        Reference.parse(text)


@given(st.text(max_size=60))
def test_reading_a_reference_is_stable_or_refused(text):
    try:
        reference = Reference.parse(text)
    except ValueError:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


def test_in_a_document_the_complaint_has_its_place():
    with pytest.raises(ManifestError, match=r"^images\[0\]: 'A B' is not an image reference"):
        read_reference(Node("A B", path="images[0]", error=ManifestError))
    with pytest.raises(ManifestError, match=r"^p: 'amd64' is not a platform") as caught:
        read_platform(Node("amd64", path="p", error=ManifestError))
    assert "linux/amd64" in (caught.value.hint or "")


def test_a_descriptor_is_the_same_after_writing_and_reading():
    full = descriptor(
        "x", platform=Platform("linux", "arm", "v7"), annotations={"b": "2", "a": "1"}, artifact_type="application/x"
    )
    for item in (full, descriptor("y")):
        assert Descriptor.read(parse_json(json.dumps(item.to_json()).encode(), name="d", error=FetchError)) == item


def test_a_descriptor_may_have_what_oci_allows_beyond_ours():
    value = {**descriptor("x").to_json(), "urls": ["https://x"], "data": "eA==", "annotations": {"note": "two\nlines", "odd": 5}}
    assert Descriptor.read(Node(value, path="", error=FetchError)).annotations == {"note": "two\nlines"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", -1), ("size", "1"), ("digest", "sha512:" + "a" * 128), ("mediaType", 5), ("platform", {"os": "linux"})],
)
def test_a_descriptor_that_makes_no_sense_is_refused(key, value):
    with pytest.raises(FetchError, match=key):
        Descriptor.read(Node({**descriptor("x").to_json(), key: value}, path="", error=FetchError))


def index(*items):
    return ImageIndex(tuple(items))


def attestation(of, **more):
    notes = {ATTESTATION_TYPE: "attestation-manifest", ATTESTATION_OF: str(digest(of))}
    return descriptor(f"attests {of}", platform=Platform("unknown", "unknown"), annotations=notes, **more)


def test_chosen_platforms_bring_their_attestations_and_keep_upstream_s_order():
    items = (attestation("arm"), descriptor("amd", platform=AMD64), descriptor("arm", platform=ARM64), attestation("amd"))
    assert index(*items).choose(frozenset({ARM64})) == (items[0], items[2])
    assert index(*items).choose(frozenset({AMD64, ARM64})) == items
    assert index(*items).choose(frozenset({Platform("linux", "s390x")})) == ()


def test_an_unknown_platform_alone_makes_no_attestation():
    odd = descriptor("odd", platform=Platform("unknown", "unknown"))
    assert odd.attestation_of is None
    assert index(odd, descriptor("bare")).choose(frozenset({AMD64})) == ()
    damaged = descriptor("x", annotations={ATTESTATION_TYPE: "attestation-manifest", ATTESTATION_OF: "nonsense"})
    assert damaged.attestation_of is None


def test_choosing_from_a_hostile_index_takes_no_quadratic_time():
    started = time.monotonic()
    items = [descriptor(str(number), platform=AMD64) for number in range(20_000)]
    assert len(index(*items).choose(frozenset({AMD64}))) == 20_000
    assert time.monotonic() - started < 3


def test_manifests_and_indexes_are_read_from_upstream_s_bytes():
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor("a", platform=AMD64).to_json()]}).encode()
    assert ImageIndex.parse(data, name="i", error=FetchError).manifests[0].platform == AMD64
    layer = descriptor("layer")
    data = json.dumps(
        {"config": descriptor("config").to_json(), "layers": [layer.to_json(), layer.to_json()], "subject": {}}
    ).encode()
    manifest = ImageManifest.parse(data, name="m", error=FetchError)
    assert manifest.layers == (layer, layer)
    assert [item.digest for item in manifest.blobs] == [digest("config"), layer.digest]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"manifests": {}}', b'{"manifests": [1]}', b"<html>", b'{"manifests": [' + b"[" * 5000]
)
def test_an_index_that_is_none_is_refused_with_its_name(data):
    with pytest.raises(FetchError, match=r"^alpine: "):
        ImageIndex.parse(data, name="alpine", error=FetchError)
