"""A plan made true, step by step: look, remember, do; and everything back if anything fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airgap.errors import AirgapError, BundleError, Interrupted, PutBackFailed, StepFailed
from airgap.offline.changes import Context, change_of
from airgap.offline.foresee import targets
from airgap.offline.journal import Journal
from airgap.steps import Step


@dataclass(frozen=True, slots=True)
class Applied:
    """Which steps changed the host, and which found it so already."""

    changed: tuple[Step, ...]
    kept: tuple[Step, ...]


def apply(plan: Sequence[Step], ctx: Context, journal: Journal, *, start: int = 0) -> Applied:
    """Afterwards the host is as every step says; the journal is still open, for the caller to prove, then commit or put back.

    `start` is the number of the first step, in a journal that holds others already.
    Raises BundleError for two steps with one target, before anything runs. Once it runs: StepFailed after a step failed and the
    host was put back, Interrupted likewise after Ctrl-C, PutBackFailed if putting back failed too.
    """
    _refuse_twins(plan)
    changed: list[Step] = []
    kept: list[Step] = []
    at = "before the first step"
    try:
        for index, step in enumerate(plan, start):
            at = f"step {index + 1} of {start + len(plan)}, {step.describe()}"
            change = change_of(step)
            record = change.before(step, ctx)
            if record is None:
                kept.append(step)
                ctx.progress.say("kept", f"already so: {step.describe()}", target=step.target)
                continue
            journal.intend(index, step, record)
            change.apply(step, ctx)
            journal.done(index)
            changed.append(step)
            ctx.progress.say("changed", step.describe(), target=step.target)
    except KeyboardInterrupt as cause:
        back(journal, ctx, f"stopped at {at}", cause)
        raise Interrupted(f"stopped at {at}; the host was put back") from cause
    except Exception as cause:
        why = f"{at}: {_words(cause)}"
        back(journal, ctx, why, cause)
        hint = cause.hint if isinstance(cause, AirgapError) else None
        raise StepFailed(f"{why}\nthe host was put back", hint=hint) from cause
    return Applied(tuple(changed), tuple(kept))


def back(journal: Journal, ctx: Context, why: str, cause: BaseException) -> None:
    """Afterwards the host is as it was; PutBackFailed, with `why` it had to be, otherwise."""
    ctx.progress.say("put-back", f"{why}; putting the host back")
    try:
        journal.put_back(ctx)
    except KeyboardInterrupt:
        raise PutBackFailed(
            f"{why}; and putting the host back was interrupted", hint="run any airgap command: it goes on putting back"
        ) from cause
    except Exception as second:  # noqa: BLE001 - whatever it is, the user must learn that the host is changed
        hint = second.hint if isinstance(second, AirgapError) else None
        raise PutBackFailed(f"{why}\nand then: {_words(second)}", hint=hint) from cause


def _words(cause: BaseException) -> str:
    if isinstance(cause, AirgapError):
        return cause.message
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.filename or 'the disk'}: {cause.strerror}"
    return f"a bug in airgap: {type(cause).__name__}: {cause}"


def _refuse_twins(plan: Sequence[Step]) -> None:
    seen: dict[str, Step] = {}
    for step in plan:
        for target in targets(step):
            if target in seen:
                raise BundleError(
                    f"two steps of the plan want {target}: {seen[target].describe()}; {step.describe()}",
                    hint="look at the manifest for two entries of one name",
                )
            seen[target] = step
