"""Which images a site lacks, per platform, and the lines that bring them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airgap.lock import ImageArtifact, Voucher
from airgap.manifest import Manifest
from airgap.oci import ATTESTATION_OF, ATTESTATION_TYPE, INDEX, MANIFEST, Descriptor, Digest, Platform, Reference
from airgap.projects.dockerfile import Build, Need, needs
from airgap.projects.files import Found, find
from airgap.projects.holdings import asked, build, held, registries, targets
from airgap.projects.lint import Row, check, manifest_lines, text

AMD64, ARM64, WINDOWS = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("windows", "amd64")
BUILD = Build(hosts=(AMD64,), targets=(AMD64, ARM64))


def digest(name: str) -> Digest:
    return Digest.of(name.encode())


def image(name: str, *platforms: Platform) -> ImageArtifact:
    """An image as a lock has it, for these platforms, with the attestations of the first."""
    reference = Reference.parse(name)
    manifests = tuple(
        Descriptor(media_type=MANIFEST, digest=digest(f"{name} {item}"), size=1, platform=item) for item in platforms
    )
    attested = {ATTESTATION_TYPE: "attestation-manifest", ATTESTATION_OF: str(manifests[0].digest)}
    unknown = Platform("unknown", "unknown")
    proof = Descriptor(media_type=MANIFEST, digest=digest(f"{name} proof"), size=1, platform=unknown, annotations=attested)
    return ImageArtifact(
        kinds=("image",), reference=reference, root=Descriptor(media_type=INDEX, digest=digest(name), size=1),
        manifests=(*manifests, proof), size=9, url="https://registry.test", voucher=Voucher("first-seen", "nobody"),
    )  # fmt: skip


def rows(dockerfile: str, *have: ImageArtifact, build: Build = BUILD, local: frozenset[str] = frozenset()) -> tuple[Row, ...]:
    return check([Found(Path("app/Dockerfile"), need) for need in needs(dockerfile, build)], held(have), local=local)


def lacks(dockerfile: str, *have: ImageArtifact) -> dict[str, set[str]]:
    return {row.image: {str(item) for item in row.lacks} for row in rows(dockerfile, *have) if row.lacks}


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_what_the_site_has_for_all_platforms_is_not_missing():
    dockerfile = "# syntax=docker/dockerfile:1\nFROM alpine:3.22\nCOPY --from=quay.io/x/y:1 a b\n"
    have = [image("docker/dockerfile:1", AMD64), image("alpine:3.22", AMD64, ARM64), image("quay.io/x/y:1", AMD64, ARM64)]
    assert lacks(dockerfile, *have) == {}
    assert [row.has for row in rows(dockerfile, *have)] == [(AMD64, ARM64), (AMD64,), (AMD64, ARM64)]


def test_each_platform_is_missing_by_itself():
    assert lacks("# syntax=docker/dockerfile:1\nFROM alpine:3.22\nFROM busybox\n", image("alpine:3.22", AMD64)) == {
        "docker/dockerfile:1": {"linux/amd64"},
        "alpine:3.22": {"linux/arm64"},
        "busybox:latest": {"linux/amd64", "linux/arm64"},
    }


def test_another_tag_registry_or_repository_is_another_image():
    have = [image(name, AMD64, ARM64) for name in ("alpine:3.21", "quay.io/library/alpine:3.22", "x/alpine:3.22")]
    assert set(lacks("FROM alpine:3.22\n", *have)) == {"alpine:3.22"}


def test_names_that_mean_one_image_make_one_row():
    (row,) = rows("FROM alpine\nFROM docker.io/library/alpine:latest\nFROM index.docker.io/alpine\n")
    assert row.image == "alpine:latest"
    assert row.places == ("app/Dockerfile:1 (FROM)", "app/Dockerfile:2 (FROM)", "app/Dockerfile:3 (FROM)")


def test_a_pinned_image_is_there_if_its_digest_is_whatever_its_tag():
    have = image("alpine:3.22", AMD64, ARM64)
    assert lacks(f"FROM alpine@{have.root.digest}\nFROM alpine:old@{have.root.digest}\n", have) == {}
    child = have.manifests[0].digest
    assert lacks(f"FROM --platform=linux/amd64 alpine@{child}\n", have) == {}
    assert lacks(f"FROM alpine@{child}\n", have) == {f"alpine@{child}": {"linux/arm64"}}
    other = digest("other")
    assert set(lacks(f"FROM alpine:3.22@{other}\n", have)) == {f"alpine:3.22@{other}"}
    assert set(lacks(f"FROM busybox@{have.root.digest}\n", have)) == {f"busybox@{have.root.digest}"}


def test_registries_of_the_site_itself_are_not_asked_and_that_is_said():
    dockerfile = "FROM harbor.site/team/base:1\nFROM harbor.site/mirror/x:1\n"
    found = rows(dockerfile, image("harbor.site/mirror/x:1", AMD64), local=frozenset({"harbor.site"}))
    assert [(row.image, row.local, row.lacks) for row in found] == [
        ("harbor.site/mirror/x:1", False, (ARM64,)),
        ("harbor.site/team/base:1", True, ()),
    ]
    assert "not asked: harbor.site/team/base:1" in text(found)


@pytest.mark.parametrize("name", ["Alpine", "alpine:", "a b", "{{ base }}", "alpine@sha256:12", "x" * 3000])
def test_what_is_no_image_is_told_and_not_asked_for(name: str):
    (row,) = check([Found(Path("Dockerfile"), Need(image=name, line=3, how="FROM", platforms=frozenset({AMD64})))], [])
    assert row.why
    assert not row.lacks
    assert manifest_lines([row]) == ""


@given(st.text(max_size=80))
def test_any_name_makes_a_row(name: str):
    (row,) = check([Found(Path("Dockerfile"), Need(image=name, line=1, how="FROM", platforms=frozenset({AMD64})))], [])
    assert bool(row.lacks) != bool(row.why)


SITE = """\
airgap: 1
name: site
platforms: [linux/amd64]
emulation: {image: "binfmt:1", platforms: [linux/arm64]}
images: ["alpine:3.22", {image: "golang:1", platforms: [linux/amd64]}, "busybox@sha256:%s"]
registry: {image: "registry:3", listen: "0.0.0.0:5000", names: ["depot.site:5000"]}
builders:
  - name: b
    image: moby/buildkit:1
    registries: {harbor.site: {http: true}, docker.io: {mirrors: [m.site]}, quay.io: {mirrors: [m.site]}, m.site: {http: true}}
