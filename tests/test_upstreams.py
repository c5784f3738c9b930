"""Names and numbers of upstreams, held against the asset lists of every release there has been.

tests/data/releases.json.gz has the file names of shared/upstream/*.json (docker/actions-toolkit's lists, August 2026). It is made
anew by `python -m tests.test_upstreams`, where shared/ lies beside the project; there the tests also see that it is up to date.
"""

import gzip
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap import upstreams
from airgap.errors import FetchError, ResolveError
from airgap.manifest import PLUGINS
from airgap.oci import Platform
from airgap.upstreams import (
    ENGINE_FOLDERS,
    Version,
    buildx_asset,
    compose_asset,
    engine_candidates,
    engine_members,
    engine_versions,
    nearest,
    parse_checksums,
    runtime_asset,
)

COPY = Path(__file__).parent / "data" / "releases.json.gz"
SHARED = Path(__file__).parents[2] / "shared" / "upstream"
AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
EVERY = [
    Platform.parse(f"linux/{name}")
    for name in ("386", "amd64", "arm/v5", "arm/v6", "arm/v7", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")
]

Releases = dict[str, dict[str, list[str]]]


def compact() -> Releases:
    found: Releases = {}
    for name in ("buildx", "compose", "docker"):
        releases = json.loads((SHARED / f"{name}-releases.json").read_bytes())
        tags = {item["tag_name"]: item["assets"] for key, item in releases.items() if key not in ("latest", "edge")}
        found[name] = {tag: sorted(url.rsplit("/", 1)[-1] for url in assets) for tag, assets in sorted(tags.items())}
        for tag, assets in tags.items():
            assert all(url.startswith(f"https://github.com/docker/{name}/releases/download/{tag}/") for url in assets)
    return found


def packed(releases: Releases) -> bytes:
    return gzip.compress(json.dumps(releases, separators=(",", ":")).encode(), 9, mtime=0)


RELEASES: Releases = json.loads(gzip.decompress(COPY.read_bytes())) if COPY.exists() else {}


def releases(name: str) -> Iterator[tuple[str, set[str]]]:
    assert len(RELEASES[name]) > 100
    for tag, files in RELEASES[name].items():
        yield tag, set(files)


def parsed(tags: list[str]) -> list[Version]:
    return [Version.parse(tag.removeprefix("docker-")) for tag in tags]


@pytest.mark.skipif(not SHARED.exists(), reason="shared/ does not lie beside the project")
def test_the_committed_copy_says_what_the_shared_lists_say():
    assert compact() == RELEASES


# ---- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["buildx", "compose", "docker"])
def test_every_release_has_a_version_we_can_read(name):
    assert len(parsed(list(RELEASES[name]))) == len(RELEASES[name])


@pytest.mark.parametrize("name", ["buildx", "compose", "docker"])
def test_versions_of_every_release_have_one_order_whatever_order_they_came_in(name):
    versions = parsed(list(RELEASES[name]))
    expected = sorted(versions)
    random.Random(7).shuffle(versions)
    assert [str(item) for item in sorted(versions)] == [str(item) for item in expected]
    for before, after in itertools.pairwise(expected):
        assert before < after
        assert not after < before


def test_the_order_is_that_of_releases_not_of_letters_or_dates():
    spelt = [
        "17.03.0-ce",
        "18.06.3-ce",
        "18.09.0",
        "18.09.9",
        "19.03.0-beta1",
        "19.03.0-rc1",
        "19.03.0-rc2",
        "19.03.0",
        "19.03.15",
        "28.0.0-rc.1",
        "28.0.0-rc.10",
        "28.0.0",
        "29.4.1",
        "29.4.2",
        "29.4.2-2",
        "29.4.3",
        "29.10.0",
    ]
    assert [str(item) for item in sorted(Version.parse(text) for text in reversed(spelt))] == spelt


@pytest.mark.parametrize(
    "text",
    ["", "latest", "28", "28.5", "28.5.2.1", "v", "28.5.x", "28.5.2 ", "28.5.2\n", "\u0662.5.2", "1" * 9 + ".0.0", "../28.5.2"],
)
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ValueError, match="is not a version"):
        Version.parse(text)


def test_a_v_before_it_means_nothing():
    assert Version.parse("v0.29.1") == Version.parse("0.29.1")


def test_nearest_names_those_that_are_spelt_alike_and_close_oldest_first():
    known = ["0.28.0", "0.29.0", "0.29.1", "0.29.2-rc1", "0.30.0", "0.30.1", "0.36.1", "1.0.0"]
    assert nearest("0.29.7", reversed(known), count=3) == ["0.29.0", "0.29.1", "0.30.1"]
    assert "0.29.2-rc1" not in nearest("0.29.7", known)
    assert nearest("0.29.2-rc2", known) == ["0.29.2-rc1"]


