"""The command line: parse, wire the collaborators, call one verb, leave with its exit code.

The only importer of click, the only place where errors become exit codes, and the only one that looks at the environment. What a verb needs
is imported inside its command: `--help` must not pay for the docker SDK.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from airgap import errors
from airgap.console import Console, size_text, table
from airgap.machine.signals import ending

if TYPE_CHECKING:
    from airgap.lock import Lock
    from airgap.manifest import Manifest
    from airgap.online.resolve import Online

F = TypeVar("F", bound=Callable[..., Any])


class _Settings:
    """The common options of one run."""

    def __init__(self) -> None:
        self.as_json = self.verbose = self.quiet = False
        self.sources: Path | None = None

    def console(self) -> Console:
        return Console(out=sys.stdout, err=sys.stderr, as_json=self.as_json, quiet=self.quiet, verbose=self.verbose)


def run(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code of design.md."""
    settings = _Settings()
    # `--json` must hold even for usage errors, which come before any option is read.
    settings.as_json = "--json" in argv
    try:
        code = main.main(args=list(argv), prog_name="airgap", standalone_mode=False, obj=settings)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as cause:
        click.echo(cause.ctx.get_help() if cause.ctx else "", err=True)
        return errors.UsageError.exit_code
    except click.ClickException as cause:
        hint = f"{cause.ctx.command_path} --help" if isinstance(cause, click.UsageError) and cause.ctx else "airgap --help"
        settings.console().error(errors.UsageError(cause.format_message(), hint=f"see `{hint}`"))
        return errors.UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        settings.console().error(errors.Interrupted("interrupted", hint="run the same command again to go on"))
        return errors.Interrupted.exit_code
    except errors.AirgapError as cause:
        settings.console().error(cause)
        return cause.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`airgap inspect … | head`): nothing to report and nobody to report it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as cause:  # noqa: BLE001 - the last line of defence: users never see a traceback
        return _bug(cause, settings)


def _bug(cause: Exception, settings: _Settings) -> int:
    if os.environ.get("AIRGAP_TRACEBACK"):
        raise cause
    trace = cause.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    report = errors.AirgapError(
        f"a bug in airgap: {type(cause).__name__}: {cause} ({place})",
        hint="please report it; AIRGAP_TRACEBACK=1 shows where it happened",
    )
    settings.console().error(report)
    return errors.BUG


def _voice(function: F) -> F:
    """The options that stand before the verb or behind it, as people type them."""
    for option in (
        click.option("--no-color", is_flag=True, help="Plain text (airgap prints no colours yet; kept for scripts)."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing on the way."),
        click.option("-v", "--verbose", is_flag=True, help="Say more."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object per line; the last is the result."),
    ):
        function = option(function)
    return function


def _heed(*, as_json: bool, verbose: bool, quiet: bool) -> _Settings:
    settings: _Settings = click.get_current_context().obj
    settings.as_json |= as_json
    settings.verbose |= verbose
    settings.quiet |= quiet
    return settings


def _common(function: F) -> F:
    """The options that every verb takes; the verb gets the console they ask for."""

    @wraps(function)
    def wrapped(*, as_json: bool, verbose: bool, quiet: bool, no_color: bool, **rest: Any) -> Any:  # noqa: ARG001
        return function(_heed(as_json=as_json, verbose=verbose, quiet=quiet).console(), **rest)

    return cast("F", _voice(wrapped))


_PATH = click.Path(path_type=Path)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask before containers are stopped.")
_manifest_option = click.option("-m", "--manifest", type=_PATH, help="What the site asks for. Default: the one built in.")
_sources_option = click.option("--sources", type=_PATH, help="YAML that says where upstreams are reached, instead of the manifest's.")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "AIRGAP", "max_content_width": 110},
    epilog="Exit codes: 0 done, 2 usage, 3 manifest, 4 lock, 5 cannot resolve, 6 cannot fetch, 10 not a bundle, 11 digest, 12 signature, "
    "20 host unsuitable, 21 step failed and put back, 22 putting back failed, 70 bug, 130 interrupted.",
)
@click.version_option(package_name="airgap", message="airgap %(version)s")
@_voice
def main(*, as_json: bool, verbose: bool, quiet: bool, no_color: bool) -> None:  # noqa: ARG001
    """Multi-platform Docker builds behind an air gap: one file in, and kept current.

    \b
    With internet:     airgap pack -m site.yaml
    Carry the file:    airgap verify bundles/airgap-buildfarm-202611241613.tar
    On the bare host:  tar -xf airgap-….tar install.sh && sh install.sh airgap-….tar
    """
    _heed(as_json=as_json, verbose=verbose, quiet=quiet)


