"""Install: verify, look, plan, show, apply, prove, write the receipt. Whatever ends it in between, the host is as it was.

lock file → what a dead install left is put back → every byte verified → facts → engine decided → plan → preflight
→ (shown) → journal → steps → proof → receipt → committed
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from airgap.bundle.archive import Bundle, verify
from airgap.document import Json
from airgap.errors import AirgapError, HostUnsuitable, Interrupted, StepFailed, UsageError
from airgap.kinds import KINDS
from airgap.kinds.site import Site
from airgap.manifest import Manifest
from airgap.offline import preflight_engine, receipt
from airgap.offline.apply import apply, back
from airgap.offline.changes import Context
from airgap.offline.decide import Decision, EngineWish, decide
from airgap.offline.facts import facts
from airgap.offline.foresee import Outlook, foresee
from airgap.offline.host import Host
from airgap.offline.journal import Journal, exclusive
from airgap.offline.plan import plan, site
from airgap.offline.preflight import check, refuse
from airgap.offline.prove import Proof, prove
from airgap.offline.recover import pending_row, recover
from airgap.offline.row import Row
from airgap.progress import Progress
from airgap.steps import Step

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
ALWAYS = "runtime"
"""The kind that `--only` never leaves out: without the command there is no way back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the installer asked for. `confirm` is asked before containers are stopped; `runtime` is where airgap runs from."""

    confirm: Callable[[str], bool]
    engine: str = "auto"
    only: frozenset[str] = frozenset()
    users: tuple[str, ...] = ()
    plan_only: bool = False
    keep_unproven: bool = False
    runtime: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found and done. `proofs` is empty for a mere plan."""

    name: str
    serial: int
    engine: str
    rows: tuple[Row, ...]
    outlooks: tuple[Outlook, ...]
    changed: tuple[Step, ...] = ()
    proofs: tuple[Proof, ...] = ()
    plan_only: bool = False

    @property
    def proven(self) -> bool:
        """Whether everything that was tried worked."""
        return all(item.good for item in self.proofs)

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "name": self.name, "serial": self.serial, "engine": self.engine, "plan_only": self.plan_only,
            "preflight": [row.to_json() for row in self.rows],
            "steps": [
                {"target": item.step.target, "text": item.step.describe(), "changes": item.changes} for item in self.outlooks
            ],
            "changed": [step.target for step in self.changed],
            "proofs": [{"name": item.name, "good": item.good, "found": item.found, "cure": item.cure} for item in self.proofs],
        }  # fmt: skip

    def text(self, table: Table) -> str:
        """For people."""
        title = f"{self.name}, serial {self.serial}: {self.engine}"
        if self.plan_only:
            return "\n".join([title, *self._preflight(table), "", *self._steps(), "", "nothing was changed (--plan)"])
        lines = [title] + [f"{row.name}: {row.found}; {row.cure}" for row in self.rows if row.level == "warn"]
        if not self.changed:
            lines.append(f"nothing to change: all {len(self.outlooks)} steps are so already")
        else:
            lines.append(f"{len(self.changed)} changes made; airgap rollback takes them back")
        lines += [f"{'proven' if item.good else 'NOT PROVEN'}: {item.name}: {item.found}" for item in self.proofs]
        return "\n".join(lines)

    def _preflight(self, table: Table) -> Iterator[str]:
        rows = [("ok" if row.level == "ok" else row.level.upper(), row.name, row.found, row.needed) for row in self.rows]
        yield ""
        yield table(("", "need", "found", "needed"), rows)
        yield from (f"  {row.name}: {row.cure}" for row in self.rows if row.cure)

    def _steps(self) -> Iterator[str]:
        width = len(str(len(self.outlooks)))
        for number, item in enumerate(self.outlooks, 1):
            yield f"{number:>{width}}  {item.step.describe()}" + ("" if item.changes else "  (already so)")


def install(path: Path, wishes: Wishes, host: Host, *, progress: Progress) -> Report:
    """Afterwards the host is as the bundle says, proven and receipted; run again, nothing changes.

    Raises UsageError for kinds nobody knows; BundleError, DigestMismatch before anything is looked at; HostUnsuitable if the host
    cannot take it or the user would not have it, nothing changed; StepFailed or Interrupted after the host was put back;
    PutBackFailed if even that failed.
    """
    only = _only(wishes.only)
    with ExitStack() as stack:
        if not wishes.plan_only:
            if not host.is_root():
                raise HostUnsuitable(
                    "only root can install; nothing was changed", hint="sudo sh install.sh …; --plan needs no root"
                )
            stack.enter_context(exclusive(host))
            recover(host, progress=progress)
        bundle = stack.enter_context(Bundle.at(path))
        verify(bundle, progress=progress)
        return _Install(bundle, wishes, host, only=only, progress=progress).run()


def _only(asked: frozenset[str]) -> frozenset[str]:
    names = {kind.NAME for kind in KINDS}
    if unknown := sorted(asked - names):
        raise UsageError(
            f"--only: there is no kind {', '.join(map(repr, unknown))}", hint=f"kinds are {', '.join(sorted(names))}"
        )
    return asked | {ALWAYS} if asked else asked


