"""install.sh run for real: under three shells, on hosts that lack things, from bundles that were damaged on the way.

The bundles are small but true: a real CPython (the lab's if it is built, else the one that runs the tests), cut down to what is
needed here, and a wheel called airgap that says how it was started.
"""

import dataclasses
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from airgap.bundle.store import Store
from airgap.errors import LockError
from airgap.kinds.runtime import command_text
from airgap.lock import Blob, FileArtifact, Lock, Voucher
from airgap.machine.run import Runner
from airgap.oci import Digest, Platform
from airgap.online import wheels
from airgap.online.installer import install_sh

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
MACHINE = os.uname().machine
HERE = {"x86_64": AMD64, "aarch64": ARM64}.get(MACHINE, AMD64)
ELSEWHERE = ARM64 if HERE == AMD64 else AMD64
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "ash"]}
LAB_CACHE = Path(os.environ.get("AIRGAP_LAB_CACHE") or Path.home() / ".cache/airgap-lab")
LAB = sorted((LAB_CACHE / "runtime").glob(f"cpython-*-{MACHINE}-*.tar.gz"))

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mounts and other users")
lab_only = pytest.mark.skipif(not LAB, reason="the lab's runtime is not built: python -m tests.lab.runtime")

# What install.sh's own Python and its wheels use.
NEEDED = (
    "import os, sys, glob, pkgutil, importlib.metadata, importlib.metadata._adapters, email.message, email.parser, csv, json, "
    "shlex, shutil, zipfile, zlib, hashlib, runpy, inspect"
)
SAYS = """
import os, sys
print(*sys.argv[1:], sep="\\n")
print(os.environ.get("AIRGAP_RUNTIME"), sys.flags.isolated, sys.flags.dont_write_bytecode)
"""


def out(argv) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _tar(members, target):
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> bytes:
    """A tar.gz with `python/` on top that holds just enough of a real CPython."""
    folder = tmp_path_factory.mktemp("runtime")
    base, python = Path(sys.base_prefix), Path(sys.executable).resolve()
    if LAB:
        subprocess.run(["tar", "-xzf", LAB[-1], "-C", folder], check=True)
        base, python = folder / "python", next((folder / "python/bin").glob("python3.[0-9]*[0-9]"))
    # Twice, so that the modules are there compiled, too: the tests start it some 300 times.
    places = "getattr(m, '__file__', 0), getattr(m, '__cached__', 0)"
    listing = f"{NEEDED}\nfor m in [*sys.modules.values()]: print({places}, sep='\\n')"
    said = out([python, "-I", "-S", "-c", listing]) + out([python, "-I", "-c", listing])
    files = {Path(line) for line in said.splitlines()}
    files |= {path for name in ("encodings/*.py", "site.py", "_sitebuiltins.py") for path in base.glob(f"lib/python3.*/{name}")}
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as tar:
        tar.add(python, arcname=f"python/bin/{python.name}")
        link = tarfile.TarInfo("python/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, python.name
        tar.addfile(link)
        for path in sorted(files):
            if path.is_relative_to(base) and path.is_file():
                tar.add(path, arcname=f"python/{path.relative_to(base)}")
    return target.getvalue()


def wheel(**members) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return target.getvalue()


OWN = wheel(**{"airgap/__init__.py": "", "airgap/__main__.py": SAYS, "airgap-7.dist-info/METADATA": "Name: airgap\nVersion: 7\n"})
OTHER = wheel(**{"other-1.data/purelib/other/__init__.py": "", "other-1.data/scripts/other": "#!python\n", "third.py": ""})


def item(kind, name, data, filename, platform=HERE) -> FileArtifact:
    blob = Blob(Digest.of(data), len(data))
    return FileArtifact(kind=kind, name=name, version="1", platform=platform, filename=filename, url="https://host/x",
                        form="as-is", upstream=blob, content=blob, voucher=Voucher("published", "upstream"))  # fmt: skip


class Site:
    """A folder with a bundle and its install.sh beside it, and the place that the runtime goes to."""

    def __init__(self, folder: Path, runtime: bytes, platform: Platform = HERE) -> None:
        self.folder, self.place = folder, folder / "place"
        self.contents = {"cpython.tar.gz": runtime, "airgap-7-py3-none-any.whl": OWN, "other-1-py3-none-any.whl": OTHER}
        self.lock = Lock(
            name="farm", serial=7, manifest={}, images=(),
            files=(
                item("runtime", "cpython", runtime, "cpython.tar.gz", platform),
                item("wheel", "airgap", OWN, "airgap-7-py3-none-any.whl", platform),
                item("wheel", "other", OTHER, "other-1-py3-none-any.whl", platform),
            ),
        )  # fmt: skip
        self.script = folder / "install.sh"
        self.bundle = folder / "airgap-farm-7.tar"
        self.script.write_bytes(install_sh(self.lock))
        self.write()

    def members(self) -> dict[str, bytes]:
        blobs = {f"blobs/sha256/{Digest.of(data).hex}": data for data in self.contents.values()}
        return {"install.sh": self.script.read_bytes(), **dict(sorted(blobs.items())), "blobs/sha256/" + "f" * 64: bytes(70_000)}

    def write(self) -> None:
        _tar(self.members(), self.bundle)

    def run(self, *words, shell="dash", cwd=None, env=None, script=None, before=(), **options):
        if not shutil.which(SHELLS[shell][0]):
            pytest.skip(f"there is no {shell} on this machine")
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "AIRGAP_RUNTIME_DIR": str(self.place), **(env or {})}
        argv = [*before, *SHELLS[shell], str(script or self.script), *map(str, words)]
        return subprocess.run(argv, cwd=cwd or self.folder, env={k: v for k, v in environ.items() if v is not None},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60, check=False,
                              **options)  # fmt: skip

    def left(self) -> list[str]:
        return sorted(path.name for path in self.place.iterdir()) if self.place.exists() else []


