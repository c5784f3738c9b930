"""The Python packages: brought by pip, pinned by digest, and airgap itself as one of them, the same bytes every time."""

import sys
import zipfile
from pathlib import Path

import pytest

from airgap.bundle.store import Store
from airgap.errors import FetchError, ResolveError
from airgap.machine.run import Result, RunError, Runner
from airgap.oci import Digest, Platform
from airgap.online import wheels

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
PURE = {"click": "9.1", "docker": "8.0"}


class Index:
    """Stands for pip: puts wheels into the folder asked for, and remembers how it was asked."""

    def __init__(self, complaint: str = "") -> None:
        self.complaint = complaint
        self.calls: list[list[str]] = []
        self.requirements: list[str] = []

    def __call__(self, argv, *, input=None, timeout=60, user=None, env=None, inherit=False, check=True):
        assert inherit, "pip's own configuration must hold"
        self.calls.append(list(argv))
        if self.complaint:
            result = Result(argv=tuple(argv), code=1, out=b"", err=self.complaint.encode())
            raise RunError(f"pip ended with exit code 1\n{self.complaint}", result=result)
        folder = Path(argv[argv.index("--dest") + 1])
        if "--requirement" in argv:
            self.requirements += Path(argv[argv.index("--requirement") + 1]).read_text().splitlines()
        for name, version in PURE.items():
            (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(f"{name} {version}".encode())
        return Result(argv=tuple(argv), code=0, out=b"", err=b"")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def test_every_wheel_is_in_the_store_and_names_its_platform_and_our_own_is_there(store):
    index = Index()
    found = wheels.resolve(python="3.13.5", platforms=[AMD64, ARM64], store=store, run=index)
    assert {(item.name, item.version, item.platform) for item in found if item.name != "airgap"} == {
        (name, version, platform) for name, version in PURE.items() for platform in (AMD64, ARM64)
    }
    assert [item.platform for item in found if item.name == "airgap"] == [AMD64, ARM64]
    assert all(store.has(item.upstream.digest) and item.content == item.upstream and item.form == "as-is" for item in found)
    assert not list(store.root.glob("wheels-*"))


def test_pip_is_asked_for_binaries_of_the_hosts_python_and_glibc_not_of_this_machine(store):
    index = Index()
    wheels.resolve(python="3.12.4", platforms=[ARM64], store=store, run=index)
    (argv,) = index.calls
    words = " ".join(argv)
    assert argv[:4] == [sys.executable, "-m", "pip", "download"]
    for asked in ("--only-binary :all:", "--python-version 3.12", "--abi cp312", "--platform manylinux2014_aarch64"):
        assert asked in words
    assert "index-url" not in words
    assert argv[-len(wheels.OFFLINE) :] == list(wheels.OFFLINE)


def test_what_is_locked_and_in_the_store_is_not_fetched_again(store):
    first = wheels.resolve(python="3.13.5", platforms=[AMD64], store=store, run=Index())
    again = Index()
    assert wheels.resolve(python="3.13.5", platforms=[AMD64], store=store, run=again, pinned=first) == first
    assert again.calls == []


def test_what_is_locked_and_not_in_the_store_is_asked_for_by_its_digest(store, tmp_path):
    first = wheels.resolve(python="3.13.5", platforms=[AMD64], store=store, run=Index())
    index = Index()
    again = wheels.resolve(python="3.13.5", platforms=[AMD64], store=Store(tmp_path / "other"), run=index, pinned=first)
    assert again == first
    assert "--require-hashes" in index.calls[0]
    assert index.requirements == [f"{name}=={v} --hash={Digest.of(f'{name} {v}'.encode())}" for name, v in PURE.items()]


def test_a_platform_that_has_no_wheels_is_unresolvable_and_an_index_that_is_not_reached_is_not(store):
    nothing = "ERROR: No matching distribution found for cryptography"
    with pytest.raises(ResolveError, match="no wheels for CPython"):
        wheels.resolve(python="3.13.5", platforms=[AMD64], store=store, run=Index(nothing))
    with pytest.raises(FetchError, match="could not fetch"):
        wheels.resolve(python="3.13.5", platforms=[AMD64], store=store, run=Index(f"WARNING: Retrying (...)\n{nothing}"))
    with pytest.raises(FetchError, match="does not have"):
        wheels.resolve(python="3.13.5", platforms=[AMD64], store=store, run=Index("python: No module named pip"))
    with pytest.raises(ResolveError, match="linux/mips64le"):
        wheels.resolve(python="3.13.5", platforms=[Platform("linux", "mips64le")], store=store, run=Index())


def test_airgap_as_a_wheel_is_the_same_bytes_twice_and_holds_code_data_and_version(store):
    first, second = wheels.own(AMD64, store), wheels.own(ARM64, store)
    assert first.upstream == second.upstream
    with zipfile.ZipFile(store.path(first.upstream.digest)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {"airgap/__init__.py", "airgap/errors.py", "airgap/install.sh.in", "airgap/py.typed"} <= set(names)
        assert f"Version: {first.version}" in archive.read(f"airgap-{first.version}.dist-info/METADATA").decode()
        assert not [name for name in names if name.endswith(".pyc")]
        assert {(one.date_time, one.create_system) for one in archive.infolist()} == {((1980, 1, 1, 0, 0, 0), 3)}


def test_pip_itself_brings_wheels_that_are_what_the_lock_says(store, tmp_path):
    try:
        first = wheels.resolve(python="3.13.5", platforms=[ARM64], store=store, run=Runner())
    except FetchError as cause:
        pytest.skip(f"pip reaches no index here: {cause.message[:200]}")
    again = wheels.resolve(python="3.13.5", platforms=[ARM64], store=Store(tmp_path / "other"), run=Runner(), pinned=first)
    assert again == first
    assert {*wheels.OFFLINE, "requests", "airgap"} <= {item.name for item in first}
    assert not [item for item in first if "x86_64" in item.filename]