# ---- with internet ---------------------------------------------------------------------------------------------------


@main.command(epilog="Example:  airgap lock -m site.yaml -o site.lock.json")
@_manifest_option
@_sources_option
@click.option("-o", "--output", type=_PATH, help="Where the lock goes. Default: beside the manifest, *.lock.json.")
@click.option("--serial", type=click.IntRange(min=1), help="The bundle's serial. Default: the minute, UTC; unchanged content keeps the old one.")
@click.option("--store", type=_PATH, help="Where fetched bytes are kept. Default: ~/.cache/airgap/store.")
@_common
def lock(
    console: Console, *, manifest: Path | None, sources: Path | None, output: Path | None, serial: int | None, store: Path | None
) -> None:
    """Resolve versions and tags to exact bytes, and say who vouches for them."""
    from airgap.document import write_atomic

    asked = _manifest(manifest)
    target = output or (manifest.with_suffix(".lock.json") if manifest else Path(f"{asked.name}.lock.json"))
    made = _resolve(console, asked, _online(console, asked, sources, store), serial=serial, known=target)
    write_atomic(target, made.dump())
    files, images = len(made.files), len(made.images)
    console.result(
        "lock",
        {"lock": str(target), "serial": made.serial, "files": files, "images": images},
        f"{target}: {files} files, {images} images, serial {made.serial}",
    )


@main.command(
    epilog="Examples:  airgap pack                        the built-in default manifest\n\n"
    "airgap pack -m site.yaml -o /media     your own\n\n"
    "airgap pack --locked site.lock.json    exactly these bytes again"
)
@_manifest_option
@_sources_option
@click.option("--locked", type=_PATH, help="Pack exactly what this lock says.")
@click.option("-o", "--output", type=_PATH, default=Path("bundles"), show_default=True, help="The folder that gets the bundle.")
@click.option("--serial", type=click.IntRange(min=1), help="The bundle's serial, with -m.")
@click.option("--store", type=_PATH, help="Where fetched bytes are kept. Default: ~/.cache/airgap/store.")
@_common
def pack(
    console: Console, *, manifest: Path | None, sources: Path | None, locked: Path | None, output: Path,
    serial: int | None, store: Path | None,
) -> None:  # fmt: skip
    """Fetch, check and write the one file."""
    from airgap.document import read_bounded, write_atomic
    from airgap.lock import Lock
    from airgap.manifest import Manifest
    from airgap.online.pack import pack as write

    if locked and (manifest or serial):
        raise click.UsageError("--locked says it all; leave out -m and --serial")
    if locked:
        made = Lock.parse(read_bounded(locked, error=errors.LockError), name=str(locked))
        online = _online(console, Manifest.from_json(made.manifest), sources, store)
    else:
        asked = _manifest(manifest)
        online = _online(console, asked, sources, store)
        known = output / f"{asked.name}.lock.json"
        made = _resolve(console, asked, online, serial=serial, known=known)
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(known, made.dump())
    started = time.monotonic()
    packed = write(made, online, folder=output)
    console.result(
        "pack",
        {"bundle": str(packed.path), "size": packed.size, "serial": made.serial, "blobs": packed.blobs},
        f"{packed.path}: {size_text(packed.size)}, {packed.blobs} blobs, serial {made.serial}, written in {time.monotonic() - started:.1f} s\n"
        f"carry it over, then:  tar -xf {packed.path.name} install.sh && sh install.sh {packed.path.name}",
    )


def _manifest(path: Path | None) -> Manifest:
    from airgap.document import read_bounded
    from airgap.manifest import Manifest, default_manifest

    if path is None:
        return Manifest.parse(default_manifest(), name="the built-in manifest")
    return Manifest.parse(read_bounded(path, error=errors.ManifestError, limit=1 << 20), name=str(path))


