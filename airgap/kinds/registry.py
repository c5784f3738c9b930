"""The site registry: the bundled distribution as a service, holding every image of the bundle under the names Dockerfiles use.

It runs as a plain program taken out of its image, not as a container: it is there before Docker is, stays while the engine is
replaced, and needs neither the image's configuration path nor its environment, both of which changed between 2.x and 3.x
(upstream.md 5.4). Beside it a second address answers what the first one lacks: see `absent`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from airgap.kinds.site import CURRENT, Site
from airgap.kinds.want import ImageWant, Want
from airgap.manifest import Manifest
from airgap.oci import Reference
from airgap.steps import PlaceImageFiles, ServeImage, Service, Step, SystemUser, WriteFile

NAME = "registry"

USER = "airgap-registry"
ROOT = "/var/lib/airgap-registry"
CONFIG = "/etc/airgap/registry.yml"
UNIT = "/etc/systemd/system/airgap-registry.service"
ABSENT_SOCKET = "/etc/systemd/system/airgap-absent.socket"
ABSENT_SERVICE = "/etc/systemd/system/airgap-absent@.service"
PRIVILEGED = 1024
ABSENT = 399


def wants(manifest: Manifest) -> Iterator[Want]:
    """The registry's own image, for the platforms of the site's hosts."""
    if manifest.registry:
        yield ImageWant(kinds=(NAME,), reference=manifest.registry.image, platforms=frozenset(manifest.platforms), strict=True)


def steps(site: Site) -> Iterator[Step]:
    """The program, its user, its configuration, what it serves, and its services."""
    asked = site.manifest.registry
    if asked is None or asked.image not in site.images:
        return  # the preflight refuses a bundle that lacks it
    image = site.images[asked.image]
    program = f"{site.generation}/registry/registry"
    absent_script = f"{site.generation}/registry/absent"
    yield SystemUser(USER)
    yield PlaceImageFiles(
        reference=image.reference,
        manifest=image.manifest.digest,
        members=(("/bin/registry", program),),
        platform=site.facts.platform,
    )
    yield WriteFile(path=CONFIG, text=configuration(site))
    yield WriteFile(path=absent_script, text=absent(), mode=0o755)
    yield WriteFile(path=UNIT, text=unit(site))
    yield WriteFile(path=ABSENT_SOCKET, text=absent_socket(site))
    yield WriteFile(path=ABSENT_SERVICE, text=absent_service())
    for item in site.lock.images:
        yield ServeImage(
            root=ROOT,
            owner=USER,
            repository=repository(item.reference),
            tag=item.reference.tag,
            top=item.root,
            manifests=item.manifests,
            size=item.size,
        )
    yield Service(name="airgap-registry.service", program=f"{CURRENT}/registry/registry", files=(UNIT, CONFIG))
    yield Service(name="airgap-absent.socket", files=(ABSENT_SOCKET, ABSENT_SERVICE))


def repository(reference: Reference) -> str:
    """Where an image stands in the site's registry: Docker Hub's at their own names, others below their registry's name.

    The daemon's mirrors can only be a domain root, so Hub's images need it; a path for each other registry keeps two images of
    one name apart. A port's colon may not stand in a repository, so it becomes a dash.
    """
    if reference.registry == "docker.io":
        return reference.repository
    return f"{reference.registry.replace(':', '-').lower()}/{reference.repository}"


def configuration(site: Site) -> str:
    """distribution's configuration, read alike by 2.x and 3.x. No descriptor cache: airgap adds images to its storage while it runs."""
    asked = site.manifest.registry
    if asked is None:
        return ""
    lines = [
        "# Written by airgap; the next install writes it again.",
        "version: 0.1",
        "log: {level: warn, accesslog: {disabled: true}}",
        "storage:",
        f"  filesystem: {{rootdirectory: {ROOT}}}",
        "  delete: {enabled: true}",
        "http:",
        f'  addr: "{asked.listen}"',
        "  headers: {X-Content-Type-Options: [nosniff]}",
    ]
    if asked.tls:
        lines += ["  tls:", f'    certificate: "{asked.tls.cert}"', f'    key: "{asked.tls.key}"']
    if not asked.image.tag.startswith("2"):
        # Pushed indexes may name platforms that this site does not have; 2.x has no such switch (upstream.md 5.4).
        lines += ["validation:", "  manifests: {indexes: {platforms: none}}"]
    return "\n".join(lines) + "\n"


