"""Images and their names in the engine: loaded as a stream, compared by ID, named; undo gives names back to what had them."""

from __future__ import annotations

from collections.abc import Iterator

from airgap.errors import HostUnsuitable
from airgap.machine.daemon import DaemonError
from airgap.offline.changes.base import Context, Quiet, Record
from airgap.steps import LoadImage, TagImage

CONFLICT = 409


class Loaded(Quiet):
    """LoadImage."""

    def before(self, step: LoadImage, ctx: Context) -> Record | None:
        """Whether the tag is missing or names another image; that one is remembered, and so is whether ours was there by ID."""
        daemon = ctx.host.daemon
        now = daemon.image(str(step.reference))
        if now and now.id in step.ids:
            return None
        return {"previous": now.id if now else "", "there": sorted(name for name in step.ids if daemon.image(name))}

    def apply(self, step: LoadImage, ctx: Context) -> None:
        """The engine has the image under its name, and calls it by one of the IDs that mean our bytes."""
        from airgap.bundle.image import docker_archive

        with ctx.progress.gauge(step.describe(), step.size) as gauge:

            def counted() -> Iterator[bytes]:
                for piece in docker_archive(ctx.contents, step.manifest, reference=step.reference):
                    gauge.advance(len(piece))
                    yield piece

            said = ctx.host.daemon.load(counted(), name=step.reference.familiar)
        _compare(ctx, str(step.reference), step.ids, "; ".join(said))

    def undo(self, step: LoadImage, record: Record, ctx: Context) -> None:
        """The tag names what it named before, or nothing; the image goes unless it was there or something needs it."""
        _name_back(ctx, str(step.reference), step.ids, str(record["previous"]))
        if record["previous"]:
            for name in sorted(step.ids - set(record["there"])):
                _drop(ctx, name)


class Tagged(Quiet):
    """TagImage."""

    def before(self, step: TagImage, ctx: Context) -> Record | None:
        """Whether the tag is missing or names another image."""
        now = ctx.host.daemon.image(str(step.reference))
        if now and now.id in _ids(step, ctx):
            return None
        return {"previous": now.id if now else "", "ids": sorted(_ids(step, ctx))}

    def apply(self, step: TagImage, ctx: Context) -> None:
        """Both names mean the same image."""
        ctx.host.daemon.tag(str(step.source), str(step.reference))
        _compare(ctx, str(step.reference), _ids(step, ctx), "")

    def undo(self, step: TagImage, record: Record, ctx: Context) -> None:
        """The tag names what it named before, or nothing."""
        _name_back(ctx, str(step.reference), frozenset(record["ids"]), str(record["previous"]))


def _ids(step: TagImage, ctx: Context) -> frozenset[str]:
    if step.ids:
        return step.ids
    source = ctx.host.daemon.image(str(step.source))
    return frozenset({source.id} if source else ())


def _compare(ctx: Context, reference: str, ids: frozenset[str], said: str) -> None:
    now = ctx.host.daemon.image(reference)
    if now is None or now.id not in ids:
        found = f"the engine calls it {now.id}" if now else "the engine does not have it"
        raise HostUnsuitable(
            f"{reference}: {found}; expected one of {', '.join(sorted(ids)) or 'its source'}" + (f" ({said})" if said else ""),
            hint="docker image inspect shows what is there",
        )


def _name_back(ctx: Context, reference: str, ids: frozenset[str], previous: str) -> None:
    """The tag names `previous` (an ID) again, or nothing if that is empty. A tag that somebody else moved meanwhile stays."""
    daemon = ctx.host.daemon
    now = daemon.image(reference)
    if now and now.id not in ids:
        return
    if not previous:
        _drop(ctx, reference)
    elif daemon.image(previous):
        daemon.tag(previous, reference)
    else:
        raise HostUnsuitable(f"{reference}: the image it named before ({previous}) is gone from the engine", hint="load it again")


def _drop(ctx: Context, name: str) -> None:
    try:
        ctx.host.daemon.remove(name)
    except DaemonError as cause:
        if cause.status != CONFLICT:
            raise
        # A container made from it meanwhile is not ours to stop; an image more does no harm.
        ctx.progress.say("left", f"{name} stays in the engine: {cause.message}", name=name)
