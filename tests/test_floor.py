"""Old hosts can run what we bring: machine code for the right machine, nothing newer than glibc 2.17, nothing that a bare host
lacks, and Python that CPython 3.10 to 3.14 understand. The files looked at are real: the lab's runtimes and what pip brings.
"""

import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from airgap.bundle.store import Store
from airgap.elf import runs_on
from airgap.errors import FetchError
from airgap.lock import FileArtifact
from airgap.machine.run import Runner
from airgap.oci import Platform
from airgap.online import wheels
from airgap.upstreams import RUNTIME_TRIPLES

FLOOR = (2, 17)
PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
LAB = Path(os.environ.get("AIRGAP_LAB_CACHE") or Path.home() / ".cache/airgap-lab") / "runtime"

# glibc's own parts and gcc's unwinder, which every glibc system has because pthread_cancel loads it.
LIBRARIES = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libgcc_s.so.1",
             "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}  # fmt: skip


class Packages:
    """The wheels for a CPython and a platform, fetched once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[tuple[str, Platform], tuple[FileArtifact, ...]] = {}

    def __call__(self, python: str, platform: Platform) -> Iterator[zipfile.ZipFile]:
        key = (python, platform)
        try:
            self.known[key] = self.known.get(key) or wheels.resolve(
                python=python, platforms=[platform], store=self.store, run=Runner()
            )
        except FetchError as cause:
            pytest.skip(f"pip reaches no index here: {cause.message[:200]}")
        for item in self.known[key]:
            with zipfile.ZipFile(self.store.path(item.upstream.digest)) as archive:
                yield archive


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> Packages:
    return Packages(Store(tmp_path_factory.mktemp("store")))


def complaints(name: str, data: bytes, platform: Platform) -> Iterator[str]:
    """What of this file an old host of this platform could not take."""
    if not runs_on(data[:20], platform):
        yield f"{name}: not {platform}"
        return
    elf = ELFFile(BytesIO(data))
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            needed = {tag.needed for tag in section.iter_tags() if tag.entry.d_tag == "DT_NEEDED"}
            yield from (f"{name}: needs {library}" for library in sorted(needed - LIBRARIES))
        if isinstance(section, GNUVerNeedSection):
            for _, versions in section.iter_versions():
                for version in versions:
                    family, _, number = version.name.partition("_")
                    if family == "GLIBC" and tuple(int(part) for part in number.split(".")) > FLOOR:
                        yield f"{name}: wants {version.name}"


def lab_runtime(platform: Platform) -> Path:
    found = sorted(LAB.glob(f"cpython-*-{RUNTIME_TRIPLES[str(platform)]}-install_only_stripped.tar.gz"))
    if not found:
        pytest.skip("the lab's runtime is not built: python -m tests.lab.runtime")
    return found[-1]


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_the_runtime_needs_no_more_than_an_old_host_has(platform):
    found, count = [], 0
    with tarfile.open(lab_runtime(platform)) as tar:
        for member in tar:
            if member.isfile() and (data := tar.extractfile(member).read())[:4] == b"\x7fELF":
                count += 1
                found += complaints(member.name, data, platform)
    assert count > 20
    assert not found


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_the_packages_need_no_more_than_an_old_host_has(packages, platform):
    found, count = [], 0
    for archive in packages("3.13", platform):
        for name in archive.namelist():
            if (data := archive.read(name))[:4] == b"\x7fELF":
                count += 1
                found += complaints(name, data, platform)
    assert count >= 3
    assert not found


def test_a_newer_symbol_a_strange_library_and_another_machine_are_complaints():
    program = shutil.which("openssl") or shutil.which("python3")
    if not program:
        pytest.skip("there is no program here to complain about")
    data = Path(program).resolve().read_bytes()
    here = next(platform for platform in PLATFORMS if runs_on(data[:20], platform))
    other = next(platform for platform in PLATFORMS if platform != here)
    assert list(complaints("it", data, other)) == [f"it: not {other}"]
    assert any("wants GLIBC_2." in text or "needs lib" in text for text in complaints("it", data, here))


def interpreters() -> dict[str, Path]:
    """The CPythons of this machine, one a minor version."""
    found: dict[str, Path] = {}
    for minor in range(10, 15):
        name = f"python3.{minor}"
        versions = sorted((Path.home() / ".pyenv/versions").glob(f"3.{minor}.*/bin/{name}"))
        if path := (versions[-1] if versions else shutil.which(name)):
            found[f"3.{minor}"] = Path(path)
    return found


# Everything but what only the packer uses: airgap.online, and airgap.projects, which read YAML.
IMPORT_ALL = """
import importlib, os, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import airgap
for module in pkgutil.walk_packages(airgap.__path__, "airgap."):
    if not module.name.startswith(("airgap.online", "airgap.projects", "airgap.__main__")):
        importlib.import_module(module.name)
import click, docker, tqdm, zstandard, cryptography.hazmat.primitives.asymmetric.ed25519
assert "yaml" not in sys.modules
"""


@pytest.mark.parametrize("python", interpreters())
def test_the_installing_side_loads_with_nothing_but_what_is_carried(packages, tmp_path, python):
    here = next((p for p in PLATFORMS if runs_on(interpreters()[python].resolve().read_bytes()[:20], p)), None)
    if here is None:
        pytest.skip("no wheels are looked at for this machine")
    for archive in packages(python, here):
        archive.extractall(tmp_path)  # noqa: S202 - checked by pip
    argv = [interpreters()[python], "-I", "-S", "-B", "-c", IMPORT_ALL, tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_installing_side_loads_in_the_labs_runtime_which_has_no_ssl(packages, tmp_path):
    here = next((p for p in PLATFORMS if runs_on(Path("/proc/self/exe").read_bytes()[:20], p)), PLATFORMS[0])
    subprocess.run(["tar", "-xzf", lab_runtime(here), "-C", tmp_path], check=True)
    for archive in packages("3.13", here):
        archive.extractall(tmp_path / "packages")  # noqa: S202 - checked by pip
    argv = [tmp_path / "python/bin/python3", "-I", "-S", "-B", "-c", IMPORT_ALL, tmp_path / "packages"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