@pytest.fixture
def site(tmp_path, runtime) -> Site:
    return Site(tmp_path, runtime)


# ---- what it does -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_it_hands_over_to_airgap_install_with_every_word_intact(site, shell):
    done = site.run(site.bundle, "--plan", "two words", "$HOME", "", "-x*", shell=shell)
    (key,) = site.left()
    assert (done.returncode, done.stdout.splitlines()) == (
        0, ["install", str(site.bundle), "--plan", "two words", "$HOME", "", "-x*", f"{site.place / key} 1 1"],
    ), done.stderr  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_paths_with_blanks_quotes_colons_and_leading_dashes_are_paths(tmp_path, runtime, shell):
    folder = tmp_path / "it's a \"$HOME\" `x` *"
    folder.mkdir()
    site = Site(folder, runtime)
    odd = folder / "-host:b & c.tar"
    site.bundle.rename(odd)
    done = site.run(odd.name, "--plan", shell=shell)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["install", str(odd)]
    assert done.stdout.splitlines()[-1] == f"{site.place / site.left()[0]} 1 1"


def test_without_a_bundle_named_the_one_beside_it_is_taken_from_wherever_it_is_called(site, tmp_path):
    done = site.run("--plan", cwd="/", script=site.script)
    assert done.stdout.splitlines()[:2] == ["install", str(site.bundle)], done.stderr
    done = site.run("--plan", cwd=tmp_path, script="install.sh")
    assert done.stdout.splitlines()[:2] == ["install", str(site.bundle)]


def test_two_bundles_beside_it_and_none_are_usage_errors(site):
    second = site.bundle.with_name("airgap-farm-8.tar")
    second.write_bytes(b"")
    done = site.run("--plan")
    assert (done.returncode, site.left()) == (2, [])
    assert "airgap-farm-7.tar" in done.stderr
    assert "airgap-farm-8.tar" in done.stderr
    second.unlink()
    site.bundle.unlink()
    assert site.run("--plan").returncode == 2


def test_help_needs_no_bundle_and_says_what_the_bundle_serves(site):
    site.bundle.unlink()
    done = site.run("--help")
    assert done.returncode == 0
    assert f"serves: {HERE}" in done.stdout


