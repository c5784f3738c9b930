"""What the lab needs from Debian, fetched once into a cache outside the checkout; nothing of the machine's own apt is changed.

A private apt configuration knows the machine's own mirror and the newer suites; packages are only unpacked with `dpkg -x`, never
installed, except for the few tools that `require_tools` names.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SUITES = ("bookworm", "trixie", "sid")
ARCHES = ("amd64", "arm64")

TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "gcc": "gcc",
    "skopeo": "skopeo",
    "xz": "xz-utils",
    "dpkg-source": "dpkg-dev",
    "busybox": "busybox-static",
    "make": "make",
    "patch": "patch",
}


def cache_root() -> Path:
    """The cache folder; made if need be."""
    root = Path(os.environ.get("AIRGAP_LAB_CACHE") or Path.home() / ".cache" / "airgap-lab")
    root.mkdir(parents=True, exist_ok=True)
    return root


def why_not() -> str | None:
    """Why this machine cannot run the lab, or None."""
    if os.geteuid() != 0:
        return "the lab needs root (systemd-nspawn, mounts)"
    if not shutil.which("apt-get"):
        return "the lab is made of Debian packages, and there is no apt-get here"
    if not Path("/proc/sys/fs/binfmt_misc").exists() and not Path("/sys/module/binfmt_misc").exists():
        return "the kernel has no binfmt_misc"
    return None


def call(argv: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run to its end; the output, or an error with its last lines."""
    done = subprocess.run(
        list(argv), cwd=cwd, env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", **(env or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


@contextmanager
def once(path: Path) -> Iterator[Path | None]:
    """Make `path` at most once, whoever asks meanwhile: yields a folder to fill (renamed afterwards), or None if it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        work.chmod(0o755)
        try:
            yield work
            work.rename(path)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


def require_tools() -> None:
    """Install the machine's missing tools."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        call(["apt-get", "update", "-q"])
        call(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])


def mirror() -> str:
    """The address of the Debian archive that the machine itself is told to use."""
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        text = path.read_text() if path.is_file() else ""
        for pattern in (r"^URIs:\s*(\S+/debian)/?\s*$", r"^deb\s+(?:\[[^]]*\]\s+)?(\S+/debian)/?\s+\S+\s+main"):
            if found := re.search(pattern, text, re.MULTILINE):
                return found.group(1)
    raise RuntimeError("no Debian mirror is named in the machine's apt configuration")


def _apt() -> list[str]:
    """apt-get's options for the private configuration, brought up once a day at most."""
    home = cache_root() / "apt"
    with once(home) as work:
        if work:
            for name in ("lists/partial", "archives/partial", "etc/preferences.d"):
                (work / name).mkdir(parents=True)
            archs = " ".join(ARCHES)
            key = "/usr/share/keyrings/debian-archive-keyring.gpg"
            rows = [f"deb [signed-by={key} arch={archs.replace(' ', ',')}] {mirror()} {suite} main" for suite in SUITES]
            rows.append(f"deb-src [signed-by={key}] {mirror()} trixie main")
            (work / "etc/sources.list").write_text("\n".join(rows) + "\n")
            (work / "status").write_text("")
            call(["apt-get", *_options(work), "update", "-q"])
    return _options(home)


def _options(home: Path) -> list[str]:
    settings = {
        "Dir::Etc::sourcelist": home / "etc/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": home / "etc/preferences.d",
        "Dir::State::lists": home / "lists",
        "Dir::State::status": home / "status",
        "Dir::Cache::archives": home / "archives",
        "Dir::Cache::pkgcache": home / "pkgcache.bin",
        "Dir::Cache::srcpkgcache": home / "srcpkgcache.bin",
        "APT::Sandbox::User": "root",
        "APT::Architectures::": "arm64",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def unpacked(package: str, *, suite: str, arch: str = "amd64") -> Path:
    """The files of the newest `package` of `suite`, as `dpkg -x` lays them out."""
    target = cache_root() / "deb" / f"{package}-{suite}-{arch}"
    with once(target) as work:
        if work:
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                call(["apt-get", *_apt(), "download", "-q", f"{package}:{arch}/{suite}"], cwd=Path(folder))
                (deb,) = Path(folder).glob("*.deb")
                call(["dpkg", "-x", str(deb), str(work)])
    return target


def source(package: str, *, suite: str = "trixie") -> Path:
    """A folder with the unpacked upstream source of a Debian source package."""
    target = cache_root() / "source" / f"{package}-{suite}"
    with once(target) as work:
        if work:
            call(["apt-get", *_apt(), "source", "--download-only", "--tar-only", "-q", f"{package}/{suite}"], cwd=work)
            (tarball,) = [p for p in work.glob("*.orig.tar.*") if not p.name.endswith(".asc")]
            call(["tar", "-xf", str(tarball), "--strip-components=1", "--one-top-level=src"], cwd=work)
    return target / "src"
