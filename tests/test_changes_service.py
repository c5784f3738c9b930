"""Services: enabled, running what is on disk, started again only for a reason, and put back as they were."""

from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable
from airgap.offline.changes import Context
from airgap.offline.changes.service import Served, unit
from airgap.steps import Service
from tests.fakes import Machine, program, world

UNIT = "/etc/systemd/system/x.service"
STEP = Service(name="x.service", program="/opt/current/x", files=(UNIT,))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "host")
    machine.write("/opt/1/x", program("one"), mode=0o755)
    machine.write("/opt/2/x", program("two"), mode=0o755)
    (machine.root / "opt/current").symlink_to("1")
    machine.write(UNIT, "[Service]\nExecStart=/opt/current/x\n[Install]\n")
    return machine


@pytest.fixture
def ctx(machine: Machine, tmp_path: Path) -> Context:
    return Context(host=machine.host(), saved=tmp_path / "saved")


def run(ctx: Context, step: Service = STEP) -> dict | None:
    record = Served().before(step, ctx)
    if record is not None:
        Served().apply(step, ctx)
    return record


def pid(ctx: Context) -> int:
    return unit(ctx.host, "x.service").pid


def test_a_service_is_enabled_and_started_once(ctx: Context):
    assert run(ctx) == {"active": False, "enabled": False, "pid": 0, "sockets": []}
    assert unit(ctx.host, "x.service").up
    first = pid(ctx)
    assert run(ctx) is None
    assert pid(ctx) == first


@pytest.mark.parametrize("reason", ["another program", "a newer file", "a changed unit", "stopped", "disabled"])
def test_it_starts_again_for_a_reason(machine: Machine, ctx: Context, reason: str):
    run(ctx)
    first = pid(ctx)
    if reason == "another program":
        (machine.root / "opt/current").unlink()
        (machine.root / "opt/current").symlink_to("2")
    elif reason == "a newer file":
        machine.write(UNIT, (machine.root / UNIT[1:]).read_text())
    elif reason == "a changed unit":
        machine.write(UNIT, (machine.root / UNIT[1:]).read_text() + "# more\n")
    elif reason == "stopped":
        machine(["systemctl", "stop", "x.service"])
    else:
        machine(["systemctl", "disable", "x.service"])
    assert run(ctx) is not None
    assert unit(ctx.host, "x.service").up
    assert (pid(ctx) == first) == (reason == "disabled")
    assert run(ctx) is None


def test_the_same_program_under_another_name_is_no_reason(machine: Machine, ctx: Context):
    run(ctx)
    machine.write("/opt/3/x", program("one"), mode=0o755)
    (machine.root / "opt/current").unlink()
    (machine.root / "opt/current").symlink_to("3")
    assert run(ctx) is None


def test_one_that_does_not_start_says_its_own_last_words(machine: Machine, ctx: Context):
    machine.broken.add("x.service")
    with pytest.raises(HostUnsuitable, match=r"(?s)x.service did not start: .*it said why") as caught:
        run(ctx)
    assert caught.value.hint == "journalctl -u x.service"


def test_one_that_starts_something_else_is_found_out(machine: Machine, ctx: Context):
    machine.write(UNIT, "[Service]\nExecStart=/opt/2/x\n[Install]\n")
    with pytest.raises(HostUnsuitable, match="started something else than /opt/current/x") as caught:
        run(ctx)
    assert "drop-in" in caught.value.hint


def test_one_that_is_masked_is_refused(machine: Machine, ctx: Context):
    (machine.root / UNIT[1:]).unlink()
    (machine.root / UNIT[1:]).symlink_to("/dev/null")
    with pytest.raises(HostUnsuitable, match="masked"):
        run(ctx)


@pytest.mark.parametrize("was", [(), ("enable",), ("start",), ("enable", "start")])
def test_undo_and_settle_leave_it_as_it_was(machine: Machine, ctx: Context, was: tuple[str, ...]):
    for verb in was:
        machine(["systemctl", verb, "x.service"])
    before = world(machine)
    machine.write(UNIT, (machine.root / UNIT[1:]).read_text())  # newer: a reason in every case
    record = run(ctx)
    for _ in range(2):
        Served().undo(STEP, record, ctx)
        Served().settle(STEP, record, ctx)
        assert world(machine) == before


def test_a_socket_unit_is_as_old_as_its_being_active(machine: Machine, ctx: Context):
    path = "/etc/systemd/system/y.socket"
    machine.write(path, "[Socket]\nListenStream=/run/y\n[Install]\n")
    step = Service(name="y.socket", files=(path,))
    assert run(ctx, step) is not None
    assert run(ctx, step) is None