def test_unpack_prints_the_command_and_installs_nothing(site):
    done = site.run("--unpack")
    assert done.returncode == 0, done.stderr
    command = Path(done.stdout.strip())
    assert command.parent.parent == site.place
    said = out([command, "verify", "x"])
    assert said.splitlines()[:2] == ["verify", "x"]


def test_the_package_metadata_of_our_own_wheel_is_there_and_wheels_with_data_folders_are_laid_out(site):
    command = Path(site.run("--unpack").stdout.strip())
    code = "import importlib.metadata as m, other, third; print(m.version('airgap'))"
    said = out([command.parent / "python/bin/python3", "-I", "-B", "-c", code])
    assert said == "7\n"
    assert not list(command.parent.rglob("*.data"))
    assert sorted(path.name for path in command.parent.iterdir()) == ["airgap", "python"]


def test_a_second_run_takes_what_is_there_and_needs_the_bundle_no_more_for_it(site):
    first = site.run("--unpack")
    (key,) = site.left()
    before = (site.place / key / "airgap").stat().st_mtime_ns
    site.bundle.write_bytes(b"no tar at all")
    second = site.run("--unpack")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert (site.place / key / "airgap").stat().st_mtime_ns == before


def test_a_damaged_runtime_is_unpacked_anew(site):
    command = Path(site.run("--unpack").stdout.strip())
    (command.parent / "python/bin/python3").unlink()
    done = site.run("--unpack")
    assert done.returncode == 0, done.stderr
    assert site.left() == [command.parent.name]
    assert subprocess.run([command], check=False).returncode == 0


def test_the_callers_libraries_python_and_tar_settings_do_not_reach_it(site, tmp_path):
    (tmp_path / "zipfile.py").write_text("raise SystemExit('not mine')")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "LD_LIBRARY_PATH": str(tmp_path),
               "TAR_OPTIONS": "--nonsense", "GZIP": "-9", "CDPATH": "/", "IFS": "/", "missing": "all", "quiet": "x"}  # fmt: skip
    done = site.run(site.bundle, "--plan", env=hostile)
    assert done.returncode == 0, done.stderr


def test_quiet_says_nothing_on_the_way(site):
    assert site.run(site.bundle, "--plan", "-q").stderr == ""


# ---- what it refuses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["cpython.tar.gz", "airgap-7-py3-none-any.whl"])
def test_a_flipped_byte_is_named_with_both_digests_and_nothing_is_started(site, shell, name):
    data = site.contents[name]
    whole, position = site.bundle.read_bytes(), len(data) // 2
    at = whole.index(data) + position
    site.bundle.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    damaged = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
    done = site.run(site.bundle, "--plan", shell=shell)
    assert (done.returncode, site.left(), done.stdout) == (11, [], "")
    assert name in done.stderr
    assert f"expected {Digest.of(data)}" in done.stderr
    assert f"found    {Digest.of(damaged)}" in done.stderr


