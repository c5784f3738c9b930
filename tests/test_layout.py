from __future__ import annotations

import dataclasses
import json

import pytest

from airgap.bundle import layout
from airgap.bundle.layout import Carried, Index
from airgap.document import dump_json
from airgap.errors import BundleError, DigestMismatch
from airgap.lock import Blob
from airgap.oci import CONTAINERD_NAME, REF_NAME, TITLE, Descriptor, Digest
from tests.sample import ingredients


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return ingredients(tmp_path_factory.mktemp("layout"), images=2)


def read_from(parts, **other):
    extra = {Digest.of(data): data for data in (parts.index.artifact, parts.lock, *other.values())}

    def read(digest, limit):
        if digest in extra:
            return extra[digest]
        return parts.store.read(digest, limit=limit)

    return read


def parse(parts, data, **other):
    return Index.parse(data, members=parts.members, read=read_from(parts, **other), name="b.tar")


def edited(parts, change) -> bytes:
    document = json.loads(parts.index.data)
    change(document)
    return dump_json(document)


def test_an_index_is_parsed_back_into_what_it_was_built_from(parts):
    index = parse(parts, parts.index.data)
    assert index.data == parts.index.data
    assert index.artifact == parts.index.artifact
    assert index.carried == parts.index.carried
    assert index.lock.dump() == parts.lock


def test_it_does_not_matter_in_which_order_things_were_made(parts):
    lock = parts.index.lock
    turned = dataclasses.replace(lock, files=lock.files[::-1], images=lock.images[::-1])
    again = Index.build(turned, parts.index.carried[::-1], members=parts.members, lock_blob=parts.index.lock_blob)
    assert again.data == parts.index.data
    assert again.artifact == parts.index.artifact


def test_images_bear_both_names_and_files_their_title_content_and_frames(parts):
    document, artifact = json.loads(parts.index.data), json.loads(parts.index.artifact)
    assert document["manifests"][0]["artifactType"] == artifact["artifactType"] == layout.ARTIFACT_TYPE
    names = [item["annotations"] for item in document["manifests"][1:]]
    assert [(n[REF_NAME], n[CONTAINERD_NAME]) for n in names] == [(f"docker.io/library/tiny:{k}",) * 2 for k in (1, 2)]
    assert document["annotations"]["airgap.bundle.name"] == "site"
    assert document["annotations"]["airgap.bundle.serial"] == "7"
    assert artifact["config"]["digest"] == str(Digest.of(parts.lock))
    for layer, item in zip(artifact["layers"], parts.index.carried, strict=True):
        assert layer["annotations"][TITLE] == item.artifact.filename
        assert layer["annotations"][layout.A_CONTENT] == str(item.artifact.content.digest)
        assert (layout.A_FRAMES in layer["annotations"]) == (item.artifact.form != "as-is")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["annotations"].update({layout.A_FORMAT: "2"}),
        lambda d: d["annotations"].update({layout.A_REQUIRES: "deltas"}),
    ],
)
def test_a_newer_bundle_is_sent_to_its_own_installer(parts, change):
    with pytest.raises(BundleError, match="made by a newer airgap") as caught:
        parse(parts, edited(parts, change))
    assert "install.sh inside it" in (caught.value.hint or "")
    assert caught.value.exit_code == 10


def drop(key):
    return lambda d: d.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        drop("annotations"),
        drop("manifests"),
        drop("mediaType"),
        drop("schemaVersion"),
        lambda d: d["manifests"].pop(0),
        lambda d: d["manifests"].pop(1),
        lambda d: d["manifests"].reverse(),
        lambda d: d["manifests"].append(d["manifests"][1]),
        lambda d: d.update(manifests=[]),
        lambda d: d["annotations"].pop("airgap.bundle.member.install.sh"),
        lambda d: d["annotations"].update({"more": "x"}),
        lambda d: d["annotations"].update({layout.A_NAME: "other"}),
        lambda d: d["annotations"].update({layout.A_SERIAL: "8"}),
        lambda d: d["manifests"][1]["annotations"].update({REF_NAME: "docker.io/library/evil:1"}),
        lambda d: d["manifests"][1].update(size=d["manifests"][1]["size"] + 1),
        lambda d: d["manifests"][1].update(urls=["https://elsewhere.test/"]),
        lambda d: d["manifests"][0].update(digest="sha512:" + "0" * 128),
        lambda d: d["manifests"][0].update(size=-1),
        lambda d: d.update(more="x"),
    ],
)
def test_an_index_that_does_not_follow_from_its_lock_is_refused(parts, change):
    with pytest.raises(BundleError):
        parse(parts, edited(parts, change))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":1e999}', b'{"schemaVersion":2,"schemaVersion":2}'],
)
def test_what_is_no_index_is_refused(parts, data):
    with pytest.raises(BundleError):
        parse(parts, data)


