"""A host in a folder: real files, and models of systemd, the engine and buildx that are as unforgiving as the real ones.

Whatever they do not know is an error of the test: nothing answers yes by default. An engine runs only if its unit's program is
there and is a program; it answers only at a socket that really leads to it; images, containers and volumes live in its data-root.
"""

import csv
import hashlib
import io
import json
import os
import re
import shlex
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from airgap import elf
from airgap.errors import AirgapError
from airgap.machine.daemon import ContainerFacts, Daemon, DaemonError, EngineInfo, ImageFacts
from airgap.machine.run import Result, RunError
from airgap.oci import Platform, Reference
from airgap.offline.host import Host

AMD64 = Platform("linux", "amd64")
UNITS = ("etc/systemd/system", "usr/lib/systemd/system")
WANTS = "etc/systemd/system/multi-user.target.wants"


class Clock:
    """Real time, so that files' times mean something; nobody waits."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        return


class Power(BaseException):
    """The plug is pulled: nobody catches this."""


class Recorder:
    """A progress that remembers what was said, and can end the world at a word."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    @contextmanager
    def gauge(self, what: str, total: int | None, unit: str = "B") -> Iterator["Recorder"]:
        yield self

    def advance(self, size: int) -> None:
        return

    def say(self, event: str, text: str, **facts: object) -> None:
        self.said.append((event, text))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.said]


def program(text: str, platform: Platform = AMD64) -> bytes:
    """An executable of this platform that can be told from others."""
    return elf.probe(platform) + f"\n{text}\n".encode()


@dataclass
class Container:
    id: str
    image: str
    running: bool = True
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Data:
    """A data-root: what survives the engine."""

    tags: dict[str, str] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    containers: dict[str, Container] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)


