"""What an install is about to do, on disk before it does it: whoever comes next can put the host back.

    /var/lib/airgap/lock                    held (flock) by the one airgap that changes this host; its pid is inside
    /var/lib/airgap/journal/000007/
        state.json                          open, committed or put-back, and what it was for
        0003.json                           step 3: the step, and what undoes it; flushed before the step is applied
        0003.done   0003.undone             how far it came; lost ones do no harm, undoing twice is as once
        saved/<sha256>                      bytes of files that were replaced
    /var/lib/airgap/placed/<sha256>.json    which files on disk came out of which content (changes/files.py)

Committed journals stay: they are what `rollback` and `uninstall` undo, newest first.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airgap.document import Json, dump_json, parse_json
from airgap.errors import AirgapError, HostUnsuitable, PutBackFailed
from airgap.machine.daemon import DaemonError
from airgap.offline.changes import Contents, Context, Record, change_of
from airgap.offline.host import Host
from airgap.offline.stepjson import step_from_json, step_to_json
from airgap.progress import SILENT, Progress
from airgap.steps import Service, Step

STATE: Final = "/var/lib/airgap"
JOURNAL: Final = f"{STATE}/journal"
LOCK: Final = f"{STATE}/lock"
LIMIT: Final = 64 << 20


@contextmanager
def exclusive(host: Host) -> Iterator[None]:
    """Nobody else changes this host meanwhile; HostUnsuitable if somebody does already. A dead owner holds nothing."""
    host.make_folder(STATE)
    fd = os.open(host.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            owner = os.read(fd, 20).decode("ascii", errors="replace").strip()
            raise HostUnsuitable(
                f"another airgap (process {owner or 'unknown'}) is changing this host", hint="wait for it to end, then try again"
            ) from cause
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A step that was applied or about to be, and what undoes it."""

    index: int
    step: Step
    record: Record
    undone: bool


