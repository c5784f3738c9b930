"""QEMU user emulation, registered with the kernel by a unit of ours that needs neither Docker nor a network.

Upstream's way is `docker run --privileged tonistiigi/binfmt --install …`: its exit code is 0 whatever happens, it is gone
after a reboot, and it cannot run before dockerd does (upstream.md 4). We take the same static emulators out of the same
image and write the registrations ourselves, under names of our own, so that nobody's entries are overwritten: the kernel
asks the newest entry first, and taking ours away brings the older one back.
"""

from __future__ import annotations

from collections.abc import Iterator

from airgap.elf import BY_ARCHITECTURE, binfmt_rule
from airgap.kinds.site import CURRENT, Site
from airgap.kinds.want import ImageWant, Want
from airgap.manifest import Manifest
from airgap.oci import Platform
from airgap.steps import PlaceImageFiles, Service, Step, WriteFile

NAME = "emulation"

UNIT = "/etc/systemd/system/airgap-emulation.service"
FIXED_BINARY = (4, 8)
"""Linux 4.8 brought flag F: the kernel opens the emulator when it is registered, so containers need not hold it."""
PRESERVE_ARGV0 = (5, 12)
"""Linux 5.12 tells the emulator (AT_FLAGS) that argv[0] was kept; before, flag P would shift the arguments."""


def wants(manifest: Manifest) -> Iterator[Want]:
    """The image with the emulators, for the platforms that will run them."""
    if manifest.emulation:
        yield ImageWant(
            kinds=(NAME,), reference=manifest.emulation.image, platforms=frozenset(manifest.platforms), strict=True
        )


def possible(site: Site) -> bool:
    """Whether this host's kernel can hold emulators for containers."""
    return site.facts.kernel >= FIXED_BINARY


def emulated(site: Site) -> tuple[Platform, ...]:
    """The platforms that this host needs emulators for: one an architecture, its own and what it runs anyway left out."""
    if site.manifest.emulation is None or not possible(site):
        return ()
    native = {site.facts.platform.architecture}
    if "amd64" in native:
        native.add("386")
    found = {item.architecture: item for item in sorted(site.manifest.emulation.platforms)}
    return tuple(item for architecture, item in sorted(found.items()) if architecture not in native)


def steps(site: Site) -> Iterator[Step]:
    """The emulators, the script that registers them, and the unit that runs it at every boot."""
    platforms = emulated(site)
    image = site.images.get(site.manifest.emulation.image) if site.manifest.emulation else None
    if not platforms or image is None:  # the preflight refuses a bundle that lacks it
        return
    names = [f"qemu-{BY_ARCHITECTURE[item.architecture].qemu}" for item in platforms]
    yield PlaceImageFiles(
        reference=image.reference,
        manifest=image.manifest.digest,
        members=tuple((f"/usr/bin/{name}", f"{site.generation}/emulation/{name}") for name in names),
        platform=site.facts.platform,
    )
    script = f"{site.generation}/emulation/register"
    yield WriteFile(path=script, text=registration(platforms, site.facts.kernel), mode=0o755)
    yield WriteFile(path=UNIT, text=unit())
    yield Service(
        name="airgap-emulation.service", files=(UNIT, script, *(f"{site.generation}/emulation/{name}" for name in names))
    )


def unit() -> str:
    """Registers at boot, before Docker and its builders look at what they can run."""
    return f"""\
# Written by airgap; the next install writes it again.
[Unit]
Description=QEMU emulation of foreign platforms (airgap)
After=systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
Before=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {CURRENT}/emulation/register
ExecStop=/bin/sh {CURRENT}/emulation/register --remove

[Install]
WantedBy=multi-user.target
"""


def registration(platforms: tuple[Platform, ...], kernel: tuple[int, int]) -> str:
    """The script of the unit. It fails if any platform could not be registered, and says which."""
    flags = "CFP" if kernel >= PRESERVE_ARGV0 else "CF"
    rows = []
    for item in platforms:
        magic, mask = binfmt_rule(item)
        qemu = f"qemu-{BY_ARCHITECTURE[item.architecture].qemu}"
        rows.append(f"entry airgap-{item.architecture} '{magic}' '{mask}' {qemu}")
    return f"""\
#!/bin/sh
# Written by airgap: registers QEMU for foreign platforms with the kernel; --remove takes the entries back.
set -u
registry=/proc/sys/fs/binfmt_misc
here=$(cd "$(dirname "$0")" && pwd -P) || exit 1
failed=0

entry() {{
    if [ -e "$registry/$1" ]; then
        echo -1 >"$registry/$1"
    fi
    [ "$remove" = no ] || return 0
    # One write, as the kernel wants it; it reads the \\x escapes itself.
    if ! printf ':%s:M::%s:%s:%s:{flags}' "$1" "$2" "$3" "$here/$4" >"$registry/register"; then
        echo "airgap: the kernel refused to register $4" >&2
        failed=1
    fi
}}

remove=no
[ "${{1:-}}" = --remove ] && remove=yes
# Reading through an untriggered autofs mounts it; registering through it is silently lost (tonistiigi/binfmt#288).
ls "$registry/" >/dev/null 2>&1
if [ ! -e "$registry/register" ]; then
    [ "$remove" = no ] || exit 0
    modprobe binfmt_misc 2>/dev/null
    mount -t binfmt_misc binfmt_misc "$registry" || exit 1
fi
{chr(10).join(rows)}
exit $failed
"""