class Engine(Daemon):
    """The engine behind the socket, if one listens there."""

    def __init__(self, *, store: str = "classic") -> None:
        super().__init__("unix:///fake.sock")
        self.store = store
        self.roots: dict[str, Data] = {}
        self.running_version = ""
        self.reachable = False
        self.data_root = "/var/lib/docker"
        self.live_restore = False
        self.count = 0
        self.calls: list[str] = []
        self.refuse_load = ""

    @property
    def data(self) -> Data:
        if not (self.running_version and self.reachable):
            raise DaemonError("no Docker engine answers at unix:///fake.sock: No such file or directory")
        return self.roots.setdefault(self.data_root, Data())

    def fresh(self) -> str:
        self.count += 1
        return hashlib.sha256(str(self.count).encode()).hexdigest()

    def have(self, tag: str, content: str = "") -> str:
        """An image of the user's, from before."""
        identity = f"sha256:{hashlib.sha256((content or tag).encode()).hexdigest()}"
        self.data.ids.add(identity)
        self.data.tags[str(Reference.parse(tag))] = identity
        return identity

    def version(self) -> str:
        assert self.data is not None
        return self.running_version

    def info(self) -> EngineInfo:
        data = self.data
        return EngineInfo(
            version=self.running_version, api="1.51", least_api="1.24", data_root=self.data_root, store=self.store,
            running=tuple(sorted(name for name, row in data.containers.items() if row.running)), live_restore=self.live_restore,
            mirrors=(), insecure=(),
        )  # fmt: skip

    def _find(self, name: str) -> str | None:
        data = self.data
        return name if name in data.ids else data.tags.get(name if name.startswith("sha256:") else str(Reference.parse(name)))

    def image(self, reference: str) -> ImageFacts | None:
        identity = self._find(reference)
        if identity is None:
            return None
        tags = tuple(tag for tag, value in self.data.tags.items() if value == identity)
        return ImageFacts(id=identity, platform=AMD64, tags=tags, size=1)

    def load(self, stream: Iterator[bytes], *, name: str = "image") -> tuple[str, ...]:
        data = self.data
        self.calls.append(f"load {name}")
        raw = b"".join(stream)
        if self.refuse_load:
            raise DaemonError(f"the engine could not load {name}: {self.refuse_load}", status=200)
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            files = {item.name: tar.extractfile(item).read() for item in tar if item.isfile()}
        for path, content in files.items():
            if path.startswith("blobs/sha256/"):
                assert hashlib.sha256(content).hexdigest() == path.rpartition("/")[2], path
        (row,) = json.loads(files["manifest.json"])
        config = files[row["Config"]]
        assert all(layer in files for layer in row["Layers"])
        top = json.loads(files["index.json"])["manifests"][0]["digest"]
        identity = f"sha256:{hashlib.sha256(config).hexdigest()}" if self.store == "classic" else top
        data.ids.add(identity)
        for tag in row["RepoTags"]:
            data.tags[str(Reference.parse(tag))] = identity
        return tuple(f"Loaded image: {tag}" for tag in row["RepoTags"])

    def tag(self, source: str, target: str) -> None:
        identity = self._find(source)
        if identity is None:
            raise DaemonError(f"the engine refused to tag {source}: No such image", status=404)
        reference = Reference.parse(target)
        assert reference.tag
        assert not reference.digest
        self.calls.append(f"tag {target}")
        self.data.tags[str(reference)] = identity

    def remove(self, reference: str) -> bool:
        data, identity = self.data, self._find(reference)
        if identity is None:
            return False
        tags = [tag for tag, value in data.tags.items() if value == identity]
        used = any(row.image == identity for row in data.containers.values())
        by_id = reference in data.ids
        if (by_id and len(tags) > 1) or (used and (by_id or len(tags) == 1)):
            raise DaemonError(f"the engine refused to remove the image {reference}: conflict", status=409)
        for tag in tags if by_id else [str(Reference.parse(reference))]:
            del data.tags[tag]
        if identity not in data.tags.values():
            data.ids.discard(identity)
        return True

    def containers(self) -> tuple[str, ...]:
        return tuple(sorted(self.data.containers))

    def container(self, name: str) -> ContainerFacts | None:
        row = self.data.containers.get(name)
        if row is None:
            return None
        status = "running" if row.running else "exited"
        return ContainerFacts(id=row.id, name=name, image=row.image, status=status, environment=row.environment)

    def logs(self, name: str, *, lines: int = 20) -> str:
        return "buildkitd said so" if name in self.data.containers else ""

    def execute(self, name: str, argv: tuple[str, ...]) -> tuple[int, bytes]:
        raise AssertionError(argv)

    def remove_container(self, name: str) -> bool:
        return self.data.containers.pop(name, None) is not None

    def start_container(self, name: str) -> None:
        self.data.containers[name].running = True

    def volume(self, name: str) -> bool:
        return name in self.data.volumes

    def remove_volume(self, name: str) -> bool:
        there = self.volume(name)
        if any(name == f"{container}_state" for container in self.data.containers):
            raise DaemonError(f"volume is in use: {name}", status=409)
        self.data.volumes.discard(name)
        return there


@dataclass
class State:
    active: str = "inactive"
    pid: int = 0
    started: float = 0
    loaded: str | None = None


