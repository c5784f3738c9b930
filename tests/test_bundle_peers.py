"""Programs that are not ours read a bundle, and its README.txt is true."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from airgap.bundle.archive import Bundle
from airgap.bundle.image import docker_archive
from airgap.oci import Digest
from tests.lab.cache import unpacked
from tests.sample import ingredients


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    return ingredients(folder).write(folder / "airgap-site-7.tar")


@pytest.fixture(scope="module")
def opened(bundle):
    folder = bundle.parent / "opened"
    folder.mkdir()
    run("tar", "-xf", bundle, "-C", folder)
    return folder


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


def need(tool: str) -> str:
    return shutil.which(tool) or pytest.skip(f"{tool} is not installed here")


def crane() -> Path | str:
    if found := shutil.which("crane"):
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get") or not Path("/etc/debian_version").exists():
        pytest.skip("crane is not here, and only Debian's own can be had (root, apt-get)")
    try:
        return unpacked("crane", suite="sid") / "usr" / "bin" / "crane"
    except RuntimeError as problem:
        pytest.skip(f"crane cannot be had from Debian: {str(problem)[:200]}")


def test_gnu_tar_lists_it_without_a_word_of_complaint(bundle):
    done = subprocess.run(["tar", "-tvf", bundle], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("-rwxr-xr-x 0/0")
    assert all(line.startswith("-rw-r--r-- 0/0") for line in lines[1:])


@pytest.mark.parametrize("tool", ["busybox", "bsdtar"])
def test_other_tars_list_the_same_members(bundle, tool):
    argv = [need(tool), *(["tar"] if tool == "busybox" else []), "-tf", bundle]
    with tarfile.open(bundle) as tar:
        assert run(*argv).splitlines() == tar.getnames()


def test_skopeo_reads_every_image_out_of_the_bundle_with_upstreams_digest(bundle):
    skopeo = need("skopeo")
    with Bundle.at(bundle) as found:
        for image in found.lock.images:
            raw = run(skopeo, "inspect", "--raw", f"oci-archive:{bundle}:{image.reference}")
            assert Digest.of(raw.encode()) == image.root.digest
            assert json.loads(run(skopeo, "inspect", f"oci-archive:{bundle}:{image.reference}"))["Os"] == "linux"


@pytest.fixture(scope="module")
def registry():
    """crane's own registry, in memory."""
    program = crane()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    argv = [program, "registry", "serve", "--address", address]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0:
                        break
                time.sleep(0.05)
            yield program, address
        finally:
            server.kill()


def test_crane_reads_the_whole_layout_and_pushes_it_bit_by_bit(bundle, opened, registry):
    program, address = registry
    # crane checks every blob against its digest and size while it pushes.
    run(program, "push", "--index", opened, f"{address}/site/bundle:7")
    with Bundle.at(bundle) as found:
        assert run(program, "manifest", f"{address}/site/bundle:7").encode() == found.index.data
        own = Digest.of(found.index.artifact)
        assert run(program, "manifest", f"{address}/site/bundle@{own}").encode() == found.index.artifact
        for image in found.lock.images:
            for child in image.manifests:
                run(program, "validate", "--remote", f"{address}/site/bundle@{child.digest}")


def test_crane_reads_what_docker_load_gets(bundle, tmp_path):
    with Bundle.at(bundle) as found:
        image = found.lock.images[0]
        path = tmp_path / "image.tar"
        path.write_bytes(b"".join(docker_archive(found, image.manifests[0], reference=image.reference)))
    assert "PASS" in run(crane(), "validate", "--tarball", path)


def test_skopeo_reads_what_docker_load_gets_both_ways(bundle, tmp_path):
    skopeo = need("skopeo")
    with Bundle.at(bundle) as found:
        image = found.lock.images[0]
        path = tmp_path / "image.tar"
        path.write_bytes(b"".join(docker_archive(found, image.manifests[0], reference=image.reference)))
    assert json.loads(run(skopeo, "inspect", f"docker-archive:{path}"))["Os"] == "linux"
    raw = run(skopeo, "inspect", "--raw", f"oci-archive:{path}")
    assert Digest.of(raw.encode()) == image.manifests[0].digest


def commands(opened: Path) -> list[str]:
    text = (opened / "README.txt").read_text()
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def test_the_readmes_checks_pass_and_find_a_flipped_byte(opened, tmp_path):
    (check,) = [line for line in commands(opened) if line.startswith("(cd blobs")]
    lines = run("sh", "-c", check, cwd=opened).splitlines()
    assert len(lines) == len(list((opened / "blobs" / "sha256").iterdir()))
    assert all(line.endswith(": OK") for line in lines)
    named = run("sh", "-c", "sha256sum install.sh README.txt; grep airgap.bundle.member index.json", cwd=opened)
    digests = re.findall(r"\b[0-9a-f]{64}\b", named)
    assert len(digests) == 4
    assert len(set(digests)) == 2
    damaged = tmp_path / "damaged"
    shutil.copytree(opened, damaged)
    victim = max((damaged / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = subprocess.run(["sh", "-c", check], cwd=damaged, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{victim.name}: FAILED" in done.stdout


def test_what_the_readme_lists_comes_out_of_the_zstd_program(bundle, opened):
    zstd = need("zstd")
    with Bundle.at(bundle) as found:
        for item in found.index.carried:
            blob = opened / "blobs" / "sha256" / item.blob.digest.hex
            argv = [zstd, "-d", "--long=27", "-c", blob] if item.frames else ["cat", blob]
            content = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
            assert f"{Digest.of(content).hex}  {item.artifact.filename}" in (opened / "README.txt").read_text()
