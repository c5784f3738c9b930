"""buildx builders: made for every user who will use them, with an explicit image and a generated buildkitd.toml."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace

from airgap.kinds.site import CLI_PLUGINS, CURRENT, Site
from airgap.kinds.want import ImageWant, Want
from airgap.manifest import BuilderAsk, BuilderRegistryAsk, Manifest
from airgap.oci import Reference
from airgap.steps import Builder, Step, TagImage, WriteFile

NAME = "builder"

FAST_REFUSAL = "127.0.0.1:1"
"""buildx always tries to pull first and falls back to the local image of the same name. On a network that drops packets that
takes half a minute a builder; from this address the refusal comes at once, whatever the network does."""

DEFAULT_NAME = Reference("docker.io", "moby/buildkit", "buildx-stable-1")


def wants(manifest: Manifest) -> Iterator[Want]:
    """The BuildKit images, for the platforms of the site's hosts."""
    for reference in sorted({item.image for item in manifest.builders}):
        yield ImageWant(kinds=(NAME,), reference=reference, platforms=frozenset(manifest.platforms), strict=True)


def local_name(reference: Reference) -> Reference:
    """The name under which a builder asks for its image: same repository and tag, at an address that refuses at once."""
    tag = reference.tag or (f"sha256-{reference.digest.hex[:12]}" if reference.digest else "latest")
    return Reference(FAST_REFUSAL, reference.repository, tag)


def steps(site: Site) -> Iterator[Step]:
    """The BuildKit images under all their names, the configuration files, and the builders."""
    if not site.manifest.builders or any(item.image not in site.images for item in site.manifest.builders):
        return  # the preflight refuses a bundle that lacks one
    for reference in sorted({item.image for item in site.manifest.builders}):
        image = site.images[reference]
        yield image.load()
        yield TagImage(local_name(reference), image.name, image.ids)
    # What `docker buildx create` without any option will ask for, so that users' own builders boot too.
    first = site.images[site.manifest.builders[0].image]
    if DEFAULT_NAME not in {item.image for item in site.manifest.builders}:
        yield TagImage(DEFAULT_NAME, first.name, first.ids)
    for item in site.manifest.builders:
        item = pointed(site, item)  # noqa: PLW2901 - from here on, the builder as this site needs it
        text = buildkitd_toml(item)
        path = f"/etc/airgap/builders/{item.name}.toml"
        yield WriteFile(path=path, text=text)
        for user in item.users or site.users:
            yield _builder(site, item, user=user, path=path, text=text)


def pointed(site: Site, item: BuilderAsk) -> BuilderAsk:
    """The builder with the site's registry as the first mirror of every registry that the bundle has images of.

    What the manifest says of a registry by itself stays as it is. The last mirror answers for images that the site lacks, before
    BuildKit dials an upstream that cannot be reached. Such a builder shares the host's network unless it is told otherwise:
    names that the host resolves are then resolved in builds, too, and the loopback is the host's.
    """
    asked = site.manifest.registry
    if asked is None:
        return item
    depot, absent = site.depot, site.absent
    hosts = {"docker.io", *(image.reference.registry for image in site.lock.images)} - {depot}
    found = {
        host: BuilderRegistryAsk(mirrors=(depot if host == "docker.io" else f"{depot}/{host.replace(':', '-').lower()}", absent))
        for host in hosts
    }
    found[depot] = BuilderRegistryAsk(ca=asked.tls.ca) if asked.tls else BuilderRegistryAsk(http=True)
    found[absent] = BuilderRegistryAsk(http=True)
    return replace(item, network=item.network or "host", registries={**found, **item.registries})


def _builder(site: Site, item: BuilderAsk, *, user: str, path: str, text: str) -> Builder:
    image = site.images[item.image]
    words = create_words(item, config=path, buildx=buildx_version(site))
    fingerprint = hashlib.sha256(json.dumps([words, text, str(image.config)]).encode()).hexdigest()[:16]
    return Builder(
        user=user,
        name=item.name,
        buildx=buildx_command(site),
        arguments=(*words, "--driver-opt", f"env.AIRGAP_FINGERPRINT={fingerprint}"),
        fingerprint=fingerprint,
        image_ids=image.ids,
        use=item.use,
    )


def buildx_command(site: Site) -> tuple[str, ...]:
    """How buildx is called here. The plugin itself, not `docker buildx`: an older copy in a home folder would shadow it."""
    if "buildx" in site.manifest.plugins:
        return (f"{CURRENT}/cli-plugins/docker-buildx",)
    return (f"{CLI_PLUGINS}/docker-buildx",)


def buildx_version(site: Site) -> tuple[int, int]:
    """Major and minor version of the bundle's buildx; the newest spelling if it brings none."""
    artifact = site.file("plugin", "buildx")
    if artifact is None:
        return (99, 0)
    major, minor = artifact.version.split(".")[:2]
    return (int(major), int(minor))


def create_words(item: BuilderAsk, *, config: str, buildx: tuple[int, int]) -> tuple[str, ...]:
    """The options of `buildx create` for this builder, as this buildx spells them (upstream.md 2.3)."""
    options = {"image": str(local_name(item.image)), **item.driver_opts}
    if item.network:
        options["network"] = item.network
    words = ["--driver", "docker-container"]
    for key, value in sorted(options.items()):
        # Options are read as CSV: a value with a comma or a quote needs quotes round the whole field.
        field = f"{key}={value}"
        if any(char in field for char in ',"'):
            field = '"' + field.replace('"', '""') + '"'
        words += ["--driver-opt", field]
    flags = [*item.flags, *(f"--allow-insecure-entitlement {name}" for name in item.entitlements)]
    if flags:
        words += ["--buildkitd-flags", " ".join(flags)]
    words += ["--buildkitd-config" if buildx >= (0, 13) else "--config", config]
    if item.platforms:
        words += ["--platform", ",".join(str(platform) for platform in item.platforms)]
    return tuple(words)


def buildkitd_toml(item: BuilderAsk) -> str:
    """buildkitd's configuration: one table a registry, since BuildKit reads a mirror's http, insecure and ca from its own."""
    lines = ["# Written by airgap; the next install writes it again."]
    for host, ask in sorted(item.registries.items()):
        lines += ["", f"[registry.{_quoted(host)}]"]
        if ask.mirrors:
            lines.append(f"  mirrors = [{', '.join(_quoted(mirror) for mirror in ask.mirrors)}]")
        if ask.http:
            lines.append("  http = true")
        if ask.insecure:
            lines.append("  insecure = true")
        if ask.ca:
            lines.append(f"  ca = [{_quoted(ask.ca)}]")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text)