class Machine:
    """A host: its folder, its systemd (which is also the `Run`), its engine."""

    def __init__(self, root: Path, *, kernel: str = "5.10.0", engine: Engine | None = None, systemd: int = 252) -> None:
        self.root = root
        self.engine = engine or Engine()
        self.systemd = systemd
        self.kernel = kernel
        self.units: dict[str, State] = {}
        self.ran: list[tuple[str, ...]] = []
        self.broken: set[str] = set()
        self.pids = 100
        self.orphaned = False
        self._furnish()

    def host(self) -> Host:
        uname = os.uname_result(("Linux", "site", self.kernel, "", "x86_64"))
        return Rooted(run=self, daemon=self.engine, root=self.root, clock=Clock(), uname=lambda: uname)

    def _furnish(self) -> None:
        me = f"{os.geteuid()}:{os.getegid()}"
        self.write("/etc/passwd", f"root:x:{me}::/root:/bin/sh\ndev:x:{me}::/home/dev:/bin/sh\n")
        self.write("/etc/group", f"root:x:{os.getegid()}:\nusers:x:100:\n")
        self.write("/proc/mounts", "/dev/sda / ext4 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
        self.write("/proc/filesystems", "nodev\toverlay\n\text4\n")
        for folder in ("run/systemd/system", "etc/systemd/system", "root", "home/dev", "opt", "usr/local/bin", "var/lib"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name in ("systemctl", "groupadd", "groupdel", "useradd", "userdel", "gpasswd", "iptables", "nologin"):
            self.write(f"/usr/sbin/{name}", "", mode=0o755)

    def write(self, path: str, data: str | bytes, *, mode: int = 0o644) -> None:
        place = self.root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
        place.chmod(mode)

    def package(self, version: str = "20.10.24", *, socket: bool = True, containerd: bool = False) -> None:
        """Docker as a distribution's package puts it, enabled and started."""
        self.write("/usr/bin/dockerd", program(f"version={version}"), mode=0o755)
        self.write("/usr/bin/docker", program(f"cli={version}"), mode=0o755)
        flags = "-H fd://" if socket else ""
        need = "Requires=docker.socket\n" if socket else ""
        self.write(
            "/usr/lib/systemd/system/docker.service", f"[Unit]\n{need}[Service]\nExecStart=/usr/bin/dockerd {flags}\n[Install]\n"
        )
        if socket:
            self.write("/usr/lib/systemd/system/docker.socket", "[Socket]\nListenStream=/run/docker.sock\n")
            self(["systemctl", "start", "docker.socket"])
        if containerd:
            self.write("/run/containerd/containerd.sock", "")
        self(["systemctl", "enable", "docker.service"])
        self(["systemctl", "start", "docker.service"])

    def boot(self) -> None:
        """A power cut and a new start: what is enabled runs, nothing else."""
        self.engine.running_version, self.engine.reachable, self.orphaned = "", False, False
        for name in list(self.units):
            self._gone(self.units[name])
        self.units.clear()
        if (self.root / "usr/lib/systemd/system/docker.socket").exists() and self._text("docker.socket"):
            self._start("docker.socket")
        for item in sorted((self.root / WANTS).iterdir()) if (self.root / WANTS).is_dir() else []:
            self._start(item.name)

    # ---- Run ----

    def __call__(
        self, argv: Sequence[str], *, input: bytes | None = None, timeout: float = 60, user: str | None = None,
        env: Mapping[str, str] | None = None, inherit: bool = False, check: bool = True,
    ) -> Result:  # fmt: skip
        words = tuple(argv)
        self.ran.append(words)
        code, out = self._run(words, user or "root")
        result = Result(argv=words, code=code, out=out.encode() if code == 0 else b"", err=out.encode() if code else b"")
        if check and code:
            raise RunError(f"{shlex.join(words)} ended with exit code {code}\n{out}", result=result)
        return result

    def _run(self, words: tuple[str, ...], user: str) -> tuple[int, str]:
        name = words[0].rpartition("/")[2]
        if name == "systemctl":
            return self._systemctl(*words[1:])
        if name in ("groupadd", "groupdel", "gpasswd", "useradd", "userdel"):
            return self._accounts(name, *words[1:])
        if name == "journalctl":
            return 0, "it said why"
        if name == "docker-buildx":
            return Buildx(self, user).run(words)
        if words[0].startswith("/var/lib/airgap/probe/"):
            return self._probe(words[0])
        raise AssertionError(words)

    def _probe(self, path: str) -> tuple[int, str]:
        machine = elf.machine_of((self.root / path[1:]).read_bytes())
        native = machine.architecture in ("amd64", "386")
        good = native or self.units.get("airgap-emulation.service", State()).active == "active"
        return (0, "") if good else (126, "Exec format error")

    def _accounts(self, name: str, *words: str) -> tuple[int, str]:
        group, passwd = self.root / "etc/group", self.root / "etc/passwd"
        target = words[-1]
        lines = group.read_text().splitlines()
        if name == "groupadd":
            lines.append(f"{target}:x:{900 + len(lines)}:")
        elif name == "groupdel":
            lines = [line for line in lines if not line.startswith(f"{target}:")]
        elif name == "gpasswd":
            flag, member = words[0], words[1]
            rows = []
            for line in lines:
                head, _, members = line.rpartition(":")
                names = [item for item in members.split(",") if item and item != member]
                names += [member] if flag == "-a" else []
                rows.append(f"{head}:{','.join(names)}" if line.startswith(f"{target}:") else line)
            lines = rows
        else:
            users = passwd.read_text().splitlines()
            users = [*users, f"{target}:x:{os.geteuid()}:{os.getegid()}::/:/bin/false"] if name == "useradd" else [
                line for line in users if not line.startswith(f"{target}:")
            ]  # fmt: skip
            passwd.write_text("\n".join(users) + "\n")
            return 0, ""
        group.write_text("\n".join(lines) + "\n")
        return 0, ""

    # ---- systemd ----

    def _text(self, name: str) -> str | None:
        """The unit as its files say: None if there is none, empty if it is masked."""
        for folder in UNITS:
            place = self.root / folder / name
            if place.is_symlink() and str(place.readlink()) == "/dev/null":
                return ""
            if place.is_file():
                return place.read_text()
        return None

    def _state(self, name: str) -> State:
        state = self.units.setdefault(name, State())
        if state.loaded is None:
            state.loaded = self._text(name)
        return state

    def _systemctl(self, *words: str) -> tuple[int, str]:
        if words == ("--version",):
            return 0, f"systemd {self.systemd} ({self.systemd}.1)\n+PAM"
        verb, name = words[0], words[1] if len(words) > 1 else ""
        if verb == "daemon-reload":
            for known, state in self.units.items():
                state.loaded = self._text(known)
            return 0, ""
        if verb == "show":
            return 0, self._show(name)
        if verb in ("enable", "disable"):
            link = self.root / WANTS / name
            if verb == "enable":
                if not self._text(name):
                    return 1, f"Unit {name} does not exist, or is masked."
                link.parent.mkdir(exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(f"/etc/systemd/system/{name}")
            else:
                link.unlink(missing_ok=True)
                if link.parent.is_dir() and not any(link.parent.iterdir()):
                    link.parent.rmdir()
            return 0, ""
        if verb in ("stop", "restart"):
            self._stop(name)
        if verb in ("start", "restart"):
            return self._start(name)
        if verb == "reset-failed":
            state = self.units.get(name)
            if state and state.active == "failed":
                state.active = "inactive"
            return 0, ""
        if verb in ("stop", "status"):
            return 0, ""
        raise AssertionError(words)

    def _show(self, name: str) -> str:
        state, text = self._state(name), self._text(name)
        load = "not-found" if state.loaded is None else "loaded" if state.loaded else "masked"
        enabled = (
            "" if text is None else "masked" if not text else "enabled" if (self.root / WANTS / name).is_symlink() else "disabled"
        )
        rows = {
            "LoadState": load, "ActiveState": state.active, "SubState": "running", "UnitFileState": enabled, "MainPID": state.pid,
            "ExecMainStartTimestampMonotonic": int(state.started * 1e6) if state.pid or not name.endswith(".socket") else "",
            "ActiveEnterTimestampMonotonic": int(state.started * 1e6),
            "NeedDaemonReload": "yes" if state.loaded != text else "no",
        }  # fmt: skip
        return "\n".join(f"{key}={value}" for key, value in sorted(rows.items()))

    def _gone(self, state: State) -> None:
        if state.pid:
            (self.root / f"proc/{state.pid}/exe").unlink(missing_ok=True)
        state.active, state.pid = "inactive", 0

    def _stop(self, name: str) -> None:
        state = self._state(name)
        if state.active != "active":
            return
        self._gone(state)
        if name == "docker.service":
            self._engine_ends()
        if name == "docker.socket":
            self.orphaned = False
            service = self._state("docker.service")
            if service.active == "active" and "Requires=docker.socket" in (service.loaded or ""):
                self._stop("docker.service")

    def _engine_ends(self) -> None:
        if self.engine.reachable and not self.engine.live_restore:
            for row in self.engine.data.containers.values():
                row.running = row.running and "AIRGAP_FINGERPRINT" in row.environment
        self.engine.running_version, self.engine.reachable = "", False

    def _start(self, name: str) -> tuple[int, str]:
        state = self._state(name)
        if state.active == "active":
            return 0, ""
        text = state.loaded
        if not text:
            return 5, f"Unit {name} not found, or is masked."
        if name in self.broken:
            state.active = "failed"
            return 1, f"Job for {name} failed."
        if name == "docker.socket":
            if self._state("docker.service").active == "active":
                return 1, "Socket service docker.service already active, refusing."
            self.orphaned = False
        for wanted in re.findall(r"^Requires=(\S+)", text, re.MULTILINE):
            code, said = self._start(wanted)
            if code:
                return code, said
        found = re.search(r"^ExecStart=(.+)$", text, re.MULTILINE)
        if found:
            code, said = self._exec(name, state, found[1].split(), oneshot="Type=oneshot" in text)
            if code:
                state.active = "failed"
                return code, said
        time.sleep(0.006)  # files' times are a few milliseconds coarse
        state.active, state.started = "active", time.time()
        time.sleep(0.006)
        return 0, ""

    def _exec(self, name: str, state: State, words: list[str], *, oneshot: bool) -> tuple[int, str]:
        host = self.host()
        if words[0] == "/bin/sh":
            return (0, "") if host.exists(words[1]) else (127, f"cannot open {words[1]}")
        place = self.root / host.real(words[0])[1:]
        if not place.is_file() or not place.stat().st_mode & 0o111 or elf.machine_of(place.read_bytes()) is None:
            return 203, f"{words[0]}: Exec format error"
        if name == "docker.service":
            code, said = self._engine_begins(place.read_bytes(), words[1:], host)
            if code:
                return code, said
        if not oneshot:
            self.pids += 1
            state.pid = self.pids
            exe = self.root / f"proc/{state.pid}/exe"
            exe.parent.mkdir(parents=True)
            # A hard link is what the kernel's own link is: it leads to the file even when its name leads elsewhere.
            exe.hardlink_to(place)
            (exe.parent / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
        return 0, ""

    def _engine_begins(self, data: bytes, flags: list[str], host: Host) -> tuple[int, str]:
        config = json.loads(host.read("/etc/docker/daemon.json") or b"{}")
        if "hosts" in config and "-H" in flags:
            return 1, "the following directives are specified both as a flag and in the configuration file: hosts"
        if "fd://" in flags:
            if self._state("docker.socket").active != "active":
                return 1, "failed to load listeners: no sockets found via socket activation"
            self.engine.reachable = not self.orphaned
        else:
            self.orphaned = self._state("docker.socket").active == "active"
            self.engine.reachable = True
        found = re.search(rb"version=([0-9.]+)", data)
        assert found
        self.engine.running_version = found[1].decode()
        self.engine.data_root = config.get("data-root", "/var/lib/docker")
        return 0, ""


class Rooted(Host):
    """Tests may run as anybody; what they do to their own folder, root does to a host."""

    def is_root(self) -> bool:
        return True


class Buildx:
    """The plugin, as one user runs it."""

    def __init__(self, machine: Machine, user: str) -> None:
        self.machine, self.engine = machine, machine.engine
        self.state = machine.root / ("root" if user == "root" else f"home/{user}") / ".docker/buildx"

    def run(self, words: tuple[str, ...]) -> tuple[int, str]:
        place = self.machine.root / self.machine.host().real(words[0])[1:]
        if not place.is_file() or elf.machine_of(place.read_bytes()) is None:
            return 127, f"{words[0]}: not found"
        try:
            return {
                "version": self.version,
                "create": self.create,
                "inspect": self.inspect,
                "use": self.use,
                "build": self.build,
            }[words[1]](*words[2:])
        except AirgapError as cause:
            return 1, f"ERROR: {cause.message}"

    def version(self) -> tuple[int, str]:
        return 0, "github.com/docker/buildx v0.29.1"

    def create(self, *words: str) -> tuple[int, str]:
        values: dict[str, list[str]] = {}
        for flag, value in zip(words[::2], words[1::2], strict=True):
            values.setdefault(flag, []).append(value)
        (name,) = values.pop("--name")
        assert values.pop("--driver") == ["docker-container"]
        options = dict(row.split("=", 1) for item in values.pop("--driver-opt") for row in next(csv.reader([item])))
        (config,) = values.pop("--buildkitd-config")
        assert set(values) <= {"--buildkitd-flags", "--platform"}, values
        if not self.machine.host().exists(config):
            return 1, f"ERROR: open {config}: no such file"
        place = self.state / "instances" / name
        if place.exists():
            return 1, f'ERROR: existing instance for "{name}"'
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(
            json.dumps({"Name": name, "Driver": "docker-container", "Nodes": [{"Name": f"{name}0", "DriverOpts": options}]})
        )
        return 0, name

    def inspect(self, *words: str) -> tuple[int, str]:
        flag, name = words
        assert flag == "--bootstrap"
        place = self.state / "instances" / name
        if not place.exists():
            return 1, f'ERROR: no builder "{name}" found'
        (node,) = json.loads(place.read_text())["Nodes"]
        data, container = self.engine.data, f"buildx_buildkit_{node['Name']}"
        if container in data.containers:
            data.containers[container].running = True
            return 0, "running"
        image = self.engine.image(node["DriverOpts"]["image"])
        if image is None:
            return 1, f"ERROR: {node['DriverOpts']['image']}: not found"
        variables = {key[4:]: value for key, value in node["DriverOpts"].items() if key.startswith("env.")}
        data.containers[container] = Container(self.engine.fresh(), image.id, environment=variables)
        data.volumes.add(f"{container}_state")
        return 0, "running"

    def use(self, name: str) -> tuple[int, str]:
        (self.state / "current").write_text(json.dumps({"Key": "unix:///var/run/docker.sock", "Name": name, "Global": False}))
        return 0, ""

    def build(self, *words: str) -> tuple[int, str]:
        values = dict(pairwise(words))
        container = self.engine.data.containers.get(f"buildx_buildkit_{values['--builder']}0")
        if container is None or not container.running or "buildkit" in self.machine.broken:
            return 1, "ERROR: failed to solve: no builder"
        context = self.machine.root / words[-1][1:]
        assert (context / "Dockerfile").read_text().startswith("FROM scratch")
        platforms = [Platform.parse(item) for item in values["--platform"].split(",")]
        rows = [{"platform": {"os": item.os, "architecture": item.architecture, "variant": item.variant}} for item in platforms]
        data = json.dumps({"manifests": rows}).encode()
        with tarfile.open(self.machine.root / values["--output"].partition("dest=")[2][1:], "w") as tar:
            entry = tarfile.TarInfo("index.json")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        return 0, ""


def tree(root: Path, *, without: Sequence[str] = ("proc", "var/lib/airgap")) -> dict[str, object]:
    """Every path below root: mode, owner, and content or target; a way to say that a host is as it was."""
    found: dict[str, object] = {}
    for place in sorted(root.rglob("*")):
        name = str(place.relative_to(root))
        if any(name == item or name.startswith(item + "/") for item in without):
            continue
        facts = place.lstat()
        content = str(place.readlink()) if place.is_symlink() else place.read_bytes() if place.is_file() else "folder"
        found[name] = (oct(facts.st_mode), facts.st_uid, content)
    return found


def world(machine: Machine) -> dict[str, object]:
    """The whole host: files, units, images, containers, volumes."""
    engine = machine.engine
    live = {name: state.active for name, state in machine.units.items() if state.active != "inactive"}
    roots = {
        path: (dict(sorted(data.tags.items())), sorted(data.ids),
               sorted(name for name, row in data.containers.items() if row.running),
               sorted(data.containers), sorted(data.volumes))
        for path, data in engine.roots.items()
        if data != Data()
    }  # fmt: skip
    return {"files": tree(machine.root), "units": live, "engine": (engine.running_version, engine.reachable), "roots": roots}
