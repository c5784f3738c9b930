"""The main job before the eyes of whoever runs it: every part in plain words, with its seconds.

    sh tests/demo.sh
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import runtime, site
from tests.lab.cache import cache_root, require_tools, why_not
from tests.lab.host import SiteHost, alone, bare_tree
from tests.lab.servers import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = site.HERE / "site.yaml"


class Story:
    """Prints what happens while it happens, and the table of times at the end."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        """One part of the way."""
        print(f"\n\N{BLACK RIGHT-POINTING POINTER} {title}", flush=True)
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.parts.append((title, seconds))
        print(f"  [{seconds:.1f} s]", flush=True)

    def say(self, text: str) -> None:
        """What came of it, indented."""
        for line in text.rstrip().splitlines():
            print(f"    {line}", flush=True)

    def end(self) -> None:
        """The table of times."""
        print("\nWhat took how long:")
        for title, seconds in self.parts:
            print(f"  {seconds:7.1f} s  {title}")
        print(f"  {sum(seconds for _, seconds in self.parts):7.1f} s  all of it")


def main() -> int:
    """The exit code: 0 if the whole way was gone."""
    if reason := why_not():
        print(f"the demo cannot run here: {reason}", file=sys.stderr)
        return 1
    story = Story()
    try:
        with ExitStack() as stack:
            stack.enter_context(alone())
            work = Path(tempfile.mkdtemp(prefix="demo-", dir=cache_root()))
            stack.callback(shutil.rmtree, work, ignore_errors=True)
            online(story, stack, work)
    except RuntimeError as cause:
        print(f"\nthis did not work:\n{cause}", file=sys.stderr)
        return 1
    story.end()
    return 0


def online(story: Story, stack: ExitStack, work: Path) -> None:
    """The machine with internet: pack, look, and over to the site."""
    require_tools()
    with story.part("A private Python for the host, compiled for glibc 2.17 (the first run takes 5 minutes, later ones find it)"):
        runtime.ensure("x86_64")
    with story.part("A bare Debian for the host (the first run takes a minute or two, later ones find it)"):
        bare_tree()
    with story.part("A small internet on this machine, made of Debian's packages (the first run fetches some 600 MB)"):
        upstream = stack.enter_context(Upstream(arches=("amd64",)))
        for name, places in {**upstream.sources, **upstream.sources["registries"]}.items():
            if isinstance(places, list):
                story.say(f"{name:14} {', '.join(places)}")
    disc = work / "disc"
    disc.mkdir()
    with story.part("airgap pack: everything the site asks for, into one file"):
        story.say(MANIFEST.read_text())
        bundle = site.packed(MANIFEST, upstream.sources_yaml(), home=work, disc=disc)
        size, fetched = bundle.stat().st_size / 1e6, sum(upstream.served.values()) / 1e6
        story.say(f"{bundle.name}: {size:.1f} MB; {fetched:.1f} MB were fetched")
    with story.part("airgap verify and airgap inspect: every byte checked, and what is inside"):
        story.say(site.airgap("verify", str(bundle), home=work).out)
        story.say(site.airgap("inspect", str(bundle), home=work).out)
    with story.part("A bare host boots: systemd, no Python, no Docker, a network that swallows every packet"):
        host = stack.enter_context(SiteHost(media=disc))
        look = "uname -srm; head -n 1 /etc/os-release; ls /media; command -v python3 docker || echo no Python, no Docker"
        story.say(host.sh(look).out)
    offline(story, host, bundle)


def offline(story: Story, host: SiteHost, bundle: Path) -> None:
    """The site: install, build, reboot, build, and back."""
    before = site.compared(host)
    with story.part("sh install.sh --plan: what would be done, and nothing is changed"):
        story.say(site.install(host, bundle, "--plan").out)
    with story.part("sh install.sh: engine, buildx, emulation, images, builders, and the proof that they work"):
        done = site.install(host, bundle)
        story.say(done.err + done.out)
    with story.part("The same again: nothing to do"):
        story.say(site.install(host, bundle).out)
    site.application(host)
    for builder in ("mybuilder", "mybuilder2"):
        with story.part(f"docker buildx build --builder {builder} --platform linux/amd64,linux/arm64: a site's own Dockerfile"):
            built(story, site.build(host, builder))
    with story.part("The host reboots; the kernel forgets its emulators, the unit brings them back"):
        had = host.emulation()
        host.power_off()
        lost = host.emulation()
        host.power_on()
        for when, there in {"before": had, "while it was off": lost, "after": host.emulation()}.items():
            story.say(f"{when}: {', '.join(sorted(there)) or 'none'}")
    with story.part("airgap status and airgap doctor"):
        story.say(host.run(["airgap", "status"], timeout=120).out)
        story.say(host.run(["airgap", "doctor"], timeout=300).out)
    with story.part("Build again"):
        built(story, site.build(host, "mybuilder"))
    with story.part("airgap rollback: the host as it was"):
        story.say(host.run(["airgap", "rollback"], timeout=300).out)
        story.say("not as before: " + ("; ".join(site.differences(before, site.compared(host))) or "nothing"))


def built(story: Story, machines: dict[str, str]) -> None:
    """What came of a build."""
    for platform, machine in machines.items():
        story.say(f"{platform}: its RUN step ran on {machine}")


if __name__ == "__main__":
    sys.exit(main())
