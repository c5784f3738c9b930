"""The host below one root folder: its files, its users, its facts. Everything that changes a host goes through here.

Paths are the host's own, absolute and as text; `root` stands before them, so that tests give a folder and the real thing
gives `/`. Symbolic links in parent folders are followed inside `root`; what a link at the end of a path means is up to the call.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from airgap.document import fsync_directory
from airgap.errors import HostUnsuitable
from airgap.machine.daemon import Daemon
from airgap.machine.run import PATH, Result, Run, RunError
from airgap.oci import Platform

READ_LIMIT: Final = 64 << 20
TEMPORARY: Final = ".airgap-tmp"
"""What our unfinished files end with. One name a target, so that whoever puts back after a kill finds them."""

# uname's words (upstream.md 1.1); armv8l is a 32-bit userland on a 64-bit CPU.
MACHINES: Final[Mapping[str, Platform]] = {
    "x86_64": Platform("linux", "amd64"),
    "aarch64": Platform("linux", "arm64"),
    "armv7l": Platform("linux", "arm", "v7"),
    "armv8l": Platform("linux", "arm", "v7"),
    "armv6l": Platform("linux", "arm", "v6"),
    "i686": Platform("linux", "386"),
    "ppc64le": Platform("linux", "ppc64le"),
    "s390x": Platform("linux", "s390x"),
    "riscv64": Platform("linux", "riscv64"),
    "loongarch64": Platform("linux", "loong64"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A row of passwd."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class Group:
    """A row of group."""

    name: str
    gid: int
    members: tuple[str, ...]


class Clock(Protocol):
    """What tells time; tests bring their own."""

    def now(self) -> float:
        """Seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds since boot, as systemd counts them."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class _Clock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Host:
    """One host. `uname` is what os.uname gives; `daemon` its engine, which need not answer."""

    def __init__(
        self,
        *,
        run: Run,
        daemon: Daemon,
        root: Path = Path("/"),
        clock: Clock | None = None,
        uname: Callable[[], os.uname_result] = os.uname,
    ) -> None:
        self.root = root
        self.run = run
        self.daemon = daemon
        self.clock: Clock = clock or _Clock()
        self._uname = uname

    # ---- files -------------------------------------------------------------------------------------------------------

    def real(self, path: str) -> str:
        """The host's path with every symbolic link followed inside `root`, whether or not something is there.

        HostUnsuitable for a relative path, one with `..`, and for links in a circle.
        """
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise HostUnsuitable(f"{path!r} is not a plain absolute path")
        pending = [part for part in path.split("/") if part][::-1]
        done: list[str] = []
        for _ in range(1000):
            if not pending:
                return "/" + "/".join(done)
            part = pending.pop()
            if part in (".", ".."):
                done = done[:-1] if part == ".." else done
                continue
            here = self.root.joinpath(*done, part)
            if here.is_symlink():
                to = str(here.readlink())
                done = [] if to.startswith("/") else done
                pending += [item for item in to.split("/") if item][::-1]
            else:
                done.append(part)
        raise HostUnsuitable(f"{path}: too many symbolic links")

    def path(self, path: str) -> Path:
        """Where that path lies below `root`, links of its parents followed; a link at its end is itself."""
        parent, _, name = path.rstrip("/").rpartition("/")
        return self.root / self.real(parent or "/")[1:] / name if name else self.root

    def exists(self, path: str) -> bool:
        """Whether something is there; a link counts by what it points to."""
        return (self.root / self.real(path)[1:]).exists()

    def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes | None:
        """The file's bytes, its links followed; None if nothing is there. HostUnsuitable if it is no readable file."""
        try:
            with (self.root / self.real(path)[1:]).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise HostUnsuitable(f"{path}: cannot be read: {cause.strerror}") from cause
        if len(data) > limit:
            raise HostUnsuitable(f"{path}: larger than the {limit} bytes such a file may have")
        return data

    def text(self, path: str) -> str:
        """What a small file of the kernel or the system says; empty if it is not there."""
        try:
            return (self.read(path) or b"").decode("utf-8", errors="replace")
        except HostUnsuitable:
            return ""

    def names(self, path: str) -> tuple[str, ...]:
        """What a folder holds, sorted; nothing if it is not there or may not be read."""
        try:
            return tuple(sorted(item.name for item in (self.root / self.real(path)[1:]).iterdir()))
        except OSError:
            return ()

    def folders(self, path: str) -> tuple[str, ...]:
        """Those folders of `path` and above that are not there yet, the highest first."""
        missing: list[str] = []
        here = self.real(path)
        while here != "/" and not (self.root / here[1:]).exists():
            missing.append(here)
            here = here.rpartition("/")[0] or "/"
        return tuple(reversed(missing))

    def make_folder(self, path: str, *, mode: int = 0o755) -> None:
        """Afterwards the folder is there; those that were made have this mode, whatever the umask."""
        for item in self.folders(path):
            place = self.root / item[1:]
            place.mkdir(exist_ok=True)
            place.chmod(mode)
            fsync_directory(place.parent)

    @contextmanager
    def placing(self, path: str, *, mode: int = 0o644) -> Iterator[int]:
        """A descriptor for what `path` will be: flushed and renamed over it at the end, gone if that end is an exception."""
        self.make_folder(path.rpartition("/")[0] or "/")
        place = self.path(path)
        if place.is_dir() and not place.is_symlink():
            raise HostUnsuitable(f"{path} is a folder, where a file has to be", hint=f"move it away: mv {path} {path}.old")
        temporary = self.temporary(path)
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            try:
                yield fd
                os.fchmod(fd, mode)
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(place.parent)

    def temporary(self, path: str) -> Path:
        """Where the bytes for `path` wait until they are whole."""
        place = self.path(path)
        return place.with_name(f".{place.name}{TEMPORARY}")

    def write(self, path: str, data: bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
        """Afterwards `path` is a file with these bytes, mode and owner (uid, gid), and survives a power cut."""
        with self.placing(path, mode=mode) as fd:
            if owner and owner != (os.geteuid(), os.getegid()):
                os.fchown(fd, *owner)
            write_all(fd, data)

    def link(self, path: str, to: str) -> None:
        """Afterwards `path` is a symbolic link to `to`, put in place in one go over a link, a file or nothing."""
        self.make_folder(path.rpartition("/")[0] or "/")
        place = self.path(path)
        if place.is_dir() and not place.is_symlink():
            raise HostUnsuitable(f"{path} is a folder, where a link has to be", hint=f"move it away: mv {path} {path}.old")
        temporary = self.temporary(path)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(to)
        try:
            temporary.replace(place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(place.parent)

    def remove(self, path: str) -> None:
        """Afterwards nothing is at `path`: a link goes alone, a folder goes with what it holds."""
        place = self.path(path)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        """Afterwards the folder is gone if it was empty."""
        try:
            self.path(path).rmdir()
        except OSError:
            return

    # ---- users -------------------------------------------------------------------------------------------------------

    def user(self, name: str) -> User | None:
        """The user of this name: from passwd, or from wherever the host looks users up."""
        row = self._entry("passwd", name)
        if row is None or len(row) < 7 or not (row[2].isdigit() and row[3].isdigit()):
            return None
        return User(name=row[0], uid=int(row[2]), gid=int(row[3]), home=row[5] or "/")

    def group(self, name: str) -> Group | None:
        """The group of this name, likewise."""
        row = self._entry("group", name)
        if row is None or len(row) < 4 or not row[2].isdigit():
            return None
        return Group(row[0], int(row[2]), tuple(item for item in row[3].split(",") if item))

    def _entry(self, base: str, name: str) -> list[str] | None:
        lines = self.text(f"/etc/{base}").splitlines()
        if all(line.split(":")[0] != name for line in lines) and self.which("getent"):
            lines = self.run(["getent", base, name], timeout=30, check=False).text.splitlines()
        return next((line.split(":") for line in lines if line.split(":")[0] == name), None)

    @contextmanager
    def acting_as(self, user: User | None) -> Iterator[None]:
        """Files are touched with this user's rights meanwhile, so that links in a home folder lead nowhere the user cannot go.

        For the whole process; nothing else may touch files meanwhile. No change for root, or if we are not root.
        """
        if user is None or user.uid == 0 or os.geteuid() != 0:
            yield
            return
        gid, groups = os.getegid(), os.getgroups()
        os.setgroups(os.getgrouplist(user.name, user.gid))
        os.setegid(user.gid)
        os.seteuid(user.uid)
        try:
            yield
        except PermissionError as cause:
            raise HostUnsuitable(
                f"{cause.filename}: {user.name} may not do this in {user.home}", hint=f"chown -R {user.name} {user.home}/.docker"
            ) from cause
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)

    # ---- facts -------------------------------------------------------------------------------------------------------

    def platform(self) -> Platform:
        """What this machine runs; HostUnsuitable if no one has a word for it."""
        machine = self._uname().machine
        if machine not in MACHINES:
            raise HostUnsuitable(f"this machine is a {machine!r}; airgap knows {', '.join(MACHINES)}")
        return MACHINES[machine]

    def kernel(self) -> tuple[int, int]:
        """Major and minor version of the running kernel."""
        found = re.match(r"(\d+)\.(\d+)", self._uname().release)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def systemd(self) -> int:
        """systemd's version if it runs this host, else 0."""
        if not self.exists("/run/systemd/system"):
            return 0
        try:
            found = re.match(r"systemd (\d+)", self.run(["systemctl", "--version"], timeout=30).text)
        except RunError:
            return 0
        return int(found[1]) if found else 0

    def cgroups(self) -> int:
        """2 where the unified hierarchy is mounted, 1 for the older ones (hybrid included), 0 for none."""
        kinds = {(row[1], row[2]) for row in self.mounts()}
        if ("/sys/fs/cgroup", "cgroup2") in kinds:
            return 2
        return 1 if any(kind == "cgroup" for _, kind in kinds) else 0

    def filesystems(self) -> frozenset[str]:
        """The kinds of filesystem that the kernel knows now."""
        return frozenset(line.split()[-1] for line in self.text("/proc/filesystems").splitlines() if line.strip())

    def module(self, name: str) -> bool:
        """Whether the kernel could load this module."""
        return bool(self.which("modprobe")) and self.run(["modprobe", "-n", name], timeout=30, check=False).code == 0

    def mounts(self) -> tuple[tuple[str, str, str, frozenset[str]], ...]:
        """Rows of /proc/mounts: source, mount point, kind, options."""
        rows = []
        for line in self.text("/proc/mounts").splitlines():
            fields = [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), part) for part in line.split(" ")]
            if len(fields) >= 4:
                rows.append((fields[0], fields[1], fields[2], frozenset(fields[3].split(","))))
        return tuple(rows)

    def mount_of(self, path: str) -> str:
        """The mount point that a path lies, or will lie, below."""
        here = self.real(path)
        points = [row[1] for row in self.mounts()]
        holding = [point for point in points if point == "/" or here == point or here.startswith(point + "/")]
        return max(holding, key=len, default="/")

    def mount_options(self, path: str) -> frozenset[str]:
        """The options of the filesystem at `path`, such as noexec or ro."""
        point = self.mount_of(path)
        return next((row[3] for row in reversed(self.mounts()) if row[1] == point), frozenset())

    def free(self, path: str) -> int:
        """Bytes free for root on the filesystem where `path` is or will be."""
        here = self.root / self.real(path)[1:]
        while not here.exists():
            here = here.parent
        found = os.statvfs(here)
        return found.f_bavail * found.f_frsize

    def listening(self) -> frozenset[int]:
        """The TCP ports that something on this host listens at."""
        rows = [line.split() for name in ("tcp", "tcp6") for line in self.text(f"/proc/net/{name}").splitlines()[1:]]
        return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == "0A")

    def is_root(self) -> bool:
        """Whether we may change the host at all."""
        return os.geteuid() == 0

    def selinux(self) -> bool:
        """Whether SELinux labels files here (enforcing or permissive)."""
        return self.exists("/sys/fs/selinux/enforce")

    def which(self, name: str) -> str | None:
        """Where a program of this name is, links followed, in the path that we give to programs."""
        for folder in PATH.split(":"):
            here = self.real(f"{folder}/{name}")
            place = self.root / here[1:]
            if place.is_file() and place.stat().st_mode & stat.S_IXUSR:
                return here
        return None

    def ask(self, argv: Sequence[str], *, timeout: float = 60) -> Result:
        """A program's answer, whatever its exit code."""
        return self.run(argv, timeout=timeout, check=False)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Afterwards all of `data` is written; OSError otherwise."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
