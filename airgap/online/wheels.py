"""The Python packages that travel with the private runtime, fetched by pip itself from wherever pip is told to look.

pip knows the user's index, mirrors, certificates and proxies; we name none. What it brings is pinned in the lock by digest, and a
locked pack asks pip for exactly those digests again (`--require-hashes`).
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import zipfile
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airgap.errors import FetchError, ResolveError
from airgap.lock import Blob, FileArtifact, Voucher
from airgap.machine.run import Run, RunError
from airgap.oci import Digest, Platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.abc import Traversable  # moved to importlib.resources.abc in 3.11; mypy looks with 3.10's eyes

    from airgap.bundle.store import Store

KIND: Final = "wheel"
OFFLINE: Final = ("click", "cryptography", "docker", "pyyaml", "tqdm", "zstandard")
"""What the installing side imports. requests comes along because the docker SDK needs it; only `airgap lint` reads YAML there."""

# manylinux2014 is glibc 2.17, the floor we promise (lab.md); riscv64 came to manylinux at 2.39.
TAGS: Final = {
    "amd64": ("manylinux2014_x86_64", "manylinux_2_17_x86_64"),
    "arm64": ("manylinux2014_aarch64", "manylinux_2_17_aarch64"),
    "arm": ("manylinux2014_armv7l", "manylinux_2_17_armv7l"),
    "ppc64le": ("manylinux2014_ppc64le", "manylinux_2_17_ppc64le"),
    "s390x": ("manylinux2014_s390x", "manylinux_2_17_s390x"),
    "riscv64": ("manylinux_2_39_riscv64",),
}


def resolve(
    *, python: str, platforms: Sequence[Platform], store: Store, run: Run, pinned: Iterable[FileArtifact] = ()
) -> tuple[FileArtifact, ...]:
    """The wheels for these platforms, in the store, as lock entries; our own among them.

    With `pinned` (a lock's wheels) exactly those are fetched, and those in the store are not fetched again.
    Raises ResolveError where a platform has no wheel of a package, FetchError where pip cannot reach its index.
    """
    locked = [item for item in pinned if item.name != "airgap"]
    found: list[FileArtifact] = []
    for platform in platforms:
        mine = [item for item in locked if item.platform == platform]
        if mine and all(store.has(item.upstream.digest) for item in mine):
            found += mine
            continue
        with tempfile.TemporaryDirectory(prefix="wheels-", dir=store.root) as folder:
            _download(python, platform, Path(folder), run=run, pinned=mine)
            found += [_take(path, platform, store) for path in sorted(Path(folder).glob("*.whl"))]
    return (*found, *(own(platform, store) for platform in platforms))


def _download(python: str, platform: Platform, folder: Path, *, run: Run, pinned: Sequence[FileArtifact]) -> None:
    major, minor = python.split(".")[:2]
    tags = TAGS.get(platform.architecture)
    if tags is None:
        raise ResolveError(f"no Python packages are published for {platform}", hint="leave this platform out of the manifest")
    argv = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
        "--dest", str(folder), "--only-binary", ":all:", "--implementation", "cp", "--python-version", f"{major}.{minor}",
        "--abi", f"cp{major}{minor}", "--abi", "abi3", "--abi", "none",
        *(word for tag in tags for word in ("--platform", tag)),
    ]  # fmt: skip
    if pinned:
        listing = folder / "requirements.txt"
        listing.write_text("".join(f"{item.name}=={item.version} --hash={item.upstream.digest}\n" for item in pinned))
        argv += ["--no-deps", "--require-hashes", "--requirement", str(listing)]
    else:
        argv += list(OFFLINE)
    try:
        run(argv, timeout=900, inherit=True)
    except RunError as cause:
        raise _explained(cause, python, platform) from cause


def _explained(cause: RunError, python: str, platform: Platform) -> FetchError | ResolveError:
    """What pip's complaint means. "No matching distribution" it says without an index, too, but then it has warned before."""
    said = cause.result.err.decode("utf-8", "replace") if cause.result else ""
    if "No module named pip" in said:
        return FetchError(
            f"the Python packages for {platform} are fetched by pip, which {sys.executable} does not have",
            hint=f"{sys.executable} -m ensurepip, or run airgap from an environment that has pip",
        )
    if "o matching distribution found" in said and "Retrying" not in said and "connection" not in said.lower():
        return ResolveError(
            f"the package index has no wheels for CPython {python} on {platform}: {cause.message}",
            hint="choose another runtime: {python: …} in the manifest, or leave this platform out",
        )
    return FetchError(
        f"pip could not fetch the Python packages for {platform}: {cause.message}",
        hint="check pip's own configuration (pip config list), proxy and certificates",
    )


def _take(path: Path, platform: Platform, store: Store) -> FileArtifact:
    name, version = path.name.split("-")[:2]
    with store.intake(f"wheel-{hashlib.sha256(path.name.encode()).hexdigest()}") as intake:
        intake.restart()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                intake.write(piece)
        blob = store.commit(intake, source=path.name)
    voucher = Voucher("published", "the package index that pip is configured for; checked by pip")
    return _artifact(name, version, platform, path.name, blob, voucher, url=f"pip:{name}=={version}")


def _artifact(
    name: str, version: str, platform: Platform, filename: str, blob: Blob, voucher: Voucher, *, url: str
) -> FileArtifact:
    return FileArtifact(
        kind=KIND, name=name, version=version, platform=platform, filename=filename, url=url, form="as-is",
        upstream=blob, content=blob, voucher=voucher,
    )  # fmt: skip


def own(platform: Platform, store: Store) -> FileArtifact:
    """This very airgap as a wheel: its package files, sorted, undated, so that the same code gives the same bytes."""
    version = metadata.version("airgap")
    files = dict(_files(resources.files("airgap"), "airgap"))
    info = f"airgap-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: airgap\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: airgap\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = b""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3  # as on Unix, also when it is packed on Windows
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    data = buffer.getvalue()
    store.add(data)
    blob = Blob(Digest.of(data), len(data))
    return _artifact(
        "airgap", version, platform, f"airgap-{version}-py3-none-any.whl", blob,
        Voucher("published", "the airgap that packed this bundle"), url=f"airgap:{version}",
    )  # fmt: skip


def _files(folder: Traversable, prefix: str) -> Iterable[tuple[str, bytes]]:
    for item in folder.iterdir():
        if item.is_dir():
            if item.name != "__pycache__":
                yield from _files(item, f"{prefix}/{item.name}")
        elif not item.name.endswith(".pyc"):
            yield f"{prefix}/{item.name}", item.read_bytes()
