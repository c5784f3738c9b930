"""The journal: on disk before the step, readable after the crash, put back in reverse, and honest about what failed."""

from pathlib import Path

import pytest

from airgap.errors import HostUnsuitable, PutBackFailed
from airgap.offline.apply import apply
from airgap.offline.host import Host
from airgap.offline.journal import LOCK, Journal, exclusive
from airgap.steps import Link, WriteFile
from tests.fakes import Machine, Recorder, tree

STEPS = (WriteFile(path="/etc/a", text="a"), WriteFile(path="/opt/new/b", text="b"), Link("/usr/local/bin/c", "/opt/new/b"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Machine(tmp_path / "host").host()


def test_a_step_is_on_disk_with_its_undo_before_it_is_applied(host: Host):
    journal = Journal.begin(host, serial=7, steps=1)
    journal.intend(0, STEPS[0], {"files": []})
    (entry,) = Journal.pending(host).entries()
    assert (entry.step, entry.record, entry.undone) == (STEPS[0], {"files": []}, False)
    assert Journal.pending(host).serial == 7
    assert host.read("/etc/a") is None


def test_journals_are_for_root_only(host: Host):
    journal = Journal.begin(host)
    journal.intend(0, STEPS[0], {})
    assert {place.stat().st_mode & 0o077 for place in host.path(journal.path).iterdir()} == {0}


def test_committed_journals_stay_and_are_counted_on(host: Host):
    for number in (1, 2):
        journal = Journal.begin(host, serial=number)
        assert journal.number == number
        apply(STEPS[number - 1 : number], journal.context(), journal)
        journal.commit()
    assert [(item.number, item.serial, item.state) for item in Journal.every(host)] == [(1, 1, "committed"), (2, 2, "committed")]
    assert Journal.pending(host) is None


def test_a_second_transaction_waits_for_the_first_to_be_put_back(host: Host):
    journal = Journal.begin(host)
    with pytest.raises(HostUnsuitable, match="was not put back yet"):
        Journal.begin(host)
    journal.put_back(journal.context())
    assert Journal.begin(host).number == 2


def test_putting_back_goes_in_reverse_and_says_each_step(host: Host):
    was, progress = tree(host.root), Recorder()
    journal = Journal.begin(host)
    apply(STEPS, journal.context(), journal)
    assert journal.put_back(journal.context(progress=progress)) == 3
    assert [text for event, text in progress.said if event == "undone"] == [f"undone: {step.describe()}" for step in STEPS[::-1]]
    assert tree(host.root) == was
    assert journal.state == "put-back"
    assert journal.put_back(journal.context()) == 0


def test_one_step_that_cannot_be_undone_does_not_keep_the_others(host: Host):
    journal = Journal.begin(host)
    host.write("/etc/a", b"before")
    apply(STEPS, journal.context(), journal)
    (saved,) = journal.saved.iterdir()
    data = saved.read_bytes()
    saved.unlink()
    with pytest.raises(PutBackFailed, match=r"(?s)could not be put back as it was:\n  write /etc/a: .*No such file") as caught:
        journal.put_back(journal.context())
    assert "run any airgap command" in caught.value.hint
    assert not host.exists("/opt/new")
    assert Journal.pending(host) is not None
    saved.write_bytes(data)
    journal.put_back(journal.context())
    assert host.read("/etc/a") == b"before"


@pytest.mark.parametrize("data", [b"", b"{", b'{"index": 0}'])
def test_a_damaged_journal_is_said_and_kept(host: Host, data: bytes):
    journal = Journal.begin(host)
    apply(STEPS[:1], journal.context(), journal)
    host.write(f"{journal.path}/0000.json", data)
    with pytest.raises(PutBackFailed, match="cannot be read"):
        journal.put_back(journal.context())
    assert Journal.pending(host) is not None


def test_an_empty_transaction_is_forgotten_and_a_begun_one_is_not(host: Host):
    journal = Journal.begin(host)
    journal.discard()
    assert Journal.every(host) == ()
    journal = Journal.begin(host)
    journal.intend(0, STEPS[0], {"files": []})
    journal.discard()
    assert Journal.pending(host) is not None


def test_a_folder_whose_state_was_never_written_was_never_begun(host: Host):
    host.make_folder("/var/lib/airgap/journal/000009")
    host.make_folder("/var/lib/airgap/journal/notes")
    assert Journal.every(host) == ()
    assert Journal.begin(host).number == 1


def test_one_airgap_at_a_time_and_a_dead_one_holds_nothing(host: Host):
    with exclusive(host), pytest.raises(HostUnsuitable, match="another airgap"), exclusive(host):
        pass
    host.write(LOCK, b"999999\n")
    with exclusive(host):
        assert host.read(LOCK) != b"999999\n"