def _online(console: Console, asked: Manifest, sources: Path | None, store: Path | None) -> Online:
    from airgap.bundle.store import Store
    from airgap.document import read_bounded
    from airgap.machine.daemon import Daemon
    from airgap.machine.run import Runner
    from airgap.manifest import Sources
    from airgap.online.credentials import Credentials
    from airgap.online.notes import Notes
    from airgap.online.registry import Registry
    from airgap.online.resolve import Online
    from airgap.online.web import Web

    where = asked.sources
    if sources:
        where = where.overlaid(Sources.parse(read_bounded(sources, error=errors.ManifestError, limit=1 << 20), name=str(sources)))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Store(store or home / "airgap" / "store")
    runner = Runner()
    web = Web(store=place, progress=console)
    docker = os.environ.get("DOCKER_CONFIG")
    credentials = Credentials.load(Path(docker) / "config.json" if docker else None, runner)
    return Online(
        web=web,
        registry=Registry(web=web, credentials=credentials, hosts=where.registries),
        store=place,
        notes=Notes(place.root / "notes"),
        run=runner,
        daemon=Daemon(),
        progress=console,
        sources={"docker_static": where.docker_static, "github": where.github, "github_api": where.github_api},
    )


def _resolve(console: Console, asked: Manifest, online: Online, *, serial: int | None, known: Path) -> Lock:
    """The lock, with the serial given, or the known lock's if nothing else changed, or the minute."""
    from dataclasses import replace

    from airgap.document import read_bounded
    from airgap.lock import Lock
    from airgap.online.resolve import resolve

    before = Lock.parse(read_bounded(known, error=errors.LockError), name=str(known)) if known.exists() else None
    minute = int(time.strftime("%Y%m%d%H%M", time.gmtime()))
    made = resolve(asked, online, serial=serial or minute)
    if before and serial is None:
        if replace(made, serial=before.serial).dump() == before.dump():
            return before
        made = replace(made, serial=max(minute, before.serial + 1))
    return made


# ---- with the file ---------------------------------------------------------------------------------------------------


@main.command(epilog="Example:  airgap verify /media/cdrom/airgap-buildfarm-202611241613.tar")
@click.argument("bundles", type=_PATH, nargs=-1, required=True)
@_common
def verify(console: Console, *, bundles: tuple[Path, ...]) -> None:
    """Check every byte of a bundle, without unpacking, Docker or network."""
    from airgap.bundle.archive import Bundle
    from airgap.bundle.archive import verify as check

    for path in bundles:
        started = time.monotonic()
        with Bundle.at(path) as bundle:
            report = check(bundle, progress=console)
            seconds = time.monotonic() - started
            console.result(
                "verify",
                {"bundle": str(path), "name": bundle.lock.name, "serial": bundle.lock.serial, "blobs": report.blobs, "size": report.size},
                f"{path}: whole; {report.blobs} blobs, {size_text(report.size)}, {seconds:.1f} s; "
                f"{bundle.lock.name}, serial {bundle.lock.serial}",
            )


@main.command(epilog="Example:  airgap inspect -v airgap-buildfarm-202611241613.tar")
@click.argument("bundle", type=_PATH)
@_common
def inspect(console: Console, *, bundle: Path) -> None:
    """Say what is inside, from where, and who vouches for it. Reads the lock only; `verify` checks the rest."""
    from airgap.bundle.archive import Bundle
    from airgap.bundle.inspect import contents, tree

    with Bundle.at(bundle) as opened:
        rows = contents(opened.lock)
        shown = table(
            ("kind", "name", "version", "platform", "size", "voucher"),
            [(row.kind, row.name, row.version, row.platform, size_text(row.size), row.voucher) for row in rows],
            right=frozenset({4}),
        )
        title = f"{opened.lock.name}, serial {opened.lock.serial}, {size_text(bundle.stat().st_size)}"
        text = f"{title}\n\n{tree(opened)}" if console.verbose else f"{title}\n\n{shown}"
        facts = {"name": opened.lock.name, "serial": opened.lock.serial, "contents": [row.to_json() for row in rows]}
    console.result("inspect", facts, text)


# ---- on the host -----------------------------------------------------------------------------------------------------


