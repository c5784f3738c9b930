"""buildx builders, one for each user: made anew when their words changed, with the build cache kept.

buildx keeps a builder in two places: a file in the user's home and a container in the engine. Users who have a builder of
the same name share the container, so that each of them is looked at by itself. Undo needs no buildx: it may be gone by then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from airgap.errors import HostUnsuitable
from airgap.machine.daemon import DaemonError
from airgap.machine.run import Result, RunError
from airgap.offline.changes.base import Context, Record
from airgap.offline.host import User
from airgap.offline.snapshot import restore, snapshots, take
from airgap.steps import Builder

FINGERPRINT = "AIRGAP_FINGERPRINT"
TRIES = 3
BOOT_SECONDS = 120
"""For one try: a pull that is dropped by a firewall (30 s), and buildx's own wait for buildkitd (15 s), on a slow machine."""
SECONDS = 60


def containers(step: Builder) -> tuple[str, ...]:
    """The containers that buildx makes for this builder."""
    return tuple(f"buildx_buildkit_{step.name}{number}" for number in range(step.nodes))


def _user(step: Builder, ctx: Context) -> User:
    user = ctx.host.user(step.user)
    if user is None:
        raise HostUnsuitable(f"the user {step.user} does not exist on this host", hint=f"useradd {step.user}, or leave it out")
    return user


def _buildx(step: Builder, ctx: Context, words: Sequence[str], *, timeout: float = SECONDS) -> Result:
    # The policy is opt-in today and wants a registry (upstream.md 2.3); off explicitly, it stays off.
    argv = [*step.buildx, *words]
    return ctx.host.run(argv, user=step.user, timeout=timeout, env={"BUILDX_DEFAULT_POLICY": "0"})


def _instance(step: Builder, user: User) -> str:
    return f"{user.home}/.docker/buildx/instances/{step.name}"


def _current(user: User) -> str:
    return f"{user.home}/.docker/buildx/current"


class Built:
    """Builder."""

    def before(self, step: Builder, ctx: Context) -> Record | None:
        """Whether the user's entry, the default, or a container is missing or other than it should be."""
        user, daemon = _user(step, ctx), ctx.host.daemon
        self._refuse_context(step, ctx, user)
        if self._entry(step, ctx, user) and self._containers(step, ctx) and (not step.use or self._default(step, ctx, user)):
            return None
        found = {name: daemon.container(name) for name in containers(step)}
        return {
            "files": [take(ctx.host, path, ctx.saved, user=user).to_json() for path in (_instance(step, user), _current(user))],
            "containers": {name: row.id for name, row in found.items() if row},
            "running": sorted(name for name, row in found.items() if row and row.running),
            "volumes": sorted(name for name in found if daemon.volume(f"{name}_state")),
        }

    def apply(self, step: Builder, ctx: Context) -> None:
        """The builder is the user's, its container runs what it should; the cache of an older one is kept."""
        user = _user(step, ctx)
        # What `buildx rm --keep-state` does, without its side effect of forgetting that this builder is the user's default,
        # and without the chance that one user's `rm` takes away the container that another one's was just given.
        if not self._containers(step, ctx):
            for name in containers(step):
                ctx.host.daemon.remove_container(name)
        if not self._entry(step, ctx, user):
            with ctx.host.acting_as(user):
                ctx.host.remove(_instance(step, user))
            _buildx(step, ctx, ["create", "--name", step.name, *step.arguments])
        self._boot(step, ctx)
        if step.use and not self._default(step, ctx, user):
            _buildx(step, ctx, ["use", step.name])

    def undo(self, step: Builder, record: Record, ctx: Context) -> None:
        """The user's files are as they were; containers and caches that were not there are gone."""
        daemon, user = ctx.host.daemon, ctx.host.user(step.user)
        for snapshot in snapshots(record) if user else ():  # a user who is gone since then took the files along
            restore(ctx.host, snapshot, ctx.saved, user=user)
        for name in containers(step):
            now = daemon.container(name)
            if now and now.id != record["containers"].get(name):
                daemon.remove_container(name)
            if name not in record["volumes"]:
                daemon.remove_volume(f"{name}_state")

    def settle(self, step: Builder, record: Record, ctx: Context) -> None:
        """A container that ran before is made again from the user's entry, now that its image has its name again.

        One that cannot be is said and left: buildx makes it at the next build anyway.
        """
        for name in record["running"]:
            try:
                now = ctx.host.daemon.container(name)
                if now and now.running:
                    continue
                if now:
                    ctx.host.daemon.start_container(name)
                else:
                    _buildx(step, ctx, ["inspect", "--bootstrap", step.name], timeout=BOOT_SECONDS)
            except (RunError, DaemonError) as cause:
                # Users share a container of one name, so it may have come with the very engine that is gone again.
                ctx.progress.say("left", f"{name} will be made by the next build: {cause.message}", name=name)

    def _refuse_context(self, step: Builder, ctx: Context, user: User) -> None:
        # buildx from 0.13 on refuses it, less clearly (docker/buildx#2345); contexts are kept by a hash of their name.
        key = hashlib.sha256(step.name.encode()).hexdigest()
        with ctx.host.acting_as(user):
            taken = step.name == "default" or ctx.host.exists(f"{user.home}/.docker/contexts/meta/{key}/meta.json")
        if taken:
            raise HostUnsuitable(
                f"{step.user} has a docker context named {step.name}, so no builder can have that name",
                hint=f"name the builder otherwise in the manifest, or: docker context rm {step.name}",
            )

    def _entry(self, step: Builder, ctx: Context, user: User) -> bool:
        """Whether the user's own file says the words that we would say."""
        with ctx.host.acting_as(user):
            data = ctx.host.read(_instance(step, user))
        try:
            nodes = json.loads(data or b"null")["Nodes"]
            return len(nodes) >= step.nodes and all(
                (node.get("DriverOpts") or {}).get(f"env.{FINGERPRINT}") == step.fingerprint for node in nodes[: step.nodes]
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return False

    def _default(self, step: Builder, ctx: Context, user: User) -> bool:
        with ctx.host.acting_as(user):
            data = ctx.host.read(_current(user))
        try:
            return bool(json.loads(data or b"null")["Name"] == step.name)
        except (ValueError, KeyError, TypeError):
            return False

    def _containers(self, step: Builder, ctx: Context) -> bool:
        """Whether every container runs, from an image that may be, with the fingerprint that was asked for."""
        for name in containers(step):
            now = ctx.host.daemon.container(name)
            if not now or not now.running or now.image not in step.image_ids:
                return False
            if now.environment.get(FINGERPRINT) != step.fingerprint:
                return False
        return True

    def _boot(self, step: Builder, ctx: Context) -> None:
        """Its containers run; what buildx says is not believed without looking (docker/setup-buildx-action#64)."""
        said = ""
        for attempt in range(TRIES):
            try:
                _buildx(step, ctx, ["inspect", "--bootstrap", step.name], timeout=BOOT_SECONDS)
            except RunError as cause:
                said = cause.message
            if self._containers(step, ctx):
                return
            ctx.host.clock.sleep(1 + attempt)
        logs = [f"{name}:\n{text}" for name in containers(step) if (text := ctx.host.daemon.logs(name))]
        raise HostUnsuitable(
            "\n".join([f"the builder {step.name} of {step.user} does not start", *([said] if said else []), *logs]),
            hint=f"docker logs {containers(step)[0]}; a docker context of {step.user} that leads elsewhere has the same effect",
        )