class Journal:
    """One transaction. `number` counts them on this host."""

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        self._host = host
        self._path = f"{JOURNAL}/{number:06d}"

    @classmethod
    def begin(cls, host: Host, *, serial: int = 0, steps: int = 0) -> Journal:
        """A new transaction, on disk. HostUnsuitable if one is unfinished, or if the disk does not take it."""
        if unfinished := cls.pending(host):
            raise HostUnsuitable(
                f"an install that ended in the middle ({unfinished.path}) was not put back yet", hint="run the command again"
            )
        journal = cls(host, max((item.number for item in cls.every(host)), default=0) + 1)
        try:
            host.make_folder(JOURNAL, mode=0o700)
            journal._say("open", serial=serial, steps=steps)
        except OSError as cause:
            raise HostUnsuitable(
                f"the journal cannot be written at {journal.path}: {cause.strerror}; nothing was changed", hint="free space there"
            ) from cause
        return journal

    @classmethod
    def every(cls, host: Host) -> tuple[Journal, ...]:
        """All transactions of this host, oldest first. A folder without a state was never begun."""
        folder = host.path(JOURNAL)
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        found = (cls(host, int(name)) for name in names if len(name) == 6 and name.isdigit())
        return tuple(item for item in found if host.exists(f"{item.path}/state.json"))

    @classmethod
    def pending(cls, host: Host) -> Journal | None:
        """The transaction that was neither committed nor put back, if there is one."""
        return next((item for item in cls.every(host) if item.state == "open"), None)

    @property
    def path(self) -> str:
        """Its folder on the host."""
        return self._path

    @property
    def saved(self) -> Path:
        """Where bytes of replaced files are kept."""
        return self._host.path(f"{self._path}/saved")

    @property
    def state(self) -> str:
        """open, committed or put-back."""
        return str(self.facts.get("state", "open"))

    @property
    def serial(self) -> int:
        """The bundle that it was for."""
        return int(self.facts.get("serial", 0))

    @property
    def facts(self) -> dict[str, Json]:
        """The state file: state, serial of the bundle, number of steps in the plan."""
        return self._load("state.json")

    def context(self, *, bundle: Contents | None = None, progress: Progress = SILENT) -> Context:
        """What changes work with, in this transaction."""
        return Context(host=self._host, saved=self.saved, bundle=bundle, progress=progress)

    def intend(self, index: int, step: Step, record: Record) -> None:
        """Afterwards a power cut finds how to undo this step; only then may it be applied."""
        row = {"index": index, "step": step_to_json(step), "record": record}
        self._host.write(f"{self._path}/{index:04d}.json", dump_json(row), mode=0o600)

    def done(self, index: int) -> None:
        """The step was applied to its end."""
        self._mark(index, "done")

    def discard(self) -> None:
        """Forget a transaction in which nothing was begun."""
        if not self.entries():
            self._host.remove(self._path)

    def reopen(self) -> None:
        """A committed transaction is to be put back: whoever comes next after a kill goes on with that."""
        self._say("open", **{name: value for name, value in self.facts.items() if name != "state"}, undoing=True)

    def commit(self) -> None:
        """The host keeps what was done; nothing is pending any more."""
        self._say("committed")

    def entries(self) -> tuple[Entry, ...]:
        """Every step that was begun, in the order of the plan."""
        names = sorted(item.name for item in self._host.path(self._path).iterdir())
        rows = (name for name in names if len(name) == 9 and name[:4].isdigit() and name.endswith(".json"))
        return tuple(self._entry(name, names) for name in rows)

    def put_back(self, ctx: Context) -> int:
        """Afterwards the host is as it was before this transaction; returns how many steps were undone.

        Undoes in reverse order and goes on past failures, then settles; what failed is tried once more, because an engine
        that was put back may answer again. PutBackFailed if something is left then; the transaction stays pending.
        """
        try:
            entries = self.entries()
        except (AirgapError, OSError) as cause:
            raise PutBackFailed(
                f"the journal {self._path} cannot be read: {cause}", hint="keep the folder, ask for help"
            ) from cause
        pending = [item for item in reversed(entries) if not item.undone]
        failed = self._undo(pending, ctx)
        unsettled = self._settle(entries, ctx)
        if failed:
            again = self._undo([entry for entry, _ in failed], ctx)
            failed = [row for row in again if not _moot(entries, row[1])]
        if unsettled:
            unsettled = self._settle(tuple(entry for entry, _ in unsettled), ctx)
        if failed or unsettled:
            lines = [f"{entry.step.describe()}: {cause}" for entry, cause in (*failed, *unsettled)]
            raise PutBackFailed(
                "the host could not be put back as it was:\n  " + "\n  ".join(lines),
                hint=f"mend that, then run any airgap command to try again; the journal is {self._path}",
            ) from failed[0][1] if failed else unsettled[0][1]
        with suppress(OSError):  # a full disk: everything is back, the next command finds that out once more
            self._say("put-back")
        return len(pending)

    def _undo(self, entries: list[Entry], ctx: Context) -> list[tuple[Entry, Exception]]:
        failed: list[tuple[Entry, Exception]] = []
        for entry in entries:
            try:
                change_of(entry.step).undo(entry.step, entry.record, ctx)
            except (AirgapError, OSError) as cause:
                failed.append((entry, cause))
                continue
            with suppress(OSError):
                self._mark(entry.index, "undone")
            ctx.progress.say("undone", f"undone: {entry.step.describe()}", target=entry.step.target)
        return failed

    def _settle(self, entries: tuple[Entry, ...], ctx: Context) -> list[tuple[Entry, Exception]]:
        failed: list[tuple[Entry, Exception]] = []
        for entry in entries:
            try:
                change_of(entry.step).settle(entry.step, entry.record, ctx)
            except (AirgapError, OSError) as cause:  # noqa: PERF203 - as above
                failed.append((entry, cause))
        return failed

    def _entry(self, name: str, names: list[str]) -> Entry:
        row = self._load(name)
        try:
            index, step, record = int(row["index"]), step_from_json(row["step"]), dict(row["record"])
        except (KeyError, TypeError, ValueError) as cause:
            raise HostUnsuitable(f"{self._path}/{name}: is no entry of a journal") from cause
        return Entry(index=index, step=step, record=record, undone=f"{name[:4]}.undone" in names)

    def _mark(self, index: int, word: str) -> None:
        self._host.write(f"{self._path}/{index:04d}.{word}", b"", mode=0o600)

    def _load(self, name: str) -> dict[str, Json]:
        path = f"{self._path}/{name}"
        data = self._host.read(path, limit=LIMIT)
        return parse_json(data or b"", name=path, error=HostUnsuitable).mapping()

    def _say(self, state: str, **facts: Json) -> None:
        known = {} if facts else self.facts
        self._host.write(f"{self._path}/state.json", dump_json({**known, "state": state, **facts}), mode=0o600)


def _moot(entries: tuple[Entry, ...], cause: Exception) -> bool:
    """Whether the failure is that no engine answers where none is left to: this transaction had brought it."""
    if not isinstance(cause, DaemonError) or cause.status:
        return False
    brought = [entry.record for entry in entries if isinstance(entry.step, Service) and entry.step.name == "docker.service"]
    return bool(brought) and not brought[0]["active"] and not brought[0].get("sockets")
