"""The lock is one canonical text, and everything in it is as this version writes it."""

import json
import random
from dataclasses import replace

import pytest

from airgap.errors import LockError
from airgap.lock import Blob, FileArtifact, ImageArtifact, Lock, Voucher
from airgap.oci import ATTESTATION_OF, ATTESTATION_TYPE, INDEX, MANIFEST, Descriptor, Digest, Platform, Reference

AMD64 = Platform("linux", "amd64")


def blob(text):
    return Blob(Digest.of(text.encode()), len(text))


def file(name="buildx", **more):
    values = {
        "kind": "plugin",
        "name": name,
        "version": "0.29.1",
        "platform": AMD64,
        "filename": f"{name}-v0.29.1.linux-amd64",
        "url": f"https://github.com/docker/{name}",
        "form": "file",
        "upstream": blob(name),
        "content": blob(name),
        "voucher": Voucher("published", "https://github.com/checksums.txt"),
    }
    return FileArtifact(**{**values, **more})


def image(name="alpine:3.22"):
    child = Descriptor(media_type=MANIFEST, digest=Digest.of(name.encode()), size=7, platform=AMD64)
    notes = {ATTESTATION_TYPE: "attestation-manifest", ATTESTATION_OF: str(child.digest)}
    proof = Descriptor(
        media_type=MANIFEST,
        digest=Digest.of(b"att" + name.encode()),
        size=9,
        platform=Platform("unknown", "unknown"),
        annotations=notes,
    )
    root = Descriptor(media_type=INDEX, digest=Digest.of(b"root" + name.encode()), size=11)
    return ImageArtifact(
        kinds=("image",),
        reference=Reference.parse(name),
        root=root,
        manifests=(child, proof),
        size=27,
        url="https://registry-1.docker.io/v2/",
        voucher=Voucher("first-seen", "nobody"),
    )


def lock(**more):
    values = {
        "name": "site",
        "serial": 7,
        "manifest": {"airgap": 1, "name": "site"},
        "files": (file(), file("compose"), file("airgap", kind="wheel", platform=None, form="as-is")),
        "images": (image(), image("debian:13")),
    }
    return Lock(**{**values, **more})


def changed(change):
    document = json.loads(lock().dump())
    change(document)
    return json.dumps(document).encode()


def test_a_lock_is_the_same_after_writing_and_reading():
    data = lock().dump()
    assert Lock.parse(data, name="x").dump() == data
    assert data.endswith(b"}\n")


def test_the_bytes_do_not_depend_on_the_order_things_were_found_in():
    one = lock()
    for seed in range(5):
        files, images = list(one.files), list(one.images)
        random.Random(seed).shuffle(files)
        random.Random(seed).shuffle(images)
        assert replace(one, files=tuple(files), images=tuple(images)).dump() == one.dump()


def test_things_are_found_in_it_by_kind_and_reference():
    one = lock()
    assert [item.name for item in one.of_kind("plugin")] == ["buildx", "compose"]
    assert one.image(Reference.parse("alpine:3.22")) == image()
    assert one.image(Reference.parse("alpine:3.21")) is None


def test_an_image_s_platforms_are_those_it_runs_on_not_its_attestations():
    assert image().platforms == (AMD64,)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(extra=1), "x.json: extra: unknown key"),
        (lambda d: d.pop("files"), "x.json: 'files' is missing"),
        (lambda d: d.update({"airgap-lock": 2}), "is a lock of format 2; this airgap reads format 1"),
        (lambda d: d.update(serial=0), "x.json: serial: must be at least 1"),
        (lambda d: d.update(serial="7"), "x.json: serial: must be a whole number"),
        (lambda d: d.update(name="../../etc/x"), "x.json: name: '../../etc/x' is not a plain word"),
        (lambda d: d["files"][0].update(colour="red"), "x.json: files[0].colour: unknown key"),
        (lambda d: d["files"][0].update(name="a/b"), "files[0].name: 'a/b' is not a plain word"),
        (lambda d: d["files"][0].update(version=".."), "files[0].version: '..' is not a plain word"),
        (lambda d: d["files"][0].update(filename="../x"), "files[0].filename: '../x' is not a plain file name"),
        (lambda d: d["files"][0].update(filename=".."), "is not a plain file name"),
        (lambda d: d["files"][0].update(filename="a\x00b"), "contains control characters"),
        (lambda d: d["files"][0].update(form="zip"), "files[0].form: 'zip' is not one of"),
        (lambda d: d["files"][0].update(platform="amd64"), "files[0].platform: 'amd64' is not a platform"),
        (lambda d: d["files"][0]["upstream"].update(digest="md5:1"), "files[0].upstream.digest: 'md5:1' is not a sha256 digest"),
        (lambda d: d["files"][0]["upstream"].update(size=-1), "files[0].upstream.size: must be at least 0"),
        (lambda d: d["files"][0]["voucher"].update(how="trust me"), "files[0].voucher.how: 'trust me' is not one of"),
        (lambda d: d["images"][1].update(reference="A B"), "images[1].reference: 'A B' is not an image reference"),
        (lambda d: d["images"][0]["root"].update(digest="x"), "images[0].root.digest"),
        (lambda d: d["files"][0]["content"].update(size=99), "has two sizes"),
        (lambda d: d["images"][0]["root"].update(d["images"][1]["root"], size=12), "has two sizes"),
        (lambda d: d.update(manifest=[]), "x.json: manifest: must be a mapping"),
    ],
)
def test_a_lock_that_is_not_as_we_write_it_is_refused_with_its_place(change, says):
    with pytest.raises(LockError) as caught:
        Lock.parse(changed(change), name="x.json")
    assert says in caught.value.message


def test_every_key_of_a_lock_is_needed():
    whole = json.loads(lock().dump())
    places = [whole, whole["files"][0], whole["files"][0]["upstream"], whole["files"][0]["voucher"], whole["images"][0]]
    tried = 0
    for place in places:
        for key in sorted(place):
            kept = place.pop(key)
            # A file without a platform is one for all of them.
            if key != "platform":
                with pytest.raises(LockError, match="is missing"):
                    Lock.parse(json.dumps(whole).encode(), name="x")
                tried += 1
            place[key] = kept
    assert tried > 20
