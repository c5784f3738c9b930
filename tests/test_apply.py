"""A plan made true: looked at, remembered, done; everything back if anything fails."""

from collections.abc import Callable
from pathlib import Path

import pytest

from airgap.errors import BundleError, HostUnsuitable, Interrupted, PutBackFailed, StepFailed
from airgap.offline.apply import apply
from airgap.offline.foresee import foresee, restarts
from airgap.offline.host import Host
from airgap.offline.journal import Journal
from airgap.steps import Link, Service, Step, WriteFile
from tests.fakes import Machine, Recorder, tree

GOOD = (WriteFile(path="/etc/a", text="a"), Link("/usr/local/bin/c", "/etc/a"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "host")


@pytest.fixture
def host(machine: Machine) -> Host:
    return machine.host()


class Telling(Recorder):
    """A progress that raises when a step was told of."""

    def __init__(self, cause: BaseException, event: str = "changed") -> None:
        super().__init__()
        self.cause, self.event = cause, event

    def say(self, event: str, text: str, **facts: object) -> None:
        super().say(event, text, **facts)
        if event == self.event:
            raise self.cause


def test_what_changed_and_what_was_so_are_told_apart(host: Host):
    host.write("/etc/a", b"a")
    journal = Journal.begin(host)
    applied = apply(GOOD, journal.context(), journal)
    assert (applied.kept, applied.changed) == (GOOD[:1], GOOD[1:])
    assert [entry.index for entry in journal.entries()] == [1]


def test_more_steps_go_on_in_the_same_journal(host: Host):
    journal = Journal.begin(host)
    apply(GOOD, journal.context(), journal)
    apply([WriteFile(path="/etc/z", text="z")], journal.context(), journal, start=2)
    assert [entry.index for entry in journal.entries()] == [0, 1, 2]


@pytest.mark.parametrize(
    "cause", [HostUnsuitable("no", hint="do this"), OSError(28, "No space left on device", "/etc/a"), ValueError("bug")]
)
def test_whatever_a_step_raises_the_host_is_put_back(host: Host, cause: Exception):
    was = tree(host.root)
    journal = Journal.begin(host)
    with pytest.raises(StepFailed, match=r"step 1 of 2, write /etc/a: .*\nthe host was put back") as caught:
        apply(GOOD, journal.context(progress=Telling(cause)), journal)
    assert caught.value.__cause__ is cause
    assert caught.value.exit_code == 21
    assert tree(host.root) == was
    assert Journal.pending(host) is None


def test_ctrl_c_puts_back_and_leaves_with_its_own_code(host: Host):
    was = tree(host.root)
    journal = Journal.begin(host)
    with pytest.raises(Interrupted) as caught:
        apply(GOOD, journal.context(progress=Telling(KeyboardInterrupt())), journal)
    assert caught.value.exit_code == 130
    assert tree(host.root) == was


def test_ctrl_c_during_the_putting_back_leaves_it_pending_and_says_so(host: Host):
    class Twice(Telling):
        def say(self, event: str, text: str, **facts: object) -> None:
            if event in ("changed", "undone"):
                raise KeyboardInterrupt

    journal = Journal.begin(host)
    with pytest.raises(PutBackFailed, match="putting the host back was interrupted") as caught:
        apply(GOOD, journal.context(progress=Twice(KeyboardInterrupt())), journal)
    assert caught.value.exit_code == 22
    assert Journal.pending(host) is not None


def test_two_steps_with_one_target_are_refused_before_anything_runs(host: Host):
    was = tree(host.root)
    journal = Journal.begin(host)
    with pytest.raises(BundleError, match="two steps of the plan want file:/etc/a"):
        apply([*GOOD, WriteFile(path="/etc/a", text="b")], journal.context(), journal)
    assert tree(host.root) == was


def looked(host: Host, *steps: Step, tmp_path: Path):
    from airgap.offline.changes import Context

    return foresee(steps, Context(host=host, saved=tmp_path / "private"))


UNIT = "/etc/systemd/system/x.service"
TEXT = "[Service]\nExecStart=/usr/bin/x\n[Install]\n"


@pytest.fixture
def served(machine: Machine) -> Callable[..., tuple[Step, ...]]:
    from tests.fakes import program

    machine.write("/usr/bin/x", program("x"), mode=0o755)
    machine.write(UNIT, TEXT)
    machine(["systemctl", "enable", "x.service"])
    machine(["systemctl", "start", "x.service"])
    return lambda text: (WriteFile(path=UNIT, text=text), Service(name="x.service", program="/usr/bin/x", files=(UNIT,)))


def test_a_look_ahead_changes_nothing_and_knows_that_a_new_unit_restarts_its_service(host: Host, served, tmp_path: Path):
    was = tree(host.root)
    assert [item.changes for item in looked(host, *served(TEXT), tmp_path=tmp_path)] == [False, False]
    outlooks = looked(host, *served(TEXT + "# new\n"), tmp_path=tmp_path)
    assert [item.changes for item in outlooks] == [True, True]
    assert restarts(outlooks, "x.service")
    assert tree(host.root) == was


def test_a_look_ahead_says_what_could_not_be_applied(machine: Machine, host: Host, tmp_path: Path):
    host.make_folder("/etc/a")
    (machine.root / "etc/systemd/system/y.service").symlink_to("/dev/null")
    outlooks = looked(host, WriteFile(path="/etc/a", text=""), Service(name="y.service"), tmp_path=tmp_path)
    assert [item.refused for item in outlooks] == ["/etc/a is a folder, where a file has to be", "y.service is masked on this host"]
    assert all(item.hint for item in outlooks)
