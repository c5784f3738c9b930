"""What an airgap that was killed left behind is put back before anything else happens on the host."""

from __future__ import annotations

from collections.abc import Iterator

from airgap.errors import HostUnsuitable
from airgap.offline.host import Host
from airgap.offline.journal import Journal
from airgap.offline.row import Row, row
from airgap.progress import Progress


def recover(host: Host, *, progress: Progress) -> bool:
    """Afterwards no transaction is pending; whether one was. PutBackFailed if it could not be put back."""
    journal = Journal.pending(host)
    if journal is None:
        return False
    progress.say("recover", f"{_what(journal)} in the middle; putting the host back first", journal=journal.path)
    journal.put_back(journal.context(progress=progress))
    progress.say("recovered", "the host is as it was before")
    return True


def pending_row(host: Host) -> Iterator[Row]:
    """A row for a transaction that is pending, for those who may not put it back."""
    journal = Journal.pending(host) if host.is_root() else None
    if journal:
        yield row(
            "unfinished", f"{_what(journal)} in the middle", "none", "the next install, rollback or uninstall puts it back first",
            good=False, otherwise="warn",
        )  # fmt: skip


def _what(journal: Journal) -> str:
    try:
        facts = journal.facts
    except HostUnsuitable:
        facts = {}
    return f"{'a rollback' if facts.get('undoing') else 'an install'} of serial {facts.get('serial', '?')} ended"
