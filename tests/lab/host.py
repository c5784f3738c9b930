"""A bare host behind the air gap: a booted Debian with systemd as PID 1, no Python, and a network that swallows every packet.

The tree is debootstrapped once into the cache and copied for each host, on a real filesystem: Docker's overlay2 does not
work on an overlay mount. binfmt_misc belongs to the kernel, so a host takes away the entries that came while it lived, at its
reboots and its end.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.lab.cache import cache_root, call, mirror, once, require_tools, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "iptables", "procps", "kmod", "iproute2")
# What Debian's dynamically linked engines need beyond minbase; upstream's are static (lab.md).
LIBRARIES = ("libseccomp2", "libsystemd0", "libdevmapper1.02.1")

MEDIA = "/media"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

BOOT_UNIT = """\
[Unit]
Description=What the lab does before anything else: cgroups that can be written, a network that drops
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /usr/lib/lab/boot
"""

# The gateway's hardware address belongs to nobody, so the other end of the cable drops what is sent there: no refusal, no answer.
BOOT_SCRIPT = """\
for hierarchy in /sys/fs/cgroup/*/; do
    mountpoint -q "$hierarchy" && mount -o remount,bind,rw "$hierarchy"
done
ip link add lan0 address 02:00:00:00:00:02 type veth peer name wall0
ip address add 10.99.0.2/24 dev lan0
ip link set lan0 up
ip link set wall0 up
ip neigh replace 10.99.0.1 lladdr 02:00:00:00:00:01 dev lan0 nud permanent
ip route add default via 10.99.0.1
exit 0
"""

# What lives its own life on any booted host, or is no file of a package, a person or an installer.
NOT_COMPARED = frozenset({
    "/dev", "/proc", "/sys", "/run", "/tmp", "/media", "/var/tmp", "/var/log", "/var/cache", "/var/lib/systemd",
    "/var/lib/docker", "/var/lib/containerd", "/etc/machine-id", "/etc/.updated", "/var/.updated", "/usr/lib/lab",
})  # fmt: skip


class Entry(NamedTuple):
    """What is at a path: `content` is the digest of a file or the target of a link."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: str


@dataclass(frozen=True, slots=True)
class Done:
    """A program that ran to its end inside the host."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    def __str__(self) -> str:
        return f"{' '.join(self.argv)}: exit code {self.code} after {self.seconds:.1f} s\n{self.out[-6000:]}\n{self.err[-6000:]}"


class HostError(RuntimeError):
    """The host did not do what was asked of it."""


@contextmanager
def alone() -> Iterator[None]:
    """Only one process of this machine has hosts meanwhile: binfmt entries are the whole kernel's."""
    with (cache_root() / ".hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bare_tree() -> Path:
    """The debootstrapped tree, with the lab's boot unit in it; never changed once made."""
    target = cache_root() / f"rootfs-{SUITE}-{hashlib.sha256((BOOT_UNIT + BOOT_SCRIPT).encode()).hexdigest()[:8]}"
    require_tools()
    with once(target) as work:
        if work:
            include = ",".join((*PACKAGES, *LIBRARIES))
            call(["debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(work), mirror()])
            _trim(work)
            _furnish(work)
            if found := [str(p) for p in work.glob("usr/bin/python*")]:
                raise HostError(f"the bare host is not bare: {found}")
    return target


def _trim(tree: Path) -> None:
    """Less to copy for each host."""
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir(parents=True)


def _furnish(tree: Path) -> None:
    (tree / "usr/lib/lab").mkdir()
    (tree / "usr/lib/lab/boot").write_text(BOOT_SCRIPT)
    unit = tree / "etc/systemd/system/lab-host.service"
    unit.write_text(BOOT_UNIT)
    enable(tree, "lab-host.service", target="sysinit.target")
    (tree / "etc/hostname").write_text("site1\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost site1\n")
    (tree / "etc/resolv.conf").write_text("nameserver 10.99.0.1\n")
    (tree / "etc/fstab").write_text("")
    # Timers and consoles that would only make noise.
    for name in ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
                 "systemd-networkd-wait-online.service", "console-getty.service"):  # fmt: skip
        (tree / "etc/systemd/system" / name).symlink_to("/dev/null")


def enable(tree: Path, unit: str, *, target: str = "multi-user.target") -> None:
    """As `systemctl enable` would, in a tree that is not booted."""
    wants = tree / f"etc/systemd/system/{target}.wants"
    wants.mkdir(parents=True, exist_ok=True)
    own = tree / f"etc/systemd/system/{unit}"
    (wants / unit).symlink_to(f"/etc/systemd/system/{unit}" if own.exists() else f"/lib/systemd/system/{unit}")


def packaged_engine(tree: Path) -> None:
    """Docker 20.10.24 in the tree as Debian's packages install it: files, units, group, enabled."""
    for name in ("docker.io", "containerd", "runc", "tini"):
        # -a and a trailing /. : into the tree, through its /lib and /sbin links
        for top in sorted(unpacked(name, suite=SUITE).iterdir()):
            (tree / top.name).mkdir(exist_ok=True)
            call(["cp", "-a", f"{top}/.", str((tree / top.name).resolve())])
    with (tree / "etc/group").open("a") as file:
        file.write("docker:x:150:\n")
    with (tree / "etc/gshadow").open("a") as file:
        file.write("docker:!::\n")
    enable(tree, "containerd.service")
    enable(tree, "docker.service")
    enable(tree, "docker.socket", target="sockets.target")


def person(tree: Path, name: str, uid: int) -> None:
    """A user of the site, with a home."""
    account = f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh"
    rows = {"passwd": account, "group": f"{name}:x:{uid}:", "shadow": f"{name}:!:20000::::::"}
    for base, row in rows.items():
        with (tree / "etc" / base).open("a") as file:
            file.write(f"{row}\n")
    home = tree / "home" / name
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)


class SiteHost:
    """One host, booted on entering and gone without a trace on leaving. `media` is the carried disc: read-only at /media."""

    def __init__(self, *, media: Path | None = None, prepare: Callable[[Path], None] | None = None) -> None:
        self._media = media
        self._prepare = prepare
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._foreign: frozenset[str] = frozenset()
        self.folder = Path()

    @property
    def tree(self) -> Path:
        """Its files, seen from outside."""
        return self.folder / "tree"

    def __enter__(self) -> SiteHost:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        parent = cache_root() / "hosts"
        parent.mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            call(["cp", "-a", "--reflink=auto", str(bare_tree()), str(self.tree)])
            if self._prepare:
                self._prepare(self.tree)
            with self._binfmt() as registry:
                self._foreign = frozenset(item.name for item in registry.iterdir())
            self.power_on()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(
        self, argv: Sequence[str], *, user: str = "root", timeout: float = 120, check: bool = True, stdin: bytes = b"",
        env: Mapping[str, str] | None = None, cwd: str | None = None,
    ) -> Done:  # fmt: skip
        """Run a program inside to its end, in a login's environment. HostError if it fails (with `check`) or takes too long."""
        home = "/root" if user == "root" else f"/home/{user}"
        words = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", f"--wdns={cwd or home}"]
        if user != "root":
            rows = [line.split(":") for line in (self.tree / "etc/passwd").read_text().splitlines()]
            row = next(row for row in rows if row[0] == user)
            words += ["setpriv", f"--reuid={row[2]}", f"--regid={row[3]}", "--init-groups"]
        words += ["env", "-i", f"PATH={PATH}", f"HOME={home}", f"USER={user}", "LANG=C.UTF-8"]
        words += [f"{key}={value}" for key, value in (env or {}).items()]
        started = time.monotonic()
        pipe = subprocess.PIPE
        process = subprocess.Popen([*words, *argv], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except BaseException as cause:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if not isinstance(cause, subprocess.TimeoutExpired):
                raise
        said = (out.decode(errors="replace"), err.decode(errors="replace"))
        done = Done(tuple(argv), process.returncode, *said, time.monotonic() - started)
        if process.returncode == -signal.SIGKILL:
            raise HostError(f"took longer than {timeout:.0f} s or was killed: {done}")
        if check and done.code != 0:
            raise HostError(str(done))
        return done

    def sh(self, script: str, *, timeout: float = 120, check: bool = True) -> Done:
        """A line of shell inside, as root."""
        return self.run(["sh", "-ec", script], timeout=timeout, check=check)

    def journal(self, unit: str) -> str:
        """What a unit said."""
        return self.run(["journalctl", "--no-pager", "-o", "cat", "-n", "200", "-u", unit], check=False).out

    def reboot(self) -> None:
        """Shut down cleanly and boot again."""
        self.power_off()
        self.power_on()

    def power_on(self) -> None:
        """Boot; HostError if systemd has not started everything within a minute and a half."""
        words = [
            "systemd-nspawn", "-q", "-D", str(self.tree), "--private-network", "--boot", "--register=no",
            f"--machine=airgap-{self.folder.name.replace('_', 'x')}", "--hostname=site1", "--capability=all",
            "--system-call-filter=@keyring bpf", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe",
        ]  # fmt: skip
        if not Path("/run/systemd/system").exists():
            words.append("--keep-unit")  # nobody here who could give it a unit of its own
        if self._media:
            words.append(f"--bind-ro={self._media}:{MEDIA}")
        with (self.folder / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words], stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                env={"PATH": PATH, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 90
        state = ""
        while state not in ("running", "degraded"):
            if time.monotonic() > deadline or self._nspawn.poll() is not None:
                console_text = (self.folder / "console").read_text(errors="replace")[-3000:]
                raise HostError(f"the host did not boot ({state or 'no PID 1'}):\n{console_text}")
            time.sleep(0.1)
            self._leader = self._leader or self._find_leader()
            if self._leader:
                with suppress(HostError):
                    state = self.run(["systemctl", "is-system-running"], check=False, timeout=20).out.strip()

    def power_off(self) -> None:
        """A clean shutdown, or the plug pulled if that takes too long; afterwards the kernel has forgotten its emulators."""
        if self._nspawn is None:
            return
        with suppress(HostError):
            self.run(["systemctl", "--no-block", "poweroff"], check=False, timeout=30)
        try:
            self._nspawn.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._kill()
        self._nspawn = None
        self._leader = 0
        self._forget_emulation()

    def emulation(self) -> frozenset[str]:
        """The binfmt entries that came while this host lived."""
        with self._binfmt() as registry:
            return frozenset(item.name for item in registry.iterdir()) - self._foreign

    def snapshot(self) -> dict[str, Entry]:
        """Every file that a package, a person or an installer may have put there."""
        found: dict[str, Entry] = {}
        pending = [self.tree]
        while pending:
            folder = pending.pop()
            for item in os.scandir(folder):
                path = f"/{os.path.relpath(item.path, self.tree)}"
                if path in NOT_COMPARED:
                    continue
                info = item.stat(follow_symlinks=False)
                content = str(Path(item.path).readlink()) if item.is_symlink() else ""
                if stat.S_ISREG(info.st_mode):
                    content = hashlib.sha256(Path(item.path).read_bytes()).hexdigest()
                found[path] = Entry(stat.filemode(info.st_mode)[0], stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, content)
                if item.is_dir(follow_symlinks=False):
                    pending.append(Path(item.path))
        return found

    def close(self) -> None:
        """Afterwards nothing of this host is left: processes, entries, control groups, files."""
        self._kill()
        self._forget_emulation()
        _forget_groups()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- how ---------------------------------------------------------------------------------------------------------

    def _find_leader(self) -> int:
        """The host's PID 1: the child of nspawn that is number 1 in its own namespace."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            except OSError:
                continue
            if self._nspawn and fields["PPid"] == str(self._nspawn.pid) and fields["NSpid"].split()[-1] == "1":
                return int(fields["Pid"])
        return 0

    def _kill(self) -> None:
        if self._nspawn is None:
            return
        for pid in (self._leader or self._find_leader(), self._nspawn.pid):
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._nspawn.wait(timeout=60)
        self._nspawn = None
        self._leader = 0

    @contextmanager
    def _binfmt(self) -> Iterator[Path]:
        """The kernel's registry, mounted for a moment."""
        with tempfile.TemporaryDirectory() as place:
            call(["mount", "-t", "binfmt_misc", "binfmt_misc", place])
            try:
                yield Path(place)
            finally:
                call(["umount", place])

    def _forget_emulation(self) -> None:
        with self._binfmt() as registry:
            for name in {item.name for item in registry.iterdir()} - self._foreign - {"register", "status"}:
                (registry / name).write_text("-1")


def _forget_groups() -> None:
    """Where no systemd gives hosts a place of their own, nspawn and Docker make theirs at the machine's root; empty ones go."""
    if Path("/run/systemd/system").exists():
        return
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = [top for name in ("payload", "supervisor", "docker") for top in Path("/sys/fs/cgroup").glob(f"*/{name}")]
        if not found:
            return
        for top in found:
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # processes that were killed take a moment to be gone
                    Path(folder).rmdir()
        time.sleep(0.05)