def test_a_bundle_cut_short_anywhere_before_its_pieces_end_is_no_bundle(site):
    whole = site.bundle.read_bytes()
    end = max(whole.index(data) + len(data) for data in site.contents.values())
    for size in (0, 100, 512, 700, end // 2, end - 1):
        site.bundle.write_bytes(whole[:size])
        done = site.run(site.bundle, "--plan")
        assert (done.returncode, site.left()) == (10, []), f"{size}: {done.stderr}"


def test_what_is_no_tar_and_what_is_not_there_is_no_bundle(site, tmp_path):
    noise = tmp_path / "noise.tar"
    noise.write_bytes(os.urandom(70_000))
    for wrong in (noise, tmp_path / "absent.tar", tmp_path):
        done = site.run(wrong, "--plan")
        assert (done.returncode, site.left()) == (10, []), done.stderr
        assert str(wrong) in done.stderr


def test_another_bundles_install_sh_says_so(site):
    site.contents["airgap-7-py3-none-any.whl"] = wheel(**{"airgap/__main__.py": ""})
    site.write()
    done = site.run(site.bundle, "--plan")
    assert (done.returncode, site.left()) == (10, [])
    assert "install.sh of this very bundle" in done.stderr


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_wrong_architecture_is_refused_with_what_the_bundle_has(site, tmp_path, shell):
    tools = tmp_path / "tools"
    tools.mkdir()
    for machine, platform in {"s390x": "linux/s390x", "mips": "mips"}.items():
        (tools / "uname").write_text(f"#!/bin/sh\necho {machine}\n")
        (tools / "uname").chmod(0o755)
        done = site.run(site.bundle, "--plan", shell=shell, env={"PATH": f"{tools}:{os.environ['PATH']}"})
        assert (done.returncode, site.left()) == (20, [])
        assert f"this host is {platform} " in done.stderr
        assert f"serves: {HERE}" in done.stderr


def test_a_runtime_of_another_machine_than_uname_says_is_explained_and_nothing_is_left(tmp_path):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        info = tarfile.TarInfo("python/bin/python3")
        info.mode, data = 0o755, b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff" + bytes(200)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    site = Site(tmp_path, target.getvalue())
    for shell in SHELLS:
        done = site.run(site.bundle, "--plan", shell=shell)
        assert (done.returncode, site.left()) == (20, []), done.stderr
        assert "does not start on this host" in done.stderr


def test_an_airgap_that_does_not_start_is_not_kept(tmp_path, runtime):
    site = Site(tmp_path, runtime)
    broken = wheel(**{"airgap/__main__.py": "raise SystemExit('no such luck')"})
    files = (site.lock.files[0], item("wheel", "airgap", broken, "airgap.whl"))
    site.script.write_bytes(install_sh(dataclasses.replace(site.lock, files=files)))
    site.contents["airgap-7-py3-none-any.whl"] = broken
    site.write()
    done = site.run(site.bundle, "--plan")
    assert (done.returncode, site.left()) == (20, [])
    assert "no such luck" in done.stderr


@pytest.mark.parametrize("lacking", ["tar", "gzip", "sha256sum"])
def test_a_missing_tool_is_named_before_anything_is_written(site, tmp_path, lacking):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in {"uname", "id", "tar", "gzip", "sha256sum", "mkdir", "rm"} - {lacking}:
        (tools / name).symlink_to(shutil.which(name))
    (tools / "dash").symlink_to(shutil.which("dash"))
    done = site.run(site.bundle, "--plan", env={"PATH": str(tools)})
    assert (done.returncode, site.left()) == (20, [])
    assert f"lacks: {lacking}\n" in done.stderr


@root_only
def test_only_root_may_install_and_anybody_may_look(runtime):
    with tempfile.TemporaryDirectory(prefix="airgap-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        site, home = Site(folder, runtime), folder / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        env = {"AIRGAP_RUNTIME_DIR": None, "HOME": str(home)}
        done = site.run(site.bundle, env=env, user=65534, group=65534, extra_groups=[])
        assert (done.returncode, list(home.iterdir())) == (20, [])
        assert "needs root" in done.stderr
        done = site.run(site.bundle, "--plan", env=env, user=65534, group=65534, extra_groups=[])
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith(f"{home}/.cache/airgap/runtime/")


# ---- places -----------------------------------------------------------------------------------------------------------------


def mounted(*commands: str) -> list[str]:
    """Words that run what follows in a mount namespace of its own, after these shell commands."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and mount namespaces")
    return ["unshare", "-m", "--propagation", "private", "sh", "-ec", "; ".join([*commands, 'exec "$@"']), "sh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_noexec_place_is_explained(site, shell):
    site.place.mkdir()
    done = site.run(site.bundle, "--plan", shell=shell, before=mounted(f"mount -t tmpfs -o noexec none '{site.place}'"))
    assert done.returncode == 20, done.stderr
    assert f"{site.place}: programs may not be started from here: the file system is mounted noexec" in done.stderr
    assert "AIRGAP_RUNTIME_DIR=" in done.stderr


@pytest.mark.parametrize("how", ["ro", "noexec", "size=1m"])
def test_root_falls_back_to_the_next_place(site, how):
    before = mounted(f"mount -t tmpfs -o {how} none /opt", "mount -t tmpfs none /usr/local/lib")
    done = site.run(site.bundle, "--plan", env={"AIRGAP_RUNTIME_DIR": None}, before=before)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("/usr/local/lib/airgap/runtime/")


@pytest.mark.parametrize("size", ["500k", "3m", "9m"])
def test_a_full_disk_leaves_nothing_behind(site, size):
    site.place.mkdir()
    before = mounted(f"mount -t tmpfs -o size={size} none '{site.place}'")
    keep = [*before[:-2], before[-2].replace('exec "$@"', f'"$@" || code=$?; ls -A \'{site.place}\'; exit $code'), "sh"]
    done = site.run(site.bundle, "--plan", before=keep)
    assert (done.returncode, done.stdout) == (20, ""), done.stderr
    assert f"{site.place}: cannot be " in done.stderr
    # GNU tar's word for a disk that fills within its very last write is another.
    assert "No space left" in done.stderr or "Wrote only" in done.stderr
    assert "150 MB of room" in done.stderr


@root_only
@lab_only
@pytest.mark.parametrize("libc", [True, False])
def test_a_host_with_nothing_but_busybox_serves_if_it_has_a_glibc(site, tmp_path, libc):
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("there is no busybox")
    host = tmp_path / "host"
    for name in ("bin", "dev", "media/my stick"):
        (host / name).mkdir(parents=True)
    shutil.copy(busybox, host / "bin/busybox")
    for name in ("sh", "uname", "id", "tar", "gzip", "sha256sum", "mkdir", "rm"):
        (host / "bin" / name).symlink_to("busybox")
    (host / "dev/null").touch()
    (host / "dev/null").chmod(0o666)
    python = Path(site.run("--unpack").stdout.strip()).parent / "python/bin/python3"
    said = out(["ldd", python])
    for path in re.findall(r"(/\S+) \(0x", said) if libc else ():
        (host / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, host / path[1:])
    shutil.copy(site.bundle, host / "media/my stick")
    shutil.copy(site.script, host / "media/my stick")
    argv = [shutil.which("chroot"), host, "/bin/sh", "/media/my stick/install.sh"]
    done = subprocess.run(argv, env={"PATH": "/bin"}, capture_output=True, text=True, check=False)
    if libc:
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[:2] == ["install", "/media/my stick/airgap-farm-7.tar"]
        assert done.stdout.splitlines()[-1].startswith("/opt/airgap/runtime/")
    else:
        assert done.returncode == 20
        assert "the loader of glibc is not there" in done.stderr
        assert not list((host / "opt/airgap/runtime").iterdir())


# ---- interrupted ------------------------------------------------------------------------------------------------------------


def started(site: Site, shell: str, tmp_path: Path) -> subprocess.Popen[str]:
    """A run that hangs in the middle of unpacking, in a process group of its own."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "gzip").write_text("#!/bin/sh\nexec sleep 30\n")
    (tools / "gzip").chmod(0o755)
    process = subprocess.Popen(
        [*SHELLS[shell], site.script, site.bundle, "--plan"], start_new_session=True, stderr=subprocess.PIPE, text=True,
        env={"PATH": f"{tools}:{os.environ['PATH']}", "AIRGAP_RUNTIME_DIR": str(site.place)},
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not list(site.place.glob(".new-*/python")) and not _gzip_runs(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def _gzip_runs(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        if "(sleep)" in text and int(text.rpartition(")")[2].split()[2]) == group:
            return True
    return False


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(site, tmp_path, shell, number):
    with started(site, shell, tmp_path) as process:
        assert site.left() != []
        os.killpg(process.pid, number)
        assert process.wait(20) == 130
    assert site.left() == []


def test_what_a_killed_run_left_is_swept_by_the_next_and_what_a_living_one_has_is_not(site, tmp_path):
    with started(site, "dash", tmp_path) as process:
        left = site.left()
        other = site.run("--unpack")
        assert other.returncode == 0, other.stderr
        assert set(left) <= set(site.left())
        os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(site.place / Path(other.stdout.strip()).parent.name)
    done = site.run("--unpack")
    assert done.returncode == 0, done.stderr
    assert site.left() == [Path(done.stdout.strip()).parent.name]


# ---- how it is made ---------------------------------------------------------------------------------------------------------


def test_the_same_lock_gives_the_same_script_and_other_pieces_another_folder(site):
    shuffled = dataclasses.replace(site.lock, files=site.lock.files[::-1])
    assert install_sh(shuffled) == install_sh(site.lock) == site.script.read_bytes()
    other = dataclasses.replace(site.lock, files=(site.lock.files[0], item("wheel", "airgap", b"newer", "airgap.whl")))
    keys = [re.search(rb"KEYS='\n(.*)\n", install_sh(lock))[1] for lock in (site.lock, other)]
    assert keys[0] != keys[1]


def test_each_platform_has_its_own_pieces(site):
    far = (item("runtime", "cpython", b"far", "far.tar.gz", ELSEWHERE), item("wheel", "airgap", OWN, "airgap.whl", ELSEWHERE))
    text = install_sh(dataclasses.replace(site.lock, files=(*site.lock.files, *far))).decode()
    assert "PLATFORMS='linux/amd64, linux/arm64'" in text
    site.script.write_text(text)
    assert site.run("--unpack").returncode == 0


def test_names_from_a_strangers_lock_cannot_become_commands(site):
    evil = "a'; touch /tmp/x; $(id) `id` @NAME@\\"
    files = tuple(dataclasses.replace(one, filename=evil) for one in site.lock.files)
    site.script.write_bytes(install_sh(dataclasses.replace(site.lock, name=evil + "\nid", files=files)))
    assert b"touch /" not in site.script.read_bytes()
    assert site.run("--unpack").returncode == 0


def test_a_lock_without_a_runtime_or_without_airgap_makes_no_script(site):
    for files in ((), site.lock.files[:1], site.lock.files[1:], (*site.lock.files, site.lock.files[0])):
        with pytest.raises(LockError):
            install_sh(dataclasses.replace(site.lock, files=files))


def test_shellcheck_has_nothing_to_say(site):
    if not shutil.which("shellcheck"):
        pytest.skip("there is no shellcheck on this machine")
    done = subprocess.run(["shellcheck", "-s", "sh", site.script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_script_cut_short_does_nothing(site):
    whole = site.script.read_bytes()
    body = whole.index(b"PLATFORMS=")
    for part in range(1, 12):
        site.script.write_bytes(whole[: body + (len(whole) - body - 12) * part // 11])
        done = site.run(site.bundle, "--plan")
        assert (done.stdout, site.left()) == ("", [])


def test_the_command_finds_its_runtime_whatever_the_folder_is_called(tmp_path):
    folder = tmp_path / "it's \"$HOME\""
    folder.mkdir()
    (folder / "airgap").write_text("#!/bin/sh\necho \"$@\"\n")
    (folder / "airgap").chmod(0o755)
    command = tmp_path / "airgap"
    command.write_text(command_text(str(folder)))
    assert out(["sh", command, "a", "b c"]) == "a b c\n"


@lab_only
def test_the_real_pieces_end_in_the_real_airgap(tmp_path):
    store = Store(tmp_path / "store")
    found = wheels.resolve(python="3.13.5", platforms=[HERE], store=store, run=Runner())
    runtime = LAB[-1].read_bytes()
    store.add(runtime)
    lock = Lock(name="real", serial=1, manifest={}, images=(), files=(item("runtime", "cpython", runtime, LAB[-1].name), *found))
    (tmp_path / "install.sh").write_bytes(install_sh(lock))
    blobs = sorted(one.upstream.digest for one in lock.files)
    _tar({f"blobs/sha256/{digest.hex}": store.path(digest).read_bytes() for digest in blobs}, tmp_path / "airgap-real-1.tar")
    env = {"PATH": os.environ["PATH"], "AIRGAP_RUNTIME_DIR": str(tmp_path / "place")}
    argv = ["sh", tmp_path / "install.sh", "--unpack"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = Path(done.stdout.strip())
    assert out([command, "--version"]) == f"airgap {metadata.version('airgap')}\n"
    code = "import click, docker, tqdm, zstandard, cryptography.hazmat.primitives.asymmetric.ed25519"
    subprocess.run([command.parent / "python/bin/python3", "-I", "-B", "-c", code], check=True)