def test_other_spellings_of_the_same_index_are_refused(parts):
    for data in (json.dumps(json.loads(parts.index.data)).encode(), parts.index.data + b"\n", b" " + parts.index.data):
        with pytest.raises(BundleError, match="does not follow"):
            parse(parts, data)


@pytest.mark.parametrize("member", ["install.sh", "README.txt"])
def test_another_install_sh_or_readme_is_a_digest_mismatch(parts, member):
    members = parts.members | {member: b"#!/bin/sh\nrm -rf /\n"}
    with pytest.raises(DigestMismatch, match=member):
        Index.parse(parts.index.data, members=members, read=read_from(parts), name="b.tar")


def with_artifact(parts, change):
    """index.json for a changed artifact manifest, and that manifest."""
    document = json.loads(parts.index.artifact)
    change(document)
    artifact = dump_json(document)
    data = edited(parts, lambda d: d["manifests"][0].update(digest=str(Digest.of(artifact)), size=len(artifact)))
    return data, artifact


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["layers"].pop(),
        lambda d: d["layers"].append(d["layers"][0]),
        lambda d: d["layers"].reverse(),
        lambda d: d["layers"][0]["annotations"].update({TITLE: "../../etc/passwd"}),
        lambda d: d["layers"][0]["annotations"].pop(layout.A_FRAMES),
        lambda d: d["layers"][0]["annotations"].update({layout.A_FRAMES: "1:1"}),
        lambda d: d["layers"][0]["annotations"].update({layout.A_FRAMES: "x"}),
        lambda d: d["layers"][0]["annotations"].update({layout.A_FRAMES: "9" * 5000 + ":1"}),
        lambda d: d["layers"][0]["annotations"].update({layout.A_FRAMES: "\u0661:\u0661"}),
        lambda d: d["layers"][0].update(size=d["layers"][0]["size"] + 1),
        lambda d: d["config"].update(size=d["config"]["size"] + 1, mediaType="x"),
        lambda d: d["config"].update(mediaType="application/x"),
        lambda d: d.pop("config"),
        lambda d: d.update(layers="x"),
    ],
)
def test_a_manifest_that_does_not_follow_from_its_lock_is_refused(parts, change):
    data, artifact = with_artifact(parts, change)
    with pytest.raises(BundleError):
        parse(parts, data, artifact=artifact)


def test_a_lock_that_is_damaged_or_newer_makes_no_bundle(parts):
    for change in ({"airgap-lock": 99}, {"name": "\ud800"}, {"serial": 0}, {"files": [1]}):
        lock = json.dumps(json.loads(parts.lock) | change).encode()
        named = {"digest": str(Digest.of(lock)), "size": len(lock)}
        data, artifact = with_artifact(parts, lambda d, named=named: d["config"].update(named))
        with pytest.raises(BundleError):
            parse(parts, data, artifact=artifact, lock=lock)


def test_every_blob_that_is_named_is_required_once_with_its_size(parts):
    required = parts.index.required(read_from(parts))
    assert required == parts.blobs | {
        parts.index.lock_blob.digest: len(parts.lock),
        Digest.of(parts.index.artifact): len(parts.index.artifact),
    }
    order = parts.index.order(required)
    assert sorted(order) == sorted(required)
    assert order[0] == parts.index.lock_blob.digest


def test_a_blob_with_two_sizes_is_refused(parts):
    first = parts.index.carried[0]
    image = parts.index.lock.images[0]
    root = Descriptor(media_type=image.root.media_type, digest=first.blob.digest, size=first.blob.size + 1)
    lock = dataclasses.replace(parts.index.lock, images=(dataclasses.replace(image, root=root),))
    with pytest.raises(BundleError, match="two sizes"):
        dataclasses.replace(parts.index, lock=lock).required(read_from(parts))


def test_two_files_may_share_one_blob(parts):
    item = parts.index.carried[0]
    twin = Carried(dataclasses.replace(item.artifact, name="twin"), item.blob, item.frames)
    lock = dataclasses.replace(parts.index.lock, files=(*parts.index.lock.files, twin.artifact))
    index = Index.build(lock, [*parts.index.carried, twin], members=parts.members, lock_blob=parts.index.lock_blob)
    assert sum(1 for other in index.carried if other.blob == item.blob) == 2
    assert isinstance(index.required(read_from(parts))[item.blob.digest], int)
    assert item.packed.blob == Blob(item.blob.digest, item.blob.size)
