"""Small static programs for any machine, compiled with zig's C compiler from PyPI, which has a libc for every target."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tests.lab.cache import cache_root, call, once

ZIG = "ziglang==0.17.1"
TARGETS = {"amd64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl"}


def zig() -> Path:
    """The compiler, installed into the cache once."""
    target = cache_root() / "zig"
    with once(target) as work:
        if work:
            call([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(work), ZIG])
    return target / "ziglang" / "zig"


def program(source: Path, *, arch: str) -> Path:
    """A static executable of this C file; made once for each text of it."""
    key = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    folder = cache_root() / "programs" / f"{source.stem}-{arch}-{key}"
    with once(folder) as work:
        if work:
            env = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(cache_root() / "zig-cache"))
            words = ["cc", "-target", TARGETS[arch], "-static", "-Os", "-s", "-Wall", "-Werror", "-Wno-error=date-time"]
            call([str(zig()), *words, "-o", str(work / source.stem), str(source)], cwd=work, env=env)
    return folder / source.stem
