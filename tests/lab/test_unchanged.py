"""Dockerfiles build behind the gap without a changed line: base images come from the site's registry, results go there and run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import site
from tests.lab.host import SiteHost
from tests.lab.servers import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

DEPOT = "127.0.0.1:5000"
PLATFORMS = "linux/amd64,linux/arm64"
TWO_STAGES = """\
FROM {base} AS build
RUN uname -m > /machine
FROM {base}
COPY --from=build /machine /machine
COPY --from=alpine:3.22 /bin/busybox /again
CMD ["cat", "/machine"]
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with Upstream(arches=("amd64",)) as upstream:
        home, disc = tmp_path_factory.mktemp("packer"), tmp_path_factory.mktemp("disc")
        yield site.packed(site.HERE / "site.yaml", upstream.sources_yaml(), home=home, disc=disc)


def project(host: SiteHost, dockerfile: str) -> None:
    folder = host.tree / "root/app"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)


def push(host: SiteHost, tag: str) -> str:
    """Build for both platforms, push, and say the digest that the registry has."""
    words = ["docker", "buildx", "build", "--platform", PLATFORMS, "--push", "-t", f"{DEPOT}/{tag}", "--metadata-file", "/root/app/m"]
    host.run([*words, "/root/app"], timeout=300)
    return str(json.loads(host.sh("cat /root/app/m").out)["containerimage.digest"])


def runs(host: SiteHost, name: str) -> list[str]:
    """What the image says on each platform, pulled by digest."""
    found = []
    for platform in PLATFORMS.split(","):
        host.run(["docker", "pull", "-q", "--platform", platform, f"{DEPOT}/{name}"], timeout=120)
        words = ["docker", "run", "--rm", "--network=none", "--pull=never", "--platform", platform, f"{DEPOT}/{name}"]
        found.append(host.run(words, timeout=120).out.strip())
        # The classic image store holds one platform of a name, and refuses the other one of a digest.
        host.run(["docker", "rmi", f"{DEPOT}/{name}"])
    return found


def test_base_images_come_from_the_site_and_results_go_there_and_run_also_after_a_reboot_and_a_second_install(bundle: Path) -> None:
    with SiteHost(media=bundle.parent) as host:
        site.install(host, bundle)
        shown = host.run(["docker", "buildx", "imagetools", "inspect", f"{DEPOT}/library/alpine:3.22", "--format", "{{json .Manifest}}"])
        index = json.loads(shown.out)["digest"]
        for number, base in enumerate(("alpine:3.22", f"alpine:3.22@{index}", "docker.io/library/alpine:3.22")):
            project(host, TWO_STAGES.format(base=base))
            digest = push(host, f"team/app:{number}")
            assert runs(host, f"team/app@{digest}") == ["x86_64", "aarch64"], base

        site.install(host, bundle)
        host.power_off()
        host.power_on()
        project(host, TWO_STAGES.format(base="alpine:3.22") + "ENV after=reboot\n")
        assert runs(host, f"team/app@{push(host, 'team/app:again')}") == ["x86_64", "aarch64"]


def test_what_the_site_lacks_fails_at_once_and_says_what_to_do_and_lint_had_named_it(bundle: Path) -> None:
    with SiteHost(media=bundle.parent) as host:
        site.install(host, bundle)
        project(host, "FROM python:3.13-slim\nRUN true\n")
        started = time.monotonic()
        failed = host.run(["docker", "buildx", "build", "--platform", PLATFORMS, "/root/app"], check=False, timeout=120)
        seconds = time.monotonic() - started
        assert failed.code != 0
        assert "docker.io/library/python:3.13-slim is not on this site" in failed.err, failed
        assert seconds < 5, f"{seconds:.1f} s"
        named = host.run(["airgap", "lint", "/root/app"], check=False, timeout=60)
        assert named.code == 5, named
        assert "python:3.13-slim" in named.out
