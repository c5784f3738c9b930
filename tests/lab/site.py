"""The way from the lab's upstream to a build behind the gap, one function a leg: pack, carry, install, build."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.cache import unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.lab.host import Done, Entry, SiteHost

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}

# What a site's own Dockerfile looks like to a builder: files, a RUN step for each platform, a command.
DOCKERFILE = """\
FROM scratch
ARG TARGETARCH
COPY busybox-$TARGETARCH /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox uname -m > /machine"]
CMD ["/bin/busybox", "cat", "/machine"]
"""


# Where airgap keeps its own books and runtime, and what containerd, groupadd and root's own build commands leave behind.
LEFT = re.compile(
    r"/opt(/(airgap|containerd)(/.*)?)?|/var/lib(/airgap(/.*)?)?|/root(/(\.docker|app|install\.sh).*)?|/etc/(group|gshadow|passwd|shadow)-"
)


@dataclass(frozen=True, slots=True)
class Ran:
    """A run of airgap on the machine with internet."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The last object that `--json` printed."""
        return last_object(self.out)


def last_object(out: str) -> dict[str, Any]:
    """The last JSON object of a command's standard output."""
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def airgap_words(*words: str) -> list[str]:
    """The command line that runs this checkout's airgap."""
    return [sys.executable, "-m", "airgap", *words]


def airgap(*words: str, home: Path, timeout: float = 600) -> Ran:
    """Run airgap as a packer would, with a home of its own; RuntimeError if it fails."""
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        airgap_words(*words), env=environment, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"airgap {' '.join(words)}: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return Ran(done.returncode, done.stdout, done.stderr)


def packed(manifest: Path, sources: str, *, home: Path, disc: Path) -> Path:
    """The bundle of this manifest, packed from these sources onto the disc that will be carried."""
    where = home / "sources.yaml"
    where.write_text(sources)
    ran = airgap("pack", "-m", str(manifest), "--sources", str(where), "-o", str(disc), "--json", home=home)
    return Path(ran.result["bundle"])


def install(host: SiteHost, bundle: Path, *options: str, timeout: float = 600, check: bool = True) -> Done:
    """What the installer types: install.sh out of the carried file, and the file."""
    carried = f"/media/{bundle.name}"
    host.run(["tar", "-xf", carried, "install.sh"], cwd="/root")
    return host.run(["sh", "install.sh", carried, *options], cwd="/root", timeout=timeout, check=check)


def compared(host: SiteHost) -> dict[str, Entry]:
    """The host's files, without those that are left by design: see LEFT."""
    return {path: entry for path, entry in host.snapshot().items() if not LEFT.fullmatch(path)}


def differences(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> list[str]:
    """What became of each path that is not what it was."""
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return [f"{path}: {before.get(path)} -> {after.get(path)}" for path in paths]


def application(host: SiteHost, folder: str = "root/app") -> None:
    """A small application of the site's developers, with a Dockerfile for two platforms."""
    place = host.tree / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / "Dockerfile").write_text(DOCKERFILE)
    for arch in ("amd64", "arm64"):
        program = (unpacked("busybox-static", suite="bookworm", arch=arch) / "bin/busybox").read_bytes()
        (place / f"busybox-{arch}").write_bytes(program)
        (place / f"busybox-{arch}").chmod(0o755)


def build(host: SiteHost, builder: str, *options: str, timeout: float = 300) -> dict[str, str]:
    """`docker buildx build` of the application for both platforms; what each platform's RUN step said it ran on."""
    words = ["docker", "buildx", "build", "--builder", builder, "--platform", ",".join(MACHINES), "--no-cache", *options]
    host.run([*words, "--progress", "plain", "--output", "type=oci,dest=/root/app.tar", "/root/app"], timeout=timeout)
    with tarfile.open(host.tree / "root/app.tar") as archive:
        return dict(_machines(archive))


def _machines(archive: tarfile.TarFile) -> list[tuple[str, str]]:
    """Each platform of an OCI archive, with the content of /machine in its layers."""

    def blob(digest: str) -> bytes:
        file = archive.extractfile("blobs/" + digest.replace(":", "/"))
        assert file is not None
        return file.read()

    index = archive.extractfile("index.json")
    assert index is not None
    pending: list[Mapping[str, Any]] = list(json.loads(index.read())["manifests"])
    found = []
    while pending:
        item = pending.pop()
        document = json.loads(blob(item["digest"]))
        pending += document.get("manifests", [])
        place = item.get("platform", {})
        if place.get("architecture", "unknown") != "unknown":
            text = _member([blob(layer["digest"]) for layer in document["layers"]], "machine")
            found.append((f"{place['os']}/{place['architecture']}", text.strip()))
    return sorted(found)


def _member(layers: Sequence[bytes], name: str) -> str:
    for layer in reversed(layers):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            if name in tar.getnames():
                file = tar.extractfile(name)
                assert file is not None
                return file.read().decode()
    raise AssertionError(f"no layer has {name}")