def test_nearest_knows_tags_of_images():
    tags = ["3.21", "3.22", "3.22.1", "edge", "latest", "3.22-slim", "20250108"]
    assert nearest("3.23", tags, count=2) == ["3.22", "3.22.1"]
    assert nearest("qemu-v10.2.3-99", ["buildkit-v10.2.3-66", "qemu-v10.0.4-59", "qemu-v10.2.3-68"], count=1) == [
        "qemu-v10.2.3-68"
    ]
    assert nearest("latst", tags) == ["latest"]
    assert nearest("3.23", []) == []
    assert nearest("3.23", ["edge"]) == []


# ---- assets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "asset"), [("buildx", buildx_asset), ("compose", compose_asset)])
def test_every_asset_we_name_exists_and_every_linux_binary_there_is_has_our_name(name, asset):
    for tag, files in releases(name):
        version = tag.removeprefix("v")
        named = set()
        for platform in EVERY:
            try:
                found = asset(version, platform)
            except ResolveError:
                continue
            if not files:
                continue  # releases from before binaries were attached, or withdrawn ones
            assert found.tag == tag
            assert found.filename in files, (tag, platform)
            assert set(found.checksums) <= files, (tag, platform)
            named.add(found.filename)
        if name == "compose" and Version.parse(tag).numbers < (1, 1, 0):
            continue  # it was called fig then, and so were its binaries
        binaries = {file for file in files if "linux" in file.lower() and not file.endswith((".json", ".sha256", ".asc", ".gz"))}
        assert binaries <= named, tag


@pytest.mark.parametrize(("name", "asset"), [("buildx", buildx_asset), ("compose", compose_asset)])
def test_where_a_release_has_a_checksum_of_our_file_we_ask_for_it(name, asset):
    for tag, files in releases(name):
        for platform in (AMD64, ARM64):
            try:
                found = asset(tag.removeprefix("v"), platform)
            except ResolveError:
                continue
            offered = files & {"checksums.txt", f"{found.filename}.sha256"}
            assert bool(offered) == bool(set(found.checksums) & files), tag


def test_what_upstream_does_not_build_is_named_with_what_it_does():
    with pytest.raises(ResolveError, match=r"riscv64 begins with 0\.6\.0") as caught:
        buildx_asset("0.5.1", Platform.parse("linux/riscv64"))
    assert "linux/amd64" in (caught.value.hint or "")
    with pytest.raises(ResolveError, match="is not built for linux/386"):
        compose_asset("2.40.3", Platform.parse("linux/386"))
    with pytest.raises(ResolveError, match="is not a version") as caught:
        buildx_asset("latest", AMD64)
    assert "exact version" in (caught.value.hint or "")


def test_plugins_of_the_manifest_are_those_that_we_can_find():
    assert set(PLUGINS) == set(upstreams.PLUGINS)


# ---- the engine ------------------------------------------------------------------------------------------------------


def test_every_engine_release_has_a_path_of_the_form_upstream_uses():
    count = 0
    for tag, _ in releases("docker"):
        for version in parsed([tag]):
            if version.numbers < (17, 3, 0):
                continue
            for platform in (AMD64, ARM64):
                for path in engine_candidates(str(version), platform):
                    channel, folder, file = path.strip("/").split("/")
                    assert channel == ("test" if version.pre else "stable")
                    assert folder == ENGINE_FOLDERS[str(platform)]
                    assert file.startswith("docker-")
                    assert file.endswith(".tgz")
                    assert ("-ce" in file) == (version.numbers < (18, 9, 0))
                    count += 1
    assert count > 300


@pytest.mark.parametrize(
    ("version", "platform", "paths"),
    [
        ("28.5.2", "linux/amd64", ["/stable/x86_64/docker-28.5.2.tgz"]),
        ("v28.5.2", "linux/arm64", ["/stable/aarch64/docker-28.5.2.tgz"]),
        ("18.09.6", "linux/amd64", ["/stable/x86_64/docker-18.09.6.tgz"]),
        ("18.06.3", "linux/s390x", ["/stable/s390x/docker-18.06.3-ce.tgz"]),
        ("18.06.3-ce", "linux/arm/v6", ["/stable/armel/docker-18.06.3-ce.tgz"]),
        ("17.03.2-ce-rc1", "linux/amd64", ["/test/x86_64/docker-17.03.2-ce-rc1.tgz"]),
        ("29.4.2", "linux/arm/v7", ["/stable/armhf/docker-29.4.2-2.tgz", "/stable/armhf/docker-29.4.2.tgz"]),
        ("29.4.2-2", "linux/amd64", ["/stable/x86_64/docker-29.4.2-2.tgz"]),
        ("28.0.0-rc.1", "linux/amd64", ["/test/x86_64/docker-28.0.0-rc.1.tgz"]),
    ],
)
def test_engine_names_have_the_exceptions_upstream_has(version, platform, paths):
    assert engine_candidates(version, Platform.parse(platform)) == paths


