"""A stand-in for python-build-standalone, built here: the same layout, the same names, the same glibc 2.17 floor.

GitHub cannot be reached from the lab, so Debian's CPython source is compiled with zig's C compiler, which links against any glibc
one names (../shared/lab.md has the recipe and its measurements). ssl, sqlite and ctypes are left out: the offline side needs none.

    python -m tests.lab.runtime x86_64 aarch64
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sys
import tarfile
from pathlib import Path

from tests.lab.cache import cache_root, call, once, require_tools, source

DATE = "20251124"
FLOOR = "2.17"
ZIG = "ziglang==0.17.1"
TRIPLES = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


def version() -> str:
    """CPython's version as Debian's source says it."""
    for line in (source("python3.13") / "Include/patchlevel.h").read_text().splitlines():
        if line.startswith("#define PY_VERSION "):
            return line.split('"')[1]
    raise RuntimeError("no PY_VERSION in patchlevel.h")


def folder() -> Path:
    """Where the tarballs and SHA256SUMS are."""
    return cache_root() / "runtime"


def filename(arch: str) -> str:
    """As python-build-standalone would call it."""
    return f"cpython-{version()}+{DATE}-{TRIPLES[arch]}-install_only_stripped.tar.gz"


def ensure(arch: str) -> Path:
    """The tarball of this architecture, built at the first call (minutes), with SHA256SUMS beside it brought up to date."""
    built = cache_root() / "runtime-build" / f"{arch}-{version()}"
    with once(built) as work:
        if work:
            _build(arch, work)
    target = folder() / filename(arch)
    folder().mkdir(parents=True, exist_ok=True)
    if not target.exists():
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        _tarball(built / "root" / "python", temporary)
        temporary.rename(target)
    rows = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder().glob("cpython-*.tar.gz"))]
    sums = folder() / f".SHA256SUMS.{os.getpid()}"
    sums.write_text("".join(rows))
    sums.rename(folder() / "SHA256SUMS")
    return target


def _zig() -> Path:
    target = cache_root() / "zig"
    with once(target) as work:
        if work:
            call([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(work), ZIG])
    return target / "ziglang" / "zig"


def _compiler(arch: str, work: Path) -> dict[str, str]:
    """Small scripts, because configure wants one word for CC."""
    tools: dict[str, str] = {}
    bin_ = work / "bin"
    bin_.mkdir()
    for name, words in {"cc": f"cc -target {arch}-linux-gnu.{FLOOR}", "ar": "ar", "ranlib": "ranlib"}.items():
        script = bin_ / name
        script.write_text(f'#!/bin/sh\nexec "{_zig()}" {words} "$@"\n')
        script.chmod(0o755)
        tools[name] = str(script)
    return tools


def _build(arch: str, work: Path) -> None:
    require_tools()
    tools = _compiler(arch, work)
    env = {"ZIG_GLOBAL_CACHE_DIR": str(cache_root() / "zig-cache"), "ZIG_LOCAL_CACHE_DIR": str(cache_root() / "zig-cache")}
    zlib = _zlib(work, tools, env)
    native = arch == os.uname().machine
    python = work / "python"
    shutil.copytree(source("python3.13"), python, symlinks=True)
    options = [
        f"--host={arch}-linux-gnu", f"--build={os.uname().machine}-linux-gnu", "--prefix=/python", "--without-ensurepip",
        "--disable-test-modules", "--without-doc-strings", "--without-readline",
    ]  # fmt: skip
    if not native:
        # What configure finds out by running a program, it must be told when that program is for another machine.
        told = ["ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", "ac_cv_buggy_getaddrinfo=no"]
        options += [f"--with-build-python={_build_python()}", *told]
    settings = {
        **env, "CC": tools["cc"], "AR": tools["ar"], "RANLIB": tools["ranlib"], "PKG_CONFIG": "false", "LDFLAGS": "-Wl,-s",
        "CFLAGS": "-O1 -Wno-error=date-time -Wno-everything", "ZLIB_CFLAGS": f"-I{zlib}", "ZLIB_LIBS": f"{zlib}/libz.a",
    }  # fmt: skip
    call(["./configure", "-q", *options], cwd=python, env=settings)
    jobs = f"-j{os.cpu_count() or 1}"
    call(["make", "-s", jobs], cwd=python, env=settings)
    root = work / "root"
    call(["make", "-s", "install", f"DESTDIR={root}"], cwd=python, env=settings)
    shutil.rmtree(python)
    _strip(root / "python")


def _zlib(work: Path, tools: dict[str, str], env: dict[str, str]) -> Path:
    target = work / "zlib"
    shutil.copytree(source("zlib"), target)
    names = [p.name for p in sorted(target.glob("*.c"))]
    for name in names:  # zig cc writes one object a call
        call([tools["cc"], "-c", "-O2", "-fPIC", "-DHAVE_UNISTD_H", "-Wno-everything", name], cwd=target, env=env)
    call([tools["ar"], "rcs", "libz.a", *(f"{name[:-2]}.o" for name in names)], cwd=target, env=env)
    return target


def _build_python() -> Path:
    """A CPython of the same version for this machine: cross-building needs one to run."""
    ensure(os.uname().machine)
    return cache_root() / "runtime-build" / f"{os.uname().machine}-{version()}" / "root/python/bin/python3"


def _strip(python: Path) -> None:
    """Leave out what `install_only_stripped` leaves out, and what nobody on a site compiles with."""
    library = python / "lib" / f"python{version().rsplit('.', 1)[0]}"
    for name in ("test", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data"):
        shutil.rmtree(library / name, ignore_errors=True)
    for path in [*library.glob("config-*"), python / "include", python / "share", python / "lib/pkgconfig"]:
        shutil.rmtree(path, ignore_errors=True)
    for path in [*python.rglob("__pycache__")]:
        shutil.rmtree(path)
    for path in python.rglob("*.a"):
        path.unlink()
    for path in [python / "bin" / f"python{version().rsplit('.', 1)[0]}", *library.rglob("*.so")]:
        if _own(path):
            call(["strip", "--strip-unneeded", str(path)])


def _own(path: Path) -> bool:
    """Whether this machine's strip understands the file."""
    return path.read_bytes()[18:20] == Path("/bin/sh").resolve().read_bytes()[18:20]


def _tarball(python: Path, target: Path) -> None:
    """A deterministic tar.gz with `python/` on top."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="", compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in [python, *sorted(python.rglob("*"))]:
            info = tar.gettarinfo(path, arcname=f"python/{path.relative_to(python)}".removesuffix("/."))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = 0
            if info.isreg():
                info.type = tarfile.REGTYPE
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)


if __name__ == "__main__":
    require_tools()
    for wanted in sys.argv[1:] or list(TRIPLES):
        print(ensure(wanted))
