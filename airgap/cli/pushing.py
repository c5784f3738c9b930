"""The verb that fills a registry which the site already has: push."""

from __future__ import annotations

import os
from pathlib import Path

import click

from airgap.cli.app import PATH, common, main
from airgap.console import Console, size_text, table
from airgap.machine.signals import ending


@main.command(
    epilog="Examples:  airgap push airgap-buildfarm-202611241613.tar harbor.xx.com/mirror --ca site-ca.pem\n\n"
    "airgap push airgap-buildfarm-202611241613.tar http://depot:5000"
)
@click.argument("bundle", type=PATH)
@click.argument("registry", metavar="REGISTRY[/PREFIX]")
@click.option("--ca", type=PATH, metavar="FILE", help="The registry's CA. Default: REQUESTS_CA_BUNDLE, docker's certs.d, the system.")
@click.option("--strict", is_flag=True, help="Fail rather than put anything but upstream's own digests under a tag.")
@common
def push(console: Console, *, bundle: Path, registry: str, ca: Path | None, strict: bool) -> None:
    """Put all images into a registry the site has, whole indexes included; again, it moves only what lacks.

    \b
    alpine:3.22        becomes  REGISTRY/PREFIX/library/alpine:3.22
    quay.io/org/tool:1 becomes  REGISTRY/PREFIX/quay.io/org/tool:1
    Logins are docker's (`docker login REGISTRY`). Plain HTTP only where http:// is written out.
    """
    from airgap.bundle.archive import Bundle
    from airgap.machine.run import Runner
    from airgap.online.credentials import Credentials
    from airgap.online.depot import Depot
    from airgap.online.exchange import Exchange
    from airgap.online.push import push as put
    from airgap.online.target import Target, certificates

    target = Target.parse(registry)
    trusted = certificates(target.host, given=ca, environment=os.environ)
    docker = os.environ.get("DOCKER_CONFIG")
    credentials = Credentials.load(Path(docker) / "config.json" if docker else None, Runner())
    # Registries that keep blobs in a cloud's storage answer only when they have moved the whole of a blob there.
    with ending(), Exchange(progress=console, stall=300, ca=trusted) as web, Bundle.at(bundle) as opened:
        report = put(opened, Depot(target, web=web, credentials=credentials), progress=console, strict=strict)
    forms = {"whole": "", "subset": "carried platforms only", "docker": "Docker's types"}
    rows = [(item.reference, item.name, str(item.digest), forms[item.form]) for item in report.images]
    console.result(
        "push",
        report.to_json(),
        f"{table(('image', 'is now', 'digest', ''), rows)}\n\n"
        f"{report.registry}: {len(report.images)} images; {report.pushed} blobs pushed ({size_text(report.size)}), "
        f"{report.mounted} mounted, {report.skipped} were there",
    )
