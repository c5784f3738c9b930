"""The Docker engine from upstream's static binaries, under our own unit.

One unit and no more: dockerd starts its own containerd from PATH and keeps everything below its data-root. Upstream's
pair of units would put image data elsewhere (upstream.md 1.6) and needs a socket unit that fails where the group is
missing. The exception is a host on which somebody else's containerd listens at its well-known socket: dockerd would use
that one, whatever its version, so there it gets a containerd of its own by a second unit.
"""

from __future__ import annotations

from collections.abc import Iterator

from airgap import upstreams
from airgap.document import Json
from airgap.kinds.site import BIN, CURRENT, Site
from airgap.kinds.want import Borne, FileWant, Place, Want
from airgap.manifest import Manifest
from airgap.oci import Reference
from airgap.steps import GroupMember, Link, MergeJson, PlaceFiles, Service, Step, SystemGroup, WriteFile

NAME = "engine"

DAEMON_JSON = "/etc/docker/daemon.json"
UNIT = "/etc/systemd/system/docker.service"
CONTAINERD_UNIT = "/etc/systemd/system/docker-containerd.service"
CONTAINERD_SOCKET = "/run/docker-containerd/containerd.sock"
CONTAINERD_CONFIG = "/etc/docker/containerd.toml"
KEPT_KEYS = ("insecure-registries", "registry-mirrors")


def wants(manifest: Manifest) -> Iterator[Want]:
    """The static tarball for every platform of the site."""
    if manifest.engine is None or manifest.engine.version is None:
        return
    version = manifest.engine.version
    for platform in manifest.platforms:
        places = tuple(Place("docker_static", path) for path in upstreams.engine_candidates(version, platform))
        required, optional = upstreams.engine_members(version)
        yield FileWant(
            kind=NAME,
            name="docker",
            version=version,
            platform=platform,
            places=places,
            # None published so far, but docker/packaging writes them since August 2026 (upstream.md 1.4).
            checksums=tuple(Place("docker_static", f"{place.path}.sha256") for place in places),
            form="tgz",
            shape="engine",
            members=tuple(f"docker/{name}" for name in required),
            borne=(
                Borne(
                    Reference("docker.io", "library/docker", f"{version}-dind"),
                    tuple((f"docker/{name}", f"/usr/local/bin/{name}") for name in (*required, *optional)),
                ),
            ),
            listing=Place("docker_static", places[0].path.rsplit("/", 1)[0] + "/"),
        )


def steps(site: Site) -> Iterator[Step]:
    """Our engine where it is to be installed; where one is kept, only its configuration."""
    daemon = configuration(site)
    if daemon:
        yield MergeJson(DAEMON_JSON, daemon)
    if not site.replace:
        if daemon and site.facts.engine and site.facts.engine.service:
            yield Service(name=site.facts.engine.service, files=(DAEMON_JSON,))
        return
    artifact = site.file(NAME, "docker")
    if artifact is None:
        return
    folder = f"{site.generation}/engine"
    required, optional = upstreams.engine_members(artifact.version)
    yield SystemGroup("docker")
    for user in site.users[1:]:
        yield GroupMember("docker", user)
    yield PlaceFiles(
        content=artifact.content.digest,
        size=artifact.content.size,
        members=tuple((f"docker/{name}", f"{folder}/{name}") for name in (*required, *optional)),
        platform=site.facts.platform,
        optional=tuple(f"docker/{name}" for name in optional),
    )
    for name in ("docker", "dockerd"):
        yield Link(f"{BIN}/{name}", f"{CURRENT}/engine/{name}")
    own_containerd = site.facts.foreign_containerd
    if own_containerd:
        root = daemon.get("data-root", "/var/lib/docker")
        yield WriteFile(path=CONTAINERD_CONFIG, text=_containerd_toml(site.engine_version, root))
        yield WriteFile(path=CONTAINERD_UNIT, text=_containerd_unit(site.facts.systemd))
        yield Service(
            name="docker-containerd.service",
            program=f"{CURRENT}/engine/containerd",
            files=(CONTAINERD_UNIT, CONTAINERD_CONFIG),
        )
    yield WriteFile(path=UNIT, text=unit(site.facts.systemd, own_containerd=own_containerd))
    for name in site.facts.sockets:
        # A package's docker.socket would take /run/docker.sock away from our dockerd at the next boot: masked.
        yield Link(f"/etc/systemd/system/{name}", "/dev/null")
    yield Service(
        name="docker.service",
        program=f"{CURRENT}/engine/dockerd",
        files=(UNIT, DAEMON_JSON) if daemon else (UNIT,),
        sockets=site.facts.sockets,
    )


