"""The group of all verbs, the options they share, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from airgap import errors
from airgap.console import Console

F = TypeVar("F", bound=Callable[..., Any])


class _Settings:
    """The common options of one run."""

    def __init__(self) -> None:
        self.as_json = self.verbose = self.quiet = False
        self.sources: Path | None = None

    def console(self) -> Console:
        # Python has None for a stream that was closed before it started (`>&-`).
        out, err = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
        return Console(out=out, err=err, as_json=self.as_json, quiet=self.quiet, verbose=self.verbose)


class _ReaderGone(Exception):
    """Our output has no reader any more. click would make an exit code of 1 of the BrokenPipeError itself."""


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
    except _ReaderGone:
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


def common(function: F) -> F:
    """The options that every verb takes; the verb gets the console they ask for."""

    @wraps(function)
    def wrapped(*, as_json: bool, verbose: bool, quiet: bool, no_color: bool, **rest: Any) -> Any:  # noqa: ARG001
        try:
            return function(_heed(as_json=as_json, verbose=verbose, quiet=quiet).console(), **rest)
        except BrokenPipeError as cause:
            raise _ReaderGone from cause

    return cast("F", _voice(wrapped))


PATH = click.Path(path_type=Path)
manifest_option = click.option("-m", "--manifest", type=PATH, help="What the site asks for. Default: the one built in.")
sources_option = click.option("--sources", type=PATH, help="YAML that says where upstreams are, instead of the manifest's.")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "AIRGAP", "max_content_width": 110},
    epilog="Exit codes: 0 done, 2 usage, 3 manifest, 4 lock, 5 cannot resolve, 6 cannot fetch, 10 not a bundle, 11 digest, "
    "12 signature, 20 host unsuitable, 21 step failed and put back, 22 putting back failed, 70 bug, 130 interrupted.",
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
