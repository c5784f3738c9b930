"""The verbs that need nothing but the file: verify, inspect."""

from __future__ import annotations

import time
from pathlib import Path

import click

from airgap.cli.app import PATH, common, main
from airgap.console import Console, size_text, table


@main.command(epilog="Example:  airgap verify /media/cdrom/airgap-buildfarm-202611241613.tar")
@click.argument("bundles", type=PATH, nargs=-1, required=True)
@common
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
                {
                    "bundle": str(path), "name": bundle.lock.name, "serial": bundle.lock.serial,
                    "blobs": report.blobs, "size": report.size,
                },
                f"{path}: whole; {report.blobs} blobs, {size_text(report.size)}, {seconds:.1f} s; "
                f"{bundle.lock.name}, serial {bundle.lock.serial}",
            )


@main.command(epilog="Example:  airgap inspect -v airgap-buildfarm-202611241613.tar")
@click.argument("bundle", type=PATH)
@common
def inspect(console: Console, *, bundle: Path) -> None:
    """Say what is inside, from where, and who vouches for it. Reads the lock only; `verify` checks the rest."""
    from airgap.bundle.archive import Bundle
    from airgap.bundle.inspect import contents, tree
    from airgap.oci import Digest

    with Bundle.at(bundle) as opened:
        rows = contents(opened.lock)
        shown = table(
            ("kind", "name", "version", "platform", "size", "voucher"),
            [(row.kind, row.name, row.version, row.platform, size_text(row.size), row.voucher) for row in rows],
            right=frozenset({4}),
        )
        index = Digest.of(opened.index.data)
        title = f"{opened.lock.name}, serial {opened.lock.serial}, {size_text(bundle.stat().st_size)}\nindex.json  {index}"
        text = f"{title}\n\n{tree(opened)}" if console.verbose else f"{title}\n\n{shown}"
        facts = {"name": opened.lock.name, "serial": opened.lock.serial, "index": str(index), "contents": [row.to_json() for row in rows]}
    console.result("inspect", facts, text)