@pytest.mark.parametrize(
    ("version", "platform"), [("18.09.0", "linux/s390x"), ("28.5.2", "linux/ppc64le"), ("28.5.2", "linux/riscv64")]
)
def test_an_engine_for_a_platform_that_ended_names_the_other_ways(version, platform):
    with pytest.raises(ResolveError, match=f"no static tarball for {platform}") as caught:
        engine_candidates(version, Platform.parse(platform))
    assert "moby/moby-bin" in (caught.value.hint or "")
    assert "keep: true" in (caught.value.hint or "")


def test_engines_before_static_tarballs_are_refused():
    with pytest.raises(ResolveError, match=r"begin with 17\.03"):
        engine_candidates("1.13.1", AMD64)


def test_versions_come_from_any_index_page_that_has_links():
    page = """<html><body><a href="../">../</a>
        <a href="docker-17.03.0-ce.tgz">docker-17.03.0-ce.tgz</a> 2017-03-01
        <a href="docker-29.10.0.tgz">x</a> <A HREF='docker-29.4.2-2.tgz'>x</A>
        <a class="k" href=/linux/static/stable/x86_64/docker-9.0.0.tgz>x</a>
        <a href="docker-20.10.9.tgz?C=M">x</a> <a href="docker-28.0.0%2Drc.1.tgz">x</a>
        <a href="docker-rootless-extras-28.5.2.tgz">x</a> <a href="docker-buildx-plugin-0.29.1.tgz">x</a> docker-1.2.3.tgz"""
    assert engine_versions(page) == ["9.0.0", "17.03.0-ce", "28.0.0-rc.1", "29.4.2-2", "29.10.0"]
    assert engine_versions("<html>Log in to the hotel's network</html>") == []
    assert engine_versions("href=" * 20_000) == []


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ("18.06.3-ce", {"docker-containerd-shim", "docker-runc", "docker-init"}, {"containerd", "runc"}),
        ("18.09.6", {"containerd-shim", "runc", "ctr"}, {"containerd-shim-runc-v2", "docker-runc"}),
        ("19.03.15", {"containerd-shim", "docker-proxy"}, {"containerd-shim-runc-v2"}),
        ("20.10.24", {"containerd-shim", "containerd-shim-runc-v2"}, {"docker-runc"}),
        ("28.5.2", {"containerd-shim-runc-v2", "runc"}, {"containerd-shim"}),
    ],
)
def test_the_members_of_a_tarball_follow_its_generation(version, has, lacks):
    required, optional = engine_members(version)
    assert required == ("docker", "dockerd")
    assert has <= set(optional)
    assert not lacks & set(optional)


# ---- the runtime and checksums ---------------------------------------------------------------------------------------


def test_the_runtime_is_the_baseline_build_for_old_hosts():
    name = "cpython-3.13.14+20260728-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
    assert runtime_asset("3.13.14", "20260728", AMD64) == name
    with pytest.raises(ResolveError, match="no CPython for linux/arm/v6"):
        runtime_asset("3.13.14", "20260728", Platform.parse("linux/arm/v6"))


A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    "text",
    [
        f"{A} buildx\n{B} other\n",  # buildx 0.7.0 to 0.8.2
        f"{A}  buildx\n{B}  other\n",  # 0.9
        f"{A} *buildx\n{B} *other\n",  # 0.10 and newer
        f"{A.upper()}\t*bin/buildx\r\n\r\n{B}  ./other\r\n",
        f"\ufeff{A}  buildx\n{B}  other\n{A}  buildx",
    ],
)
def test_checksums_are_read_in_every_form_they_have_had(text):
    assert parse_checksums(text) == {"buildx": A, "other": B}


def test_a_lone_hash_is_of_the_file_it_was_asked_for():
    assert parse_checksums(f"{A}\n", default="docker-compose-linux-x86_64") == {"docker-compose-linux-x86_64": A}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("<html>please log in</html>", "line 1"),
        (f"{A}  buildx\n<br>", "line 2"),
        (f"{A[:63]}  buildx", "is no checksum"),
        (f"{A}0  buildx", "is no checksum"),
        (A, "is no checksum"),
        (f"{A}  folder/", "is no checksum"),
        (f"{A}  x\n{B}  x", "two checksums for x"),
    ],
)
def test_a_document_that_is_no_list_of_checksums_is_a_failure_not_a_missing_checksum(text, complaint):
    with pytest.raises(FetchError, match=complaint):
        parse_checksums(text)


if __name__ == "__main__":
    COPY.parent.mkdir(exist_ok=True)
    COPY.write_bytes(packed(compact()))
