"""Groups, system users and who is in what, by the host's own tools: shadow's, or busybox's."""

from __future__ import annotations

from airgap.errors import HostUnsuitable
from airgap.offline.changes.base import Context, Quiet, Record
from airgap.offline.host import Host
from airgap.steps import GroupMember, SystemGroup, SystemUser


def _tool(host: Host, *rows: tuple[str, ...]) -> list[str]:
    """The first of these commands whose program this host has."""
    for row in rows:
        if host.which(row[0]):
            return list(row)
    names = ", ".join(row[0] for row in rows)
    raise HostUnsuitable(f"this host has none of {names}", hint="install the package shadow-utils or passwd")


class Grouped(Quiet):
    """SystemGroup."""

    def before(self, step: SystemGroup, ctx: Context) -> Record | None:
        """Whether there is no such group, here or in the host's directory service."""
        if ctx.host.group(step.name):
            return None
        _tool(ctx.host, ("groupdel",), ("delgroup",))
        return {}

    def apply(self, step: SystemGroup, ctx: Context) -> None:
        """The group is there."""
        ctx.host.run(_tool(ctx.host, ("groupadd", "-r", step.name), ("addgroup", "-S", step.name)))
        if ctx.host.group(step.name) is None:
            raise HostUnsuitable(f"the group {step.name} was made, and yet is not there")

    def undo(self, step: SystemGroup, record: Record, ctx: Context) -> None:  # noqa: ARG002
        """There is no such group, as there was none."""
        if ctx.host.group(step.name):
            ctx.host.run(_tool(ctx.host, ("groupdel", step.name), ("delgroup", step.name)))


class Employed(Quiet):
    """SystemUser."""

    def before(self, step: SystemUser, ctx: Context) -> Record | None:
        """Whether there is no such user, here or in the host's directory service."""
        if ctx.host.user(step.name):
            return None
        _tool(ctx.host, ("userdel",), ("deluser",))
        return {"group": ctx.host.group(step.name) is not None}

    def apply(self, step: SystemUser, ctx: Context) -> None:
        """The user is there, with a group of the same name; nobody can log in as it."""
        host = ctx.host
        if host.group(step.name) is None:
            host.run(_tool(host, ("groupadd", "-r", step.name), ("addgroup", "-S", step.name)))
        home, shell = "/nonexistent", host.which("nologin") or "/bin/false"
        host.run(
            _tool(
                host,
                ("useradd", "-r", "-M", "-d", home, "-s", shell, "-g", step.name, step.name),
                ("adduser", "-S", "-D", "-H", "-h", home, "-s", shell, "-G", step.name, step.name),
            )
        )
        if host.user(step.name) is None:
            raise HostUnsuitable(f"the user {step.name} was made, and yet is not there")

    def undo(self, step: SystemUser, record: Record, ctx: Context) -> None:
        """There is no such user, as there was none; nor its group, unless that was there before."""
        host = ctx.host
        if host.user(step.name):
            host.run(_tool(host, ("userdel", step.name), ("deluser", step.name)))
        if not record["group"] and host.group(step.name):
            host.run(_tool(host, ("groupdel", step.name), ("delgroup", step.name)))


class Joined(Quiet):
    """GroupMember."""

    def before(self, step: GroupMember, ctx: Context) -> Record | None:
        """Whether the user is not in the group, neither as a member nor by its own group."""
        user = ctx.host.user(step.user)
        if user is None:
            raise HostUnsuitable(f"there is no user {step.user} on this host", hint=f"useradd {step.user}, or leave it out")
        group = ctx.host.group(step.group)
        if group and (step.user in group.members or user.gid == group.gid):
            return None
        return {}

    def apply(self, step: GroupMember, ctx: Context) -> None:
        """The user is in the group; sessions that are open learn of it when they log in again."""
        # gpasswd knows users from LDAP as well, usermod does not; and it can take one out again.
        ctx.host.run(_tool(ctx.host, ("gpasswd", "-a", step.user, step.group), ("addgroup", step.user, step.group)))

    def undo(self, step: GroupMember, record: Record, ctx: Context) -> None:  # noqa: ARG002
        """The user is not in the group, as before."""
        group = ctx.host.group(step.group)
        if group and step.user in group.members:
            ctx.host.run(_tool(ctx.host, ("gpasswd", "-d", step.user, step.group), ("delgroup", step.user, step.group)))
