"""The verbs of the host: install, rollback, uninstall, status, doctor, receipt."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from airgap import errors
from airgap.cli.app import PATH, common, main
from airgap.console import Console, table
from airgap.machine.signals import ending

yes_option = click.option("--yes", is_flag=True, help="Do not ask before containers are stopped.")

@main.command(
    epilog="Examples:  airgap install airgap-buildfarm-202611241613.tar --plan\n\n"
    "airgap install airgap-buildfarm-202611241613.tar --engine keep"
)
@click.argument("bundle", type=PATH)
@click.option("--plan", "plan_only", is_flag=True, help="Show every step and change nothing.")
@click.option("--engine", type=click.Choice(["auto", "keep", "replace"]), default="auto", show_default=True,
              help="What to do with an engine that is there.")  # fmt: skip
@click.option("--only", "only", metavar="KIND,…", help="Only these kinds: registry, engine, plugin, emulation, image, builder.")
@click.option("--user", "users", multiple=True, metavar="NAME", help="A user who gets the builders too; may be repeated.")
@yes_option
@click.option("--keep-unproven", is_flag=True, help="Leave the host changed even if the proof fails.")
@common
def install(
    console: Console, *, bundle: Path, plan_only: bool, engine: str, only: str | None, users: tuple[str, ...], yes: bool,
    keep_unproven: bool,
) -> None:  # fmt: skip
    """Verify, plan, apply and prove; run again, it changes nothing."""
    from airgap.offline.install import Wishes
    from airgap.offline.install import install as apply

    wishes = Wishes(
        engine=engine, only=frozenset(item.strip() for item in only.split(",")) if only else frozenset(), users=users,
        plan_only=plan_only,
        keep_unproven=keep_unproven, confirm=_confirm(console, yes=yes), runtime=os.environ.get("AIRGAP_RUNTIME", ""),
    )  # fmt: skip
    with ending():
        report = apply(bundle, wishes, this_host(), progress=console)
    console.result("install", report.to_json(), report.text(table))


_plan_option = click.option("--plan", "plan_only", is_flag=True, help="Show what would be taken back and change nothing.")


@main.command(epilog="Examples:  airgap rollback --plan\n\nairgap rollback --to 202608241613")
@click.option("--to", type=click.IntRange(min=1), metavar="SERIAL", help="Back to this serial. Default: the one before.")
@_plan_option
@yes_option
@common
def rollback(console: Console, *, to: int | None, plan_only: bool, yes: bool) -> None:
    """Take back the newest bundle: the host as it was before it."""
    from airgap.offline.rollback import rollback as back

    with ending():
        report = back(this_host(), to=to, plan_only=plan_only, confirm=_confirm(console, yes=yes), progress=console)
    console.result("rollback", report.to_json(), report.text())


@main.command(epilog="Example:  airgap uninstall --plan")
@_plan_option
@yes_option
@common
def uninstall(console: Console, *, plan_only: bool, yes: bool) -> None:
    """Take back everything: the host as it was before airgap. Docker's data stay."""
    from airgap.offline.rollback import uninstall as back

    with ending():
        report = back(this_host(), plan_only=plan_only, confirm=_confirm(console, yes=yes), progress=console)
    console.result("uninstall", report.to_json(), report.text())


@main.command(epilog="Example:  airgap receipt > site.receipt.json")
@common
def receipt(console: Console) -> None:
    """Say what this host holds, for the next `airgap pack --since`."""
    from airgap.document import dump_json
    from airgap.offline.receipt import read

    found = read(this_host())
    if found is None:
        raise errors.HostUnsuitable("airgap has installed nothing on this host", hint="airgap install BUNDLE")
    console.result("receipt", {"receipt": dict(found.document)}, dump_json(dict(found.document)).decode())


@main.command(epilog="Example:  airgap status --json")
@common
def status(console: Console) -> None:
    """What is installed, and whether it runs."""
    from airgap.offline.status import status as look

    report = look(this_host())
    console.result("status", report.to_json(), report.text(table))
    if not report.good:
        raise errors.HostUnsuitable("not everything that was installed runs", hint="airgap doctor says what to do")


@main.command(epilog="Example:  airgap doctor")
@common
def doctor(console: Console) -> None:
    """Prove again that this host does what the bundle was for, and name the first thing to mend."""
    from airgap.offline.status import doctor as look

    report = look(this_host(), progress=console)
    console.result("doctor", report.to_json(), report.text(table))
    if not report.good:
        raise errors.HostUnsuitable("something does not work; see above")


def _confirm(console: Console, *, yes: bool) -> Callable[[str], bool]:
    def ask(question: str) -> bool:
        if yes:
            return True
        if console.as_json or not sys.stdin.isatty():
            return False
        return click.confirm(question, err=True)

    return ask


def this_host() -> Any:
    """The host that we run on, with its own programs and its own engine."""
    from airgap.machine.daemon import Daemon
    from airgap.machine.run import Runner
    from airgap.offline.host import Host

    return Host(run=Runner(), daemon=Daemon())
