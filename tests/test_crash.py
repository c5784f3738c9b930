"""Killed at any point of any step, the next command puts the host back as it was: files, units, tags, builders, engine."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable, PutBackFailed, StepFailed
from airgap.machine.daemon import DaemonError
from airgap.offline import changes, recover
from airgap.offline.install import Wishes, install
from airgap.offline.journal import JOURNAL, Journal
from airgap.offline.rollback import uninstall
from airgap.progress import SILENT
from tests.bundles import KEPT, SITE, Packer
from tests.fakes import Engine, Machine, Power, Recorder, Rooted, world


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    return Packer(tmp_path_factory.mktemp("pack"))


EVERY = bool(os.environ.get("AIRGAP_CRASH_EVERY"))
"""Every point instead of a sample: some minutes on a disk, half a minute in memory."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a thing: thousands of flushes are what these tests are made of."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="airgap-crash-", dir=memory) as folder:
        yield Path(folder)


def sample(total: int, count: int = 10) -> list[int]:
    """Points spread over the whole, the first and the last among them."""
    if EVERY or total <= count:
        return list(range(1, total + 1))
    return sorted({1 + round(number * (total - 1) / (count - 1)) for number in range(count)})


class Doomed(Rooted):
    """A host whose power goes, or whose disk fails, at its n-th change: just before it, or just after."""

    def __init__(self, host, cause: BaseException, at: int, *, after: bool) -> None:
        super().__init__(run=self._run, daemon=host.daemon, root=host.root, clock=host.clock, uname=host._uname)
        self.machine, self.cause, self.at, self.after = host.run, cause, at, after
        self.count = 0
        self.log: list[str] = []

    def _tick(self, what: str, act: Callable[[], object]) -> object:
        self.count += 1
        self.log.append(what)
        hit = self.count == self.at
        if hit and not self.after:
            raise self.cause
        result = act()
        if hit:
            raise self.cause
        return result

    def write(self, path: str, data: bytes, **words) -> None:
        self._tick(f"write {path}", lambda: super(Doomed, self).write(path, data, **words))

    def link(self, path: str, to: str) -> None:
        self._tick(f"link {path}", lambda: super(Doomed, self).link(path, to))

    def remove(self, path: str) -> None:
        self._tick(f"remove {path}", lambda: super(Doomed, self).remove(path))

    def _run(self, argv, **words):
        quiet = argv[0] == "systemctl" and argv[1] in ("show", "--version")
        return self.machine(argv, **words) if quiet else self._tick(" ".join(argv), lambda: self.machine(argv, **words))


def fresh(folder: Path) -> Machine:
    return Machine(folder)


def packaged(folder: Path) -> Machine:
    """A host with an engine of packages, a user's image and a daemon.json of their own."""
    machine = Machine(folder)
    machine.write("/etc/docker/daemon.json", '{"log-driver": "local"}')
    machine.package()
    machine.engine.have("user/app:1")
    machine.engine.have("alpine:3.22", content="the user's own")
    machine.write("/root/.docker/config.json", '{"auths": {}}', mode=0o600)
    return machine


def wishes(**words: object) -> Wishes:
    return Wishes(**{"confirm": lambda question: True, **words})


def points(make: Callable[[Path], Machine], bundle: Path, folder: Path, **words: object) -> int:
    """How many changes an undisturbed install makes."""
    machine = make(folder)
    host = Doomed(machine.host(), Power(), 0, after=False)
    install(bundle, wishes(**words), host, progress=SILENT)
    return host.count


CASES = [
    pytest.param(fresh, SITE, {}, id="bare host"),
    pytest.param(packaged, SITE, {"engine": "replace"}, id="engine replaced"),
    pytest.param(packaged, KEPT, {}, id="engine kept"),
]