def configuration(site: Site) -> dict[str, Json]:
    """What daemon.json has to say here.

    An engine that is kept although the manifest asks for one of its own is told of the site's registries and no more: a
    data-root or bip that was meant for a new engine would take an old one's images and networks away.
    """
    asked = site.manifest.engine
    daemon = dict(asked.daemon) if asked else {}
    if site.depot:
        secure = site.manifest.registry is not None and site.manifest.registry.tls is not None
        # Docker Hub's images only: an engine knows mirrors for no other registry. The last one answers for what the site lacks.
        mirrors = [f"{'https' if secure else 'http'}://{site.depot}", f"http://{site.absent}"]
        daemon["registry-mirrors"] = [*daemon.get("registry-mirrors", []), *mirrors]
        if not secure:
            daemon["insecure-registries"] = [*daemon.get("insecure-registries", []), site.depot]
    if not site.replace:
        if asked is None or asked.keep:
            return daemon
        return {key: value for key, value in daemon.items() if key in KEPT_KEYS}
    if (18, 9) <= site.engine_version < (20, 10):
        # `--platform` of pull and run is experimental in these engines, and daemons must be told so.
        daemon.setdefault("experimental", True)
    return daemon


def _limits(systemd: int) -> tuple[str, str]:
    """What goes to [Unit] and to [Service]: systemd 229 and 230 moved and renamed the start limits, 226 brought TasksMax."""
    if systemd >= 230:
        return "StartLimitBurst=3\nStartLimitIntervalSec=60\n", "TasksMax=infinity\n"
    return "", "StartLimitBurst=3\nStartLimitInterval=60s\n" + ("TasksMax=infinity\n" if systemd >= 226 else "")


def unit(systemd: int, *, own_containerd: bool) -> str:
    """The unit of dockerd for this systemd. It names no -H, so that `hosts` in daemon.json may; PATH finds runc and the shims."""
    in_unit, in_service = _limits(systemd)
    after = "network-online.target firewalld.service" + (" docker-containerd.service" if own_containerd else "")
    flag = f" --containerd {CONTAINERD_SOCKET}" if own_containerd else ""
    requires = "Requires=docker-containerd.service\n" if own_containerd else ""
    return f"""\
# Written by airgap; the next install writes it again. Put changes of your own into docker.service.d/.
[Unit]
Description=Docker engine (airgap)
Documentation=https://docs.docker.com
After={after}
Wants=network-online.target
{requires}{in_unit}
[Service]
Type=notify
Environment=PATH={CURRENT}/engine:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart={CURRENT}/engine/dockerd{flag}
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutStartSec=0
Restart=always
RestartSec=2
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
Delegate=yes
KillMode=process
OOMScoreAdjust=-500
{in_service}
[Install]
WantedBy=multi-user.target
"""


def _containerd_unit(systemd: int) -> str:
    in_unit, in_service = _limits(systemd)
    return f"""\
# Written by airgap: another containerd was found on this host, so Docker gets its own.
[Unit]
Description=containerd for Docker (airgap)
After=network.target local-fs.target
{in_unit}
[Service]
Type=notify
Environment=PATH={CURRENT}/engine:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart={CURRENT}/engine/containerd --config {CONTAINERD_CONFIG} --address {CONTAINERD_SOCKET}
Restart=always
RestartSec=5
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
Delegate=yes
KillMode=process
OOMScoreAdjust=-999
{in_service}
[Install]
WantedBy=multi-user.target
"""


def _containerd_toml(engine: tuple[int, int], data_root: str) -> str:
    """containerd 1.2 (engine 18.09) reads only the old form; 1.3 and later read version 2; the plugin's name went along."""
    head = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]' if engine >= (19, 0) else 'disabled_plugins = ["cri"]'
    return f'{head}\nroot = "{data_root}/containerd/daemon"\nstate = "/run/docker-containerd/state"\n'
