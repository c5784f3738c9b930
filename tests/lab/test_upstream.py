"""The lab's upstream answers as the real one does: redirects, ranges, tokens, Accept types, and whole multi-platform images."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airgap import elf, upstreams
from airgap.oci import Platform
from tests.lab import trees
from tests.lab.cache import require_tools
from tests.lab.images import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST
from tests.lab.servers import Upstream
from tests.lab.upstream import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = {"Accept": f"{INDEX}, {MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"}
RELEASES = "/docker/buildx/releases/download"

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    require_tools()
    with Upstream(arches=("amd64",), engines=tuple(ENGINES), with_runtime=False) as running:
        yield running


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=10, allow_redirects=False)


def token(upstream: Upstream, repository: str) -> dict[str, str]:
    url = upstream.registry + f"/v2/{repository}/tags/list"
    challenge = get(url).headers["WWW-Authenticate"]
    words = dict(part.split("=", 1) for part in challenge.removeprefix("Bearer ").replace('"', "").split(","))
    answer = get(f"{words['realm']}?service={words['service']}&scope={words['scope']}").json()
    return {"Authorization": f"Bearer {answer['token']}"}


@pytest.mark.parametrize("version", list(ENGINES))
def test_engine_tarball_holds_the_executables_of_its_generation(upstream: Upstream, version: str) -> None:
    path = upstreams.engine_candidates(version, Platform.parse("linux/amd64"))[0]
    data = get(upstream.sources["docker_static"][0] + path).content
    required, optional = upstreams.engine_members(version)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {item.name: item for item in tar if item.isreg()}
        assert set(files) == {f"docker/{name}" for name in (*required, *optional)}
        for item in files.values():
            file = tar.extractfile(item)
            assert file is not None
            assert elf.runs_on(file.read(64), Platform.parse("linux/amd64"))


def test_index_page_names_the_engines(upstream: Upstream) -> None:
    page = get(upstream.sources["docker_static"][0] + "/stable/x86_64/").text
    assert upstreams.engine_versions(page) == list(ENGINES)


def test_release_downloads_live_on_another_host_that_refuses_credentials(upstream: Upstream) -> None:
    github = upstream.sources["github"][0]
    answer = get(f"{github}{RELEASES}/v0.29.1/checksums.txt", Authorization="token secret")
    elsewhere = answer.headers["Location"]
    assert answer.status_code == 302
    assert elsewhere.split("/")[2].split(":")[0] != github.split("/")[2].split(":")[0]
    assert get(elsewhere, Authorization="token secret").status_code == 400
    assert get(elsewhere.split("?")[0]).status_code == 403
    assert "buildx-v0.29.1.linux-amd64" in upstreams.parse_checksums(get(elsewhere).text)


def test_a_range_is_served_only_of_the_same_file(upstream: Upstream) -> None:
    url = upstream.sources["docker_static"][0] + "/stable/x86_64/docker-28.5.2.tgz"
    head = requests.head(url, timeout=10)
    whole = int(head.headers["Content-Length"])
    rest = get(url, Range=f"bytes={whole - 5}-", **{"If-Range": head.headers["ETag"]})
    assert (rest.status_code, len(rest.content)) == (206, 5)
    assert rest.headers["Content-Range"] == f"bytes {whole - 5}-{whole - 1}/{whole}"
    assert get(url, Range=f"bytes={whole}-").status_code == 416
    upstream.served.clear()
    other = get(url, Range=f"bytes={whole - 5}-", **{"If-Range": '"another"'})
    assert (other.status_code, len(other.content)) == (200, whole)
    assert upstream.served["/stable/x86_64/docker-28.5.2.tgz"] == whole


def test_listing_of_releases_has_tags_and_digests(upstream: Upstream) -> None:
    rows = get(upstream.sources["github_api"][0] + "/repos/docker/buildx/releases").json()
    assert [row["tag_name"] for row in rows] == ["v0.29.1", "v0.13.1"]
    assert all(asset["digest"].startswith("sha256:") for row in rows for asset in row["assets"])
    assert get(upstream.sources["github_api"][0] + "/repos/docker/nothing/releases").status_code == 404


def test_a_token_is_good_for_its_repository_only(upstream: Upstream) -> None:
    url = upstream.registry + "/v2/library/alpine/manifests/3.22"
    assert get(url, **ALL).status_code == 401
    assert get(url, **ALL, **token(upstream, "moby/buildkit")).status_code == 401
    assert get(url, **ALL, **token(upstream, "library/alpine")).status_code == 200


def test_an_index_is_refused_to_who_does_not_ask_for_one(upstream: Upstream) -> None:
    url = upstream.registry + "/v2/library/alpine/manifests/3.22"
    answer = get(url, Accept=MANIFEST, **token(upstream, "library/alpine"))
    assert answer.status_code == 404
    assert "accept header does not support OCI indexes" in answer.text
    # The older kind of list is silently made one platform's manifest.
    url = upstream.registry + "/v2/library/registry/manifests/2"
    answer = get(url, Accept=DOCKER_MANIFEST, **token(upstream, "library/registry"))
    assert answer.headers["Content-Type"] == DOCKER_MANIFEST


def test_tags_come_in_pages(upstream: Upstream) -> None:
    given = token(upstream, "library/alpine")
    first = get(upstream.registry + "/v2/library/alpine/tags/list?n=2", **given)
    assert first.json()["tags"] == ["3.22", "3.22.2"]
    following = first.headers["Link"].split(";")[0].strip("<>")
    assert get(upstream.registry + following, **given).json()["tags"] == ["latest"]


@pytest.mark.parametrize(
    "name", ["library/alpine:3.22", "moby/buildkit:v0.25.1", "tonistiigi/binfmt:qemu-v10.0.4", "library/registry:2"]
)
def test_skopeo_copies_every_image_whole(upstream: Upstream, tmp_path: Path, name: str) -> None:
    registry = upstream.registry.removeprefix("http://")
    words = ["skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", f"docker://{registry}/{name}"]
    subprocess.run([*words, f"oci:{tmp_path}:copy"], check=True, timeout=60)
    root = json.loads((tmp_path / "index.json").read_text())["manifests"][0]
    index: dict[str, Any] = json.loads((tmp_path / "blobs/sha256" / root["digest"].removeprefix("sha256:")).read_bytes())
    platforms = [item["platform"]["architecture"] for item in index["manifests"]]
    arches = ["amd64", "arm64"] if name.startswith("library/alpine") else ["amd64"]
    assert platforms == (arches if name.startswith("library/registry") else [*arches, *["unknown"] * len(arches)])


def test_the_same_tree_gives_the_same_tarball(tmp_path: Path) -> None:
    tree: trees.Tree = {
        "b/program": trees.File(b"\x7fELF"), "b/link": trees.Link("program"), "a": trees.Folder(0o1777),
        "copied": trees.File(Path(__file__), 0o644),
    }  # fmt: skip
    found = []
    for name in ("one", "two"):
        made = trees.packed(tree, cache=tmp_path / name)
        assert (trees.sha256(made.path), made.path.stat().st_size) == (made.digest, made.size)
        found.append((made.digest, made.inner_digest, made.inner_size))
    assert found[0] == found[1]
    with tarfile.open(made.path) as tar:
        assert [(item.name, oct(item.mode)) for item in tar][:3] == [("a", "0o1777"), ("b", "0o755"), ("b/link", "0o777")]