@pytest.mark.parametrize(("make", "yaml", "words"), CASES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_change_is_put_back_by_the_next_command(packer: Packer, place: Path, make, yaml, words, after: bool):
    bundle = packer.bundle(yaml)
    total = points(make, bundle, place / "count", **words)
    assert total > 20
    survivors = 0
    for number in sample(total):
        folder = place / f"host{number}"
        machine = make(folder)
        before = world(machine)
        host = Doomed(machine.host(), Power(), number, after=after)
        with pytest.raises(Power):
            install(bundle, wishes(**words), host, progress=SILENT)
        # Another process, later, with no bundle at hand.
        later = machine.host()
        committed = not Journal.pending(later) and any(item.state == "committed" for item in Journal.every(later))
        if committed:
            survivors += 1
            continue
        recover.recover(later, progress=SILENT)
        assert world(machine) == before, f"{host.log[number - 1]} ({number} of {total})"
        assert not Journal.pending(later)
        shutil.rmtree(folder)
    assert survivors <= 1, "only the very last write, the commit, may be over"


@pytest.mark.parametrize(("make", "yaml", "words"), CASES)
def test_an_error_at_any_change_is_put_back_at_once(packer: Packer, place: Path, make, yaml, words):
    bundle = packer.bundle(yaml)
    total = points(make, bundle, place / "count", **words)
    for number in sample(total):
        folder = place / f"host{number}"
        machine = make(folder)
        before = world(machine)
        host = Doomed(machine.host(), OSError(28, "No space left on device", "/var"), number, after=False)
        try:
            install(bundle, wishes(**words), host, progress=SILENT)
        except (StepFailed, HostUnsuitable, OSError):
            assert world(machine) == before, f"{host.log[number - 1]} ({number} of {total})"
            assert not Journal.pending(machine.host())
        shutil.rmtree(folder)


def test_a_power_cut_while_the_engine_takes_an_image_is_put_back_after_the_reboot(packer: Packer, place: Path):
    class Cut(Engine):
        def load(self, stream, *, name="image"):
            super().load(stream, name=name)
            raise Power

    machine = Machine(place / "host", engine=Cut())
    before = world(machine)
    with pytest.raises(Power):
        install(packer.bundle(), wishes(), machine.host(), progress=SILENT)
    machine.boot()
    recover.recover(machine.host(), progress=SILENT)
    assert world(machine) == before


def test_an_engine_of_ours_that_died_does_not_keep_the_host_from_being_put_back(packer: Packer, place: Path):
    class Cut(Engine):
        def load(self, stream, *, name="image"):
            super().load(stream, name=name)
            raise Power

    machine = Machine(place / "host", engine=Cut())
    before = world(machine)["files"]
    with pytest.raises(Power):
        install(packer.bundle(), wishes(), machine.host(), progress=SILENT)
    machine(["systemctl", "stop", "docker.service"])
    recover.recover(machine.host(), progress=SILENT)
    assert world(machine)["files"] == before
    assert world(machine)["engine"] == ("", False)


def test_undoing_twice_is_as_once(packer: Packer, place: Path):
    machine = packaged(place / "host")
    before = world(machine)
    with pytest.raises(Power):
        install(packer.bundle(), wishes(engine="replace"), _late(machine), progress=SILENT)
    journal = Journal.pending(machine.host())
    ctx = journal.context()
    for _ in range(2):
        for entry in reversed(journal.entries()):
            changes.change_of(entry.step).undo(entry.step, entry.record, ctx)
        for entry in journal.entries():
            changes.change_of(entry.step).settle(entry.step, entry.record, ctx)
        assert world(machine) == before


def _late(machine: Machine) -> Doomed:
    class Late(Doomed):
        def write(self, path: str, data: bytes, **words) -> None:
            if path.endswith("receipt.json"):
                raise Power
            super().write(path, data, **words)

    return Late(machine.host(), Power(), 0, after=False)


def test_the_next_install_puts_a_dead_one_back_first_says_so_and_then_goes_on(packer: Packer, place: Path):
    machine = Machine(place / "host")
    with pytest.raises(Power):
        install(packer.bundle(), wishes(), _late(machine), progress=SILENT)
    progress = Recorder()
    assert install(packer.bundle(), wishes(), machine.host(), progress=progress).proven
    assert progress.events.index("recover") < progress.events.index("recovered") < progress.events.index("changed")
    assert "an install of serial 1 ended in the middle" in dict(progress.said)["recover"]


def test_a_power_cut_during_the_putting_back_is_gone_on_with(packer: Packer, place: Path):
    bundle = packer.bundle()
    for number in (1, 4, 9, 15, 22, 30, 38):
        machine = packaged(place / f"host{number}")
        before = world(machine)
        with pytest.raises(Power):
            install(bundle, wishes(engine="replace"), _late(machine), progress=SILENT)
        doomed = Doomed(machine.host(), Power(), number, after=True)
        with suppress(Power):  # the last points may lie beyond the end
            recover.recover(doomed, progress=SILENT)
        recover.recover(machine.host(), progress=SILENT)
        assert world(machine) == before, doomed.log[-1]
        shutil.rmtree(place / f"host{number}")


def test_a_power_cut_during_a_rollback_is_gone_on_with(packer: Packer, place: Path):
    bundle = packer.bundle()
    for number in (1, 2, 5, 12, 20, 30):
        machine = packaged(place / f"host{number}")
        before = world(machine)
        install(bundle, wishes(engine="replace"), machine.host(), progress=SILENT)
        doomed = Doomed(machine.host(), Power(), number, after=True)
        with suppress(Power):
            uninstall(doomed, confirm=lambda question: True, progress=SILENT)
        assert "committed" not in {item.state for item in Journal.every(machine.host())}
        if Journal.pending(machine.host()):
            progress = Recorder()
            recover.recover(machine.host(), progress=progress)
            assert "a rollback of serial 1" in dict(progress.said)["recover"]
        assert world(machine) == before


def test_what_cannot_be_put_back_is_said_and_tried_again(packer: Packer, place: Path):
    class Stuck(Engine):
        stuck = False

        def remove(self, reference: str) -> bool:
            if self.stuck:
                raise DaemonError("the engine refused: layer in use", status=500)
            return super().remove(reference)

    machine = Machine(place / "host", engine=Stuck())
    machine.package()
    machine.broken.add("buildkit")
    machine.engine.stuck = True
    with pytest.raises(
        PutBackFailed, match=r"(?s)cannot do what the bundle is for.*and then: the host could not be put back.*layer in use"
    ) as caught:
        install(packer.bundle(KEPT), wishes(), machine.host(), progress=SILENT)
    assert caught.value.exit_code == 22
    assert JOURNAL in caught.value.hint
    machine.engine.stuck = False
    recover.recover(machine.host(), progress=SILENT)
    assert machine.engine.data.tags == {}


def test_a_user_who_was_deleted_meanwhile_does_not_keep_the_host_from_being_put_back(packer: Packer, place: Path):
    machine = Machine(place / "host")
    install(packer.bundle(), wishes(users=("dev",)), machine.host(), progress=SILENT)
    machine.write("/etc/passwd", (machine.root / "etc/passwd").read_text().splitlines()[0] + "\n")
    uninstall(machine.host(), confirm=lambda question: True, progress=SILENT)
    assert not (machine.root / "opt/airgap").exists()