class _Install:
    """One run, from a verified bundle on."""

    def __init__(self, bundle: Bundle, wishes: Wishes, host: Host, *, only: frozenset[str], progress: Progress) -> None:
        self.bundle, self.wishes, self.host, self.only, self.progress = bundle, wishes, host, only, progress

    def run(self) -> Report:
        decision, where = self._site()
        self.progress.say("engine", decision.text)
        steps = plan(where, only=self.only)
        outlooks = self._foresee(steps)
        rows = (*check(self.host, where, outlooks), *pending_row(self.host))
        report = Report(
            name=where.lock.name, serial=where.lock.serial, engine=decision.text, rows=rows, outlooks=outlooks,
            plan_only=self.wishes.plan_only,
        )  # fmt: skip
        if self.wishes.plan_only:
            return report
        if not any(item.changes for item in outlooks):
            return self._unchanged(report, where)
        refuse(rows)
        for row in rows:
            if row.level == "warn":
                self.progress.say("preflight", f"{row.name}: {row.found}; {row.cure}", **row.to_json())
        self._ask(where, outlooks)
        return self._change(report, where, steps)

    def _site(self) -> tuple[Decision, Site]:
        lock = self.bundle.lock
        asked = Manifest.from_json(lock.manifest)
        manifest = dataclasses.replace(asked, users=tuple(dict.fromkeys((*asked.users, *self.wishes.users))))
        found = facts(self.host, users=manifest.users)
        carried = next((item.version for item in lock.of_kind("engine") if item.platform == found.platform), "")
        wanted = not self.only or "engine" in self.only
        decision = decide(cast(EngineWish, self.wishes.engine), found, carried=carried, wanted=wanted)
        where = site(self.bundle, manifest, found, replace=decision.replace, runtime=self.wishes.runtime)
        return decision, where

    def _foresee(self, steps: Sequence[Step]) -> tuple[Outlook, ...]:
        with tempfile.TemporaryDirectory(prefix="airgap-") as private:
            return foresee(steps, Context(host=self.host, saved=Path(private), bundle=self.bundle, progress=self.progress))

    def _ask(self, where: Site, outlooks: Sequence[Outlook]) -> None:
        names = preflight_engine.stopped(where, outlooks)
        if names and not self.wishes.confirm(f"{len(names)} running containers will be stopped ({', '.join(names)}). Go on?"):
            raise HostUnsuitable(
                f"these containers would be stopped: {', '.join(names)}; nothing was changed",
                hint="--yes stops them; --engine keep leaves the engine alone",
            )

    def _unchanged(self, report: Report, where: Site) -> Report:
        self.progress.say("unchanged", "nothing to change; proving that it works")
        proofs = self._prove(where)
        if bad := _unproven(proofs):
            raise HostUnsuitable(
                f"everything is in place, and yet not everything works; nothing was changed\n{bad}", hint=_cure(proofs)
            )
        return dataclasses.replace(report, proofs=proofs)

    def _prove(self, where: Site) -> tuple[Proof, ...]:
        return prove(self.host, where, only=self.only, progress=self.progress)

    def _change(self, report: Report, where: Site, steps: Sequence[Step]) -> Report:
        journal = Journal.begin(self.host, serial=where.lock.serial, steps=len(steps))
        ctx = journal.context(bundle=self.bundle, progress=self.progress)
        with _or_back(journal, ctx):
            applied = apply(steps, ctx, journal)
            if not applied.changed:
                journal.discard()
                return self._unchanged(report, where)
            proofs = self._prove(where)
            bad = _unproven(proofs)
            if bad and not self.wishes.keep_unproven:
                raise HostUnsuitable(f"the host cannot do what the bundle is for\n{bad}", hint=_cure(proofs))
            written = receipt.writing(self.host, where, steps, partial=bool(self.only), proven=not bad)
            apply(written, ctx, journal, start=len(steps))
            journal.commit()
        return dataclasses.replace(report, changed=applied.changed, proofs=proofs)


@contextmanager
def _or_back(journal: Journal, ctx: Context) -> Iterator[None]:
    """Whatever ends the inside, the host is put back; `apply` has seen to its own failures already."""
    try:
        yield
    except (StepFailed, Interrupted):
        raise
    except KeyboardInterrupt as cause:
        back(journal, ctx, "stopped while proving", cause)
        raise Interrupted("stopped while proving; the host was put back") from cause
    except Exception as cause:
        if not Journal.pending(ctx.host):
            raise
        known = cause if isinstance(cause, AirgapError) else None
        why = known.message if known else f"a bug in airgap: {type(cause).__name__}: {cause}"
        back(journal, ctx, why, cause)
        raise StepFailed(f"{why}\nthe host was put back", hint=known.hint if known else None) from cause


def _unproven(proofs: Sequence[Proof]) -> str:
    return "\n".join(f"  {item.name}: {item.found}" for item in proofs if not item.good)


def _cure(proofs: Sequence[Proof]) -> str | None:
    return next((item.cure for item in proofs if not item.good and item.cure), None)