def unit(site: Site) -> str:
    """The registry's service: its own user, nothing of the host writable but its storage."""
    asked = site.manifest.registry
    low = asked is not None and asked.port < PRIVILEGED
    # Ambient capabilities came with systemd 229; before, only root can listen on such a port.
    capability = "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" if low and site.facts.systemd >= 229 else ""
    user = "" if low and site.facts.systemd < 229 else f"User={USER}\nGroup={USER}\n"
    return f"""\
# Written by airgap; the next install writes it again. Put changes of your own into airgap-registry.service.d/.
[Unit]
Description=Site registry (airgap)
Documentation=https://distribution.github.io/distribution/
After=network.target
Before=docker.service

[Service]
{user}{capability}# 3.0.0 looks for a collector of traces on localhost otherwise (distribution/distribution#4270).
Environment=OTEL_TRACES_EXPORTER=none
ExecStart={CURRENT}/registry/registry serve {CONFIG}
Restart=always
RestartSec=2
LimitNOFILE=65536
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""


# ---- what the site lacks ---------------------------------------------------------------------------------------------
#
# BuildKit and containerd always append the real upstream to a registry's mirrors. Behind an air gap an image that no mirror has
# then becomes a dial timeout of 30 seconds that blames docker.io. A mirror's 404 sends them on; so does a 4xx or 5xx. A 3xx that
# names no place to go to ends the search at once, and the status line stands in the error that the user reads (containerd
# core/remotes/docker/resolver.go: "trying next host" only for 404 and above 399). So the last mirror is one that says just that.


def absent() -> str:
    """The answer of the last mirror, for one connection on standard input and output: POSIX sh, no program of ours needed."""
    return """\
#!/bin/sh
# Written by airgap: answers for images that the site's registry does not have, so that builds fail at once and say why.
LC_ALL=C
IFS=' ' read -r method target _ || exit 0
# Read the request's head to its end: a connection that is closed with unread bytes is reset.
while IFS= read -r line; do
    case $line in '' | "$(printf '\\r')") break ;; esac
done
path=${target%%\\?*}
query=${target#"$path"}
answer() {
    printf 'HTTP/1.1 %s\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\nDocker-Distribution-Api-Version: registry/2.0\\r\\n\\r\\n' "$1"
    exit 0
}
case $path in
/v2 | /v2/) answer '200 OK' ;;
/v2/*/manifests/*) ;;
*) answer '404 Not Found' ;;
esac
name=${path#/v2/}
tag=${name##*/manifests/}
name=${name%/manifests/*}
registry=docker.io
case $query in *ns=*) registry=${query#*ns=} registry=${registry%%&*} ;; esac
case $tag in sha256:*) mark=@ ;; *) mark=: ;; esac
case $name in "$registry"/*) name=${name#"$registry"/} ;; esac
# What was asked for goes into a line of the answer: nothing but what names are made of.
image=$(printf '%s' "$registry/$name$mark$tag" | tr -cd 'A-Za-z0-9._:/@-' | cut -c1-300)
answer "399 $image is not on this site: add it to images: of the next bundle (airgap lint lists all that is missing)"
"""


def absent_socket(site: Site) -> str:
    """Listens beside the registry, at the next port."""
    asked = site.manifest.registry
    host = asked.listen.rpartition(":")[0] if asked else ""
    return f"""\
# Written by airgap; the next install writes it again.
[Unit]
Description=Answers for images that the site registry lacks (airgap)

[Socket]
ListenStream={host}:{asked.port + 1 if asked else 0}
Accept=yes
MaxConnections=256

[Install]
WantedBy=sockets.target
"""


def absent_service() -> str:
    """One connection."""
    return f"""\
# Written by airgap; the next install writes it again.
[Unit]
Description=Answer for an image that the site registry lacks (airgap)

[Service]
User={USER}
ExecStart=-/bin/sh {shlex.quote(f"{CURRENT}/registry/absent")}
StandardInput=socket
StandardOutput=socket
StandardError=journal
TimeoutStartSec=10
"""