"""


def test_a_manifest_says_what_its_bundle_will_hold_and_what_the_site_builds_for():
    site = Manifest.parse((SITE % ("0" * 64)).encode(), name="site.yaml")
    assert targets(site) == (AMD64, ARM64)
    assert build(site, arguments={"A": "b"}) == Build(hosts=(AMD64,), targets=(AMD64, ARM64), arguments={"A": "b"})
    assert build(site, platforms=[ARM64], arguments={}, contexts=["x"]).targets == (ARM64,)
    both, one = {AMD64, ARM64}, {AMD64}
    assert {item.reference.familiar[:12]: set(item.platforms) for item in asked(site)} == {
        "alpine:3.22": both, "golang:1": one, "busybox@sha2": both, "binfmt:1": one, "registry:3": one, "moby/buildki": one,
    }  # fmt: skip
    dockerfile = f"FROM alpine:3.22\nFROM golang:1\nFROM busybox:1@sha256:{'0' * 64}\nFROM depot.site:5000/x\nFROM m.site/y\n"
    wanted = [Found(Path("d"), need) for need in needs(dockerfile, build(site, arguments={}))]
    found = check(wanted, asked(site), local=registries(site))
    assert {row.image: row.lacks for row in found if row.lacks} == {"golang:1": (ARM64,)}
    assert [row.image for row in found if row.local] == ["depot.site:5000/x:latest", "m.site/y:latest"]
    assert registries(site) == {"depot.site:5000", "harbor.site", "m.site"}


# ---- what to do about it ---------------------------------------------------------------------------------------------


def manifest(lines: str) -> Manifest:
    return Manifest.parse(f"airgap: 1\nname: x\nplatforms: [linux/amd64]\nimages:\n{lines}\n".encode(), name="x")


def test_the_lines_can_be_pasted_and_end_the_lack():
    dockerfile = f"# syntax=docker/dockerfile:1\nFROM alpine\nFROM quay.io/x/y:1@{digest('y')}\nFROM localhost:5000/z:2\n"
    before = rows(dockerfile)
    asked = manifest(manifest_lines(before)).images
    have = []
    for ask in asked:
        got = image(str(ask.reference), *ask.platforms)
        root = Descriptor(media_type=INDEX, digest=ask.reference.digest or got.root.digest, size=1)
        have.append(replace(got, root=root))
    assert len(have) == 4
    assert [row.lacks for row in rows(dockerfile, *have)] == [()] * 4


def test_a_line_for_an_image_that_is_there_in_part_names_all_platforms_and_says_what_it_replaces():
    lines = manifest_lines(rows("FROM alpine:3.22\n", image("alpine:3.22", AMD64)))
    assert lines == '  - {image: "alpine:3.22", platforms: [linux/amd64, linux/arm64]}  # in place of the line that is there'
    assert manifest(lines).images[0].platforms == (AMD64, ARM64)


def test_no_line_asks_for_what_a_manifest_cannot_ask_for():
    build = Build(hosts=(AMD64,), targets=(WINDOWS,))
    assert manifest_lines(rows("FROM nanoserver:1\n", build=build)) == ""
    assert lacks("FROM --platform=windows/amd64 nanoserver:1\nFROM alpine\n")["nanoserver:1"] == {"windows/amd64"}


def test_people_read_places_lines_to_paste_and_what_cannot_be_told(tmp_path):
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM alpine:3.22\nFROM $BASE\nCOPY --from=$BASE a b\nFROM busybox\n")
    have = [image("alpine:3.22", AMD64), image("busybox", AMD64, ARM64)]
    said = text(check(find([tmp_path], BUILD), held(have)))
    assert said.splitlines()[0] == "4 images are asked for: 1 there, 1 missing, 2 cannot be told."
    assert f"alpine:3.22\n    lacks linux/arm64 (only linux/amd64)\n    {tmp_path}/Dockerfile:2 (FROM)\n" in said
    assert '  - {image: "alpine:3.22", platforms: [linux/amd64, linux/arm64]}' in said
    assert f"$BASE  depends on BASE\n    {tmp_path}/Dockerfile:3 (FROM)" in said
    assert "-> --build-arg BASE=VALUE" in said
    assert "takes no variables" in said


def test_people_read_one_line_when_all_is_there():
    said = text(rows("FROM busybox\n", image("busybox", AMD64, ARM64)))
    assert said == "1 image is asked for: 1 there, 0 missing, 0 cannot be told."


def test_machines_read_the_same():
    (row,) = rows("FROM alpine:3.22\n", image("alpine:3.22", AMD64))
    assert json.loads(json.dumps(row.to_json())) == {
        "image": "alpine:3.22", "places": ["app/Dockerfile:1 (FROM)"], "lacks": ["linux/arm64"], "has": ["linux/amd64"],
        "variables": [], "why": "", "local": False,
    }  # fmt: skip