@main.command(
    epilog="Examples:  airgap install airgap-buildfarm-202611241613.tar --plan\n\n"
    "airgap install airgap-buildfarm-202611241613.tar --engine keep"
)
@click.argument("bundle", type=_PATH)
@click.option("--plan", "plan_only", is_flag=True, help="Show every step and change nothing.")
@click.option("--engine", type=click.Choice(["auto", "keep", "replace"]), default="auto", show_default=True,
              help="What to do with an engine that is there.")  # fmt: skip
@click.option("--only", "only", metavar="KIND,…", help="Only these kinds: engine, plugin, emulation, image, builder.")
@click.option("--user", "users", multiple=True, metavar="NAME", help="A user who gets the builders too; may be given several times.")
@_yes_option
@click.option("--keep-unproven", is_flag=True, help="Leave the host changed even if the proof fails.")
@_common
def install(
    console: Console, *, bundle: Path, plan_only: bool, engine: str, only: str | None, users: tuple[str, ...], yes: bool,
    keep_unproven: bool,
) -> None:  # fmt: skip
    """Verify, plan, apply and prove; run again, it changes nothing."""
    from airgap.offline.install import Wishes
    from airgap.offline.install import install as apply

    wishes = Wishes(
        engine=engine, only=frozenset(item.strip() for item in only.split(",")) if only else frozenset(), users=users, plan_only=plan_only,
        keep_unproven=keep_unproven, confirm=_confirm(console, yes=yes), runtime=os.environ.get("AIRGAP_RUNTIME", ""),
    )  # fmt: skip
    with ending():
        report = apply(bundle, wishes, _host(), progress=console)
    console.result("install", report.to_json(), report.text(table))


_plan_option = click.option("--plan", "plan_only", is_flag=True, help="Show what would be taken back and change nothing.")


@main.command(epilog="Examples:  airgap rollback --plan\n\nairgap rollback --to 202608241613")
@click.option("--to", type=click.IntRange(min=1), metavar="SERIAL", help="Back to this serial. Default: the one before.")
@_plan_option
@_yes_option
@_common
def rollback(console: Console, *, to: int | None, plan_only: bool, yes: bool) -> None:
    """Take back the newest bundle: the host as it was before it."""
    from airgap.offline.rollback import rollback as back

    with ending():
        report = back(_host(), to=to, plan_only=plan_only, confirm=_confirm(console, yes=yes), progress=console)
    console.result("rollback", report.to_json(), report.text())


@main.command(epilog="Example:  airgap uninstall --plan")
@_plan_option
@_yes_option
@_common
def uninstall(console: Console, *, plan_only: bool, yes: bool) -> None:
    """Take back everything: the host as it was before airgap. Docker's data stay."""
    from airgap.offline.rollback import uninstall as back

    with ending():
        report = back(_host(), plan_only=plan_only, confirm=_confirm(console, yes=yes), progress=console)
    console.result("uninstall", report.to_json(), report.text())


@main.command(epilog="Example:  airgap receipt > site.receipt.json")
@_common
def receipt(console: Console) -> None:
    """Say what this host holds, for the next `airgap pack --since`."""
    from airgap.document import dump_json
    from airgap.offline.receipt import read

    found = read(_host())
    if found is None:
        raise errors.HostUnsuitable("airgap has installed nothing on this host", hint="airgap install BUNDLE")
    console.result("receipt", {"receipt": dict(found.document)}, dump_json(dict(found.document)).decode())


@main.command(epilog="Example:  airgap status --json")
@_common
def status(console: Console) -> None:
    """What is installed, and whether it runs."""
    from airgap.offline.status import status as look

    report = look(_host())
    console.result("status", report.to_json(), report.text(table))
    if not report.good:
        raise errors.HostUnsuitable("not everything that was installed runs", hint="airgap doctor says what to do")


@main.command(epilog="Example:  airgap doctor")
@_common
def doctor(console: Console) -> None:
    """Prove again that this host does what the bundle was for, and name the first thing to mend."""
    from airgap.offline.status import doctor as look

    report = look(_host(), progress=console)
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


def _host() -> Any:
    from airgap.machine.daemon import Daemon
    from airgap.machine.run import Runner
    from airgap.offline.host import Host

    return Host(run=Runner(), daemon=Daemon())
