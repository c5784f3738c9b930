"""A manifest says what a site asks for; what is wrong with one is said with file, line, key, and what would be right."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airgap.errors import ManifestError
from airgap.manifest import (
    RUNTIME,
    UPSTREAM,
    BuilderAsk,
    BuilderRegistryAsk,
    EmulationAsk,
    EngineAsk,
    ImageAsk,
    Manifest,
    NodeAsk,
    RegistryAsk,
    RuntimeAsk,
    Sources,
    TlsAsk,
    default_manifest,
)
from airgap.oci import Platform, Reference

DESIGN = """\
airgap: 1
name: buildfarm
platforms: [linux/amd64, linux/arm64]          # the site's hosts
engine:    {version: "28.5.2",
            daemon: {data-root: /data/docker-data, bip: 174.26.0.1/16, insecure-registries: [harbor.xx.com]}}
plugins:   {buildx: "0.29.1", compose: "2.40.3"}
emulation: {image: "tonistiigi/binfmt:qemu-v10.0.4", platforms: [linux/arm64, linux/arm/v7, linux/riscv64]}
images:    ["docker/dockerfile:1.20", "alpine:3.22", {image: "golang:1.25", platforms: [linux/amd64, linux/arm64]},
            {daemon: "registry.local/app:7"}]
registry:  {image: "registry:3.0.0", listen: "0.0.0.0:5000", names: ["depot.site:5000"]}
builders:
  - {name: mybuilder, image: "moby/buildkit:v0.25.1", use: true, entitlements: [network.host],
     platforms: [linux/amd64, linux/arm64], registries: {"harbor.xx.com": {http: true}}, nodes: []}
"""
SHORT = "airgap: 1\nname: s\nplatforms: [linux/amd64]\n"
BUILDER = f"{SHORT}builders:\n  - name: b\n    image: moby/buildkit:v0.30.0\n"


def parse(text):
    return Manifest.parse(text if isinstance(text, bytes) else text.encode(), name="site.yaml")


def complaint(text):
    with pytest.raises(ManifestError) as caught:
        parse(text)
    return caught.value.message, caught.value.hint or ""


def platform(text):
    return Platform.parse(text)


def reference(text):
    return Reference.parse(text)


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_the_manifest_of_the_design_means_what_the_design_says():
    manifest = parse(DESIGN)
    assert manifest.name == "buildfarm"
    assert manifest.platforms == (platform("linux/amd64"), platform("linux/arm64"))
    assert manifest.engine == EngineAsk(
        "28.5.2", {"data-root": "/data/docker-data", "bip": "174.26.0.1/16", "insecure-registries": ["harbor.xx.com"]}
    )
    assert manifest.plugins == {"buildx": "0.29.1", "compose": "2.40.3"}
    assert manifest.emulation == EmulationAsk(
        reference("tonistiigi/binfmt:qemu-v10.0.4"), tuple(map(platform, ("linux/arm64", "linux/arm/v7", "linux/riscv64")))
    )
    assert manifest.images == (
        ImageAsk(reference("docker/dockerfile:1.20")),
        ImageAsk(reference("alpine:3.22")),
        ImageAsk(reference("golang:1.25"), (platform("linux/amd64"), platform("linux/arm64"))),
        ImageAsk(reference("registry.local/app:7"), daemon=True),
    )
    assert manifest.registry == RegistryAsk(image=reference("registry:3.0.0"), listen="0.0.0.0:5000", names=("depot.site:5000",))
    assert manifest.builders == (
        BuilderAsk(
            name="mybuilder",
            image=reference("moby/buildkit:v0.25.1"),
            use=True,
            entitlements=("network.host",),
            platforms=(platform("linux/amd64"), platform("linux/arm64")),
            registries={"harbor.xx.com": BuilderRegistryAsk(http=True)},
        ),
    )
    assert manifest.users == ()
    assert manifest.runtime == RUNTIME
    assert manifest.sources == UPSTREAM


def test_the_default_sources_are_upstream_s_own():
    assert parse(SHORT).sources == Sources(
        docker_static=("https://download.docker.com/linux/static",),
        github=("https://github.com",),
        github_api=("https://api.github.com",),
        registries={"docker.io": ("https://registry-1.docker.io",), "quay.io": ("https://quay.io",)},
    )


def test_everything_a_builder_can_be_asked_for_is_read():
    manifest = parse(
        BUILDER
        + """\
    registries:
      docker.io: {mirrors: ["depot.site:5000", harbor.xx.com/proxy]}
      depot.site:5000: {ca: /etc/ssl/site.pem}
    nodes:
      - {name: arm, endpoint: "ssh://builder@arm.site", platforms: [linux/arm64]}
      - {name: far, endpoint: "tcp://10.0.0.7:2376"}
    driver_opts: {memory: 8g, env.HTTP_PROXY: "http://proxy:3128"}
    network: host
    flags: [--debug]
    users: [jenkins, dev.ops]
    entitlements: [network.host, security.insecure]
users: [alice]
"""
    )
    (builder,) = manifest.builders
    assert builder.registries == {
        "docker.io": BuilderRegistryAsk(mirrors=("depot.site:5000", "harbor.xx.com/proxy")),
        "depot.site:5000": BuilderRegistryAsk(ca="/etc/ssl/site.pem"),
    }
    assert builder.nodes == (
        NodeAsk("arm", "ssh://builder@arm.site", (platform("linux/arm64"),)),
        NodeAsk("far", "tcp://10.0.0.7:2376"),
    )
    assert builder.driver_opts == {"memory": "8g", "env.HTTP_PROXY": "http://proxy:3128"}
    assert (builder.network, builder.flags, builder.users) == ("host", ("--debug",), ("jenkins", "dev.ops"))
    assert manifest.users == ("alice",)


@pytest.mark.parametrize(
    ("tls", "value"),
    [
        ("", None),
        (", tls: {cert: /a.pem, key: /a.key}", TlsAsk("/a.pem", "/a.key")),
        (", tls: {cert: /a.pem, key: /a.key, ca: /ca.pem}", TlsAsk("/a.pem", "/a.key", "/ca.pem")),
    ],
)
def test_a_registry_has_tls_of_its_own_or_made_for_it_or_none(tls, value):
    registry = parse(f"{SHORT}registry: {{image: registry:3.0.0{tls}}}").registry
    assert registry is not None
    assert (registry.tls, registry.listen, registry.names) == (value, "0.0.0.0:5000", ())


def test_an_engine_may_be_kept_and_still_be_configured():
    assert parse(SHORT + "engine: {keep: true, daemon: {experimental: true}}").engine == EngineAsk(
        None, {"experimental": True}, True
    )


def test_daemon_keys_are_free_and_any_json():
    text = (
        'engine: {version: "28.5.2", daemon: {a: {b: [1, 1.5, true, null, "x"]}, no: off, mode: 0755, day: 2026-08-20, big: 1e3}}'
    )
    engine = parse(SHORT + text).engine
    assert engine is not None
    assert engine.daemon == {
        "a": {"b": [1, 1.5, True, None, "x"]},
        "no": "off",
        "mode": "0755",
        "day": "2026-08-20",
        "big": 1000.0,
    }
    assert type(engine.daemon["big"]) is float


def test_a_section_with_everything_commented_out_is_not_there():
    manifest = parse(SHORT + "images:\n  # - alpine\nplugins:\nbuilders:\nengine:\n")
    assert (manifest.images, manifest.plugins, manifest.builders, manifest.engine) == ((), {}, (), None)


def test_a_version_may_have_a_v():
    assert parse(SHORT + "plugins: {buildx: v0.29.1}").plugins == {"buildx": "0.29.1"}


def test_a_runtime_may_be_named():
    assert parse(SHORT + 'runtime: {python: "3.12.9", date: "20250101"}').runtime == RuntimeAsk("3.12.9", "20250101")


def test_windows_line_ends_and_a_byte_order_mark_change_nothing():
    assert parse(b"\xef\xbb\xbf" + DESIGN.replace("\n", "\r\n").encode()) == parse(DESIGN)


# ---- complaints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        # versions and types
        (
            "plugins:\n  compose: '2.40.3'\n  buildx: 0.29\n",
            "site.yaml:6: plugins.buildx: must be text, not the number 0.29",
            'write it in quotes: "0.29"',
        ),
        ("plugins: {buildx: 1.20}", "must be text, not the number 1.20", 'write it in quotes: "1.20"'),
        ("engine: {version: 29}", "site.yaml:4: engine.version: must be text, not the number 29", 'write it in quotes: "29"'),
        ("engine: {version: '29'}", "site.yaml:4: engine.version: '29' is not a version such as 28.5.2", "one exact version"),
        ("engine: {version: latest}", "'latest' is not a version", "something else every day"),
        ("images: alpine", "site.yaml:4: images: must be a list, not the text 'alpine'", ""),
        ("images: [5]", "site.yaml:4: images[0]: must be text, not the number 5", ""),
        ("engine: 28.5.2", "site.yaml:4: engine: must be a mapping, not the text '28.5.2'", ""),
        ("engine: {keep: yes}", "engine.keep: must be true or false, not the text 'yes'", ""),
        # unknown keys
        ("plugin: {}", "site.yaml:4: plugin: unknown key", "did you mean 'plugins'?"),
        ("plugins:\n  bildx: '0.29.1'", "site.yaml:5: plugins.bildx: unknown key", "did you mean 'buildx'?"),
        ("plugins: {scout: '1.0.0'}", "plugins.scout: unknown key", "known here: buildx, compose"),
        ("engine: {version: '28.5.2', deamon: {}}", "engine.deamon: unknown key", "did you mean 'daemon'?"),
        (
            "images:\n  - alpine\n  - image: golang\n    platform: [linux/amd64]",
            "site.yaml:7: images[1].platform: unknown key",
            "'platforms'",
        ),
        ("images: [{daemn: x}]", "site.yaml:4: images[0]: 'image' is missing", ""),
        ("emulation: {image: x}", "site.yaml:4: emulation: 'platforms' is missing", ""),
        ("<<: {name: x}", "site.yaml:4: <<: unknown key", ""),
        # the engine
        ("engine: {}", "engine: 'version' is missing", "keep: true"),
        ("engine: {keep: false}", "engine: 'version' is missing", "keep: true"),
        ("engine: {keep: true, version: '28.5.2'}", "engine.version: a version and `keep: true` contradict", "leave one"),
        ("engine: {version: '28.5.2', daemon: [x]}", "engine.daemon: must be a mapping", ""),
        ("engine: {version: '28.5.2', daemon: {a: [1, 1e999]}}", "engine.daemon.a[1]: is no number that JSON can hold", ""),
        # platforms, references, names
        ("emulation: {image: x, platforms: [arm64]}", "emulation.platforms[0]: 'arm64' is not a platform", "linux/amd64"),
        ("emulation: {image: x, platforms: []}", "emulation.platforms: lists no platform", ""),
        (
            "emulation: {image: x, platforms: [linux/arm64, linux/arm64/v8]}",
            "linux/arm64 stands here already, at emulation.platforms[0]",
            "",
        ),
        ("emulation: {image: x, platforms: [windows/amd64]}", "windows/amd64: only Linux is served", ""),
        ("images: ['Alpine:3']", "images[0]: 'Alpine:3' is not an image reference", ""),
        (
            "images:\n- alpine:3\n- docker.io/library/alpine:3",
            "site.yaml:6: images[1]: alpine:3 stands here already, at images[0]",
            "leave one",
        ),
        ("images: [{image: a, daemon: b}]", "two sources for one image", "leave one"),
        ("users: [bob, '-rf']", "users[1]: '-rf' is not a user's name", ""),
        ("users: ['a b']", "users[0]: 'a b' is not a user's name", ""),
        ("users: [bob, bob]", "users[1]: bob stands here already", ""),
        ("runtime: {python: '3.13', date: '20260728'}", "runtime.python: '3.13' is not a CPython", "in full"),
        ("runtime: {python: '3.9.1', date: '20260728'}", "runtime.python: '3.9.1' is not a CPython", "3.10"),
        ("runtime: {python: '3.13.1', date: 20260728}", "runtime.date: must be text", 'write it in quotes: "20260728"'),
        ("runtime: {python: '3.13.1'}", "runtime: 'date' is missing", ""),
        # the registry
        ("registry: {image: 'registry:3', listen: '0.0.0.0'}", "registry.listen: '0.0.0.0' has no port", "0.0.0.0:5000"),
        ("registry: {image: 'registry:3', listen: '0.0.0.0:99999'}", "has no port from 1 to 65535", ""),
        (
            "registry: {image: 'registry:3', names: ['https://depot']}",
            "registry.names[0]: 'https://depot' has a scheme",
            "write depot",
        ),
        ("registry: {image: 'registry:3', tls: yes}", "registry.tls: must be a mapping", ""),
        ("registry: {image: 'registry:3', tls: {cert: /c}}", "registry.tls: 'key' is missing", ""),
        ("registry: {image: 'registry:3', tls: {cert: c, key: /k}}", "registry.tls.cert: 'c' is not an absolute path", ""),
    ],
)
def test_a_complaint_has_file_line_key_and_what_would_be_right(text, says, hint):
    message, found = complaint(SHORT + text)
    assert message.startswith("site.yaml:")
    assert says in message
    assert hint in found


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        (
            "entitlements: [network.hots]",
            "site.yaml:7: builders[0].entitlements[0]: 'network.hots' is no entitlement",
            "network.host and security",
        ),
        ("use: 1", "builders[0].use: must be true or false", ""),
        ("registries: {'https://harbor.xx.com': {}}", "'https://harbor.xx.com' has a scheme", "write harbor.xx.com"),
        ("registries: {'http://harbor.xx.com/': {}}", "has a scheme", "plain HTTP is said with `http: true`"),
        ("registries: {registry-1.docker.io: {}}", "docker.io", "write docker.io"),
        ("registries: {a/b: {}}", "'a/b' is not a registry's host[:port]", ""),
        ("registries: {a: {htp: true}}", "builders[0].registries.a.htp: unknown key", "'http'"),
        ("registries: {a: {http: true, insecure: true}}", "`http` is without TLS", "alone"),
        ("registries: {a: {mirrors: ['https://m']}}", "registries.a.mirrors[0]: 'https://m' has a scheme", "write m"),
        ("registries: {a: {ca: site.pem}}", "registries.a.ca: 'site.pem' is not an absolute path", ""),
        ("registries: {a: {ca: /etc/../x}}", "is not an absolute path", ""),
        (
            "nodes: [{name: n, endpoint: unix:///x}]",
            "builders[0].nodes[0].endpoint: 'unix:///x' is not an engine's address",
            "ssh://",
        ),
        ("nodes: [{name: n, endpoint: 'ssh://-oProxyCommand=x'}]", "is not an engine's address", ""),
        ("nodes: [{name: n, endpoint: 'tcp://a'}, {name: n, endpoint: 'tcp://b'}]", "nodes[1]: n stands here already", ""),
        ("driver_opts: {image: x}", "builders[0].driver_opts.image: the builder's own key 'image' says this", ""),
        ("driver_opts: {memory: 8}", "driver_opts.memory: must be text", 'quotes: "8"'),
        ("driver_opts: {'a=b': x}", "is no name of a driver option", ""),
        ("network: 'a b'", "builders[0].network: 'a b' is not a network's name", ""),
        ("flags: ['--x --y']", "builders[0].flags[0]: '--x --y' is not one flag", ""),
        ("users: ['$(id)']", "is not a user's name", ""),
    ],
)
def test_a_complaint_about_a_builder_has_its_place(line, says, hint):
    message, found = complaint(f"{BUILDER}    {line}\n")
    assert message.startswith("site.yaml:7: ")
    assert says in message
    assert hint in found


@pytest.mark.parametrize("name", ["MyBuilder", "my builder", "-x", "", "1st", "a/b", "b" * 64, "b\\n"])
def test_a_builder_s_name_is_one_that_buildx_keeps_as_it_is(name):
    assert "is not a builder's name" in complaint(f'{SHORT}builders: [{{name: "{name}", image: x}}]'.replace("\\n", " "))[0]


def test_the_engine_s_own_builder_cannot_be_made():
    assert "engine's own builder" in complaint(f"{SHORT}builders: [{{name: default, image: x}}]")[0]


def test_two_builders_of_one_name_are_refused():
    message, _ = complaint(f"{BUILDER}  - {{name: b, image: x}}\n")
    assert message == "site.yaml:7: builders[1]: b stands here already, at builders[0]"


def test_only_one_builder_can_be_the_default():
    message, _ = complaint(f"{SHORT}builders:\n- {{name: a, image: x, use: true}}\n- {{name: b, image: x, use: true}}\n")
    assert message == "site.yaml:4: builders: a and b all say `use: true`"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "", "x" * 65, "a\\tb"])
def test_the_name_becomes_part_of_a_file_s_name(name):
    with pytest.raises(ManifestError, match="name"):
        parse(f'airgap: 1\nname: "{name}"\nplatforms: [linux/amd64]\n')


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("", "site.yaml: must be a mapping, not nothing", ""),
        ("# only comments\n", "must be a mapping, not nothing", ""),
        ("- a\n", "must be a mapping, not a list", ""),
        ("name: x\n", "site.yaml: 'airgap' is missing", "begin the file with `airgap: 1`"),
        ("airgap: 2\n", "site.yaml:1: airgap: is format 2; this airgap reads format 1", "newer"),
        ("airgap: '1'\n", "site.yaml:1: airgap: must be a whole number", ""),
        ("airgap: 1\nplatforms: [linux/amd64]\n", "site.yaml: 'name' is missing", ""),
        ("airgap: 1\nnmae: x\nplatforms: [linux/amd64]\n", "'name' is missing", "'nmae'"),
        ("airgap: 1\nname: x\n", "'platforms' is missing", ""),
        ("airgap: 1\nname: x\nplatforms: []\n", "site.yaml:3: platforms: lists no platform", ""),
    ],
)
def test_a_file_that_is_no_manifest_is_told_what_one_begins_with(text, says, hint):
    message, found = complaint(text)
    assert says in message
    assert hint in found


# ---- YAML's traps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        (SHORT + "name: t\n", "site.yaml:4: name: the key is given twice, first on line 2", "leave one out"),
        (SHORT + "engine:\n  version: '1.0.0'\n  version: '2.0.0'\n", "site.yaml:6: engine.version: the key is given twice", ""),
        (SHORT + "images: &all [a]\n", "site.yaml:4: anchors and aliases ('all') are not taken", "write it out"),
        (SHORT + "images: *all\n", "site.yaml:4: anchors and aliases ('all') are not taken", ""),
        (SHORT + "images: !!python/object/apply:os.system [id]\n", "site.yaml:4: tags", ""),
        (SHORT + "images: !x y\n", "site.yaml:4: tags ('!x') are not taken", ""),
        (SHORT + "5: x\n", "site.yaml:4: a key must be text", 'write it in quotes: "5"'),
        (SHORT + "true: x\n", "site.yaml:4: a key must be text", 'write it in quotes: "true"'),
        (SHORT + "? [a]\n: x\n", "site.yaml:4: a key must be text, not list", ""),
        (SHORT + "---\nairgap: 1\n", "site.yaml:4: a second document begins here", "---"),
        (SHORT + "\timages: []\n", "not valid YAML", ""),
        (SHORT + "images:\n\t- a\n", "site.yaml:5: not valid YAML", "tabs"),
        (SHORT + "images: [a\n", "site.yaml:5: not valid YAML", ""),
        (SHORT + "users: 'x\n", "not valid YAML", ""),
        (SHORT.encode() + b"x: \xff\n", "site.yaml:4: not UTF-8 text", "UTF-8"),
        (SHORT.encode() + b"x: \x1b[2J\n", "site.yaml: not valid YAML", ""),
        (SHORT + "%YAML 9.9\n", "site.yaml", ""),
        ("%YAML 9.9\n---\n" + SHORT, "not valid YAML", ""),
        (SHORT + 'images: ["a\\e[2J"]\n', "images[0]: contains control characters", ""),
        (SHORT + 'engine: {version: "28.5.2", daemon: {"\\e[2J": 1}}\n', "control characters", ""),
        (SHORT + 'engine: {version: "28.5.2", daemon: {a: "\\ud800"}}\n', "control characters", ""),
    ],
)
def test_what_yaml_would_take_and_nobody_means_is_refused(text, says, hint):
    message, found = complaint(text)
    assert says in message
    assert hint in found
    assert "\x1b" not in message + found


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n" * 3,
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 50_000,
        "- " * 50_000,
        "? " * 50_000,
        "a: " + "9" * 200_000,
        "a: '" + "x" * 200_000,
        "a: [" + "x, " * 60_000,
        "a: " + "-" * 200_000,
        "x" * 300_000,
        "\n".join(f"k{number}: v" for number in range(15_000)),
        "a: &a [*a]\n",
    ],
)
def test_a_hostile_file_is_refused_in_seconds(text):
    started = time.monotonic()
    message, hint = complaint(text)
    assert len(message) < 400
    assert len(hint) < 400
    assert time.monotonic() - started < 10


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@?, \n\t01.~"), max_size=60))
def test_no_text_makes_the_parser_raise_anything_but_its_error(text):
    with pytest.raises(ManifestError):
        parse(text)


# ---- sources and secrets ---------------------------------------------------------------------------------------------


def sources(text):
    return Sources.parse(text.encode(), name="sources.yaml")


def test_sources_replace_only_what_they_name():
    found = parse(
        SHORT + "sources:\n  github: ['https://gh.site/', 'http://old.site']\n  registries: {docker.io: [https://hub.site]}\n"
    ).sources
    assert found == replace(
        UPSTREAM,
        github=("https://gh.site", "http://old.site"),
        registries={**UPSTREAM.registries, "docker.io": ("https://hub.site",)},
    )
    again = found.overlaid(
        sources("docker_static: [http://127.0.0.1:8000/static/]\nregistries: {quay.io: ['http://127.0.0.1:5000']}")
    )
    assert again.docker_static == ("http://127.0.0.1:8000/static",)
    assert again.github == found.github
    assert again.registries == {"docker.io": ("https://hub.site",), "quay.io": ("http://127.0.0.1:5000",)}


def test_a_prefix_mirror_takes_a_whole_address_as_its_path():
    assert sources("github: ['https://ghproxy.net/https://github.com']").github == ("https://ghproxy.net/https://github.com",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("github: [github.com]", "sources.yaml:1: github[0]: 'github.com' is not an address of a source"),
        ("github: [ftp://github.com]", "is not an address"),
        ("github: ['https://']", "is not an address"),
        ("github: ['https://a b']", "is not an address"),
        ("github: ['https://a:99999']", "is not an address"),
        ("github: ['https://[::1']", "is not an address"),
        ("github: ['https://a?b=c']", "is not an address"),
        ("github: ['file:///etc/passwd']", "is not an address"),
        ("github: []", "sources.yaml:1: github: lists no address"),
        ("github: https://github.com", "github: must be a list"),
        ("github: [https://a, https://a/]", "stands here already"),
        ("gihub: [https://a]", "sources.yaml:1: gihub: unknown key"),
        ("registries: {registry-1.docker.io: [https://a]}", "docker.io"),
        ("registries: {'https://a': [https://a]}", "has a scheme"),
        ("- a", "must be a mapping"),
    ],
)
def test_a_source_is_an_http_address_written_out(text, says):
    with pytest.raises(ManifestError) as caught:
        sources(text)
    assert says in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        "sources: {github: ['https://bob:hunter2@gh.site']}",
        "sources: {github: ['https://hunter2@gh.site/x']}",
        "sources: {docker_static: ['HTTP://bob:hunter2@gh.site']}",
        "engine: {version: '28.5.2', daemon: {proxies: {http-proxy: 'http://bob:hunter2@proxy:3128'}}}",
        "builders: [{name: b, image: x, driver_opts: {env.http_proxy: 'socks5://bob:hunter2@proxy'}}]",
        "builders: [{name: b, image: x, nodes: [{name: n, endpoint: 'ssh://bob:hunter2@host'}]}]",
    ],
)
def test_a_password_is_refused_wherever_it_stands_and_not_repeated(line):
    message, hint = complaint(SHORT + line)
    assert "user or password" in message
    assert "site.yaml:4: " in message
    assert "docker login" in hint
    assert "hunter2" not in message + hint


def test_a_password_in_a_file_of_sources_is_refused_too():
    with pytest.raises(ManifestError, match="user or password"):
        sources("github: ['https://bob:hunter2@gh.site']")


# ---- JSON, for locks -------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
PLATFORMS = st.lists(
    st.sampled_from([platform(f"linux/{name}") for name in ("amd64", "arm64", "arm/v7", "s390x")]), min_size=1, unique=True
).map(tuple)
REFERENCES = st.builds(lambda name, tag: reference(f"{name}:{tag}"), NAMES | NAMES.map("quay.io/org/{}".format), NAMES)
VERSIONS = st.tuples(*[st.integers(0, 99)] * 3).map(lambda numbers: ".".join(map(str, numbers)))
HOSTS = NAMES.map("{}.site:5000".format)
TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=10).filter(lambda text: "@" not in text)
DAEMON = st.dictionaries(
    NAMES,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
ENGINES = st.builds(EngineAsk, VERSIONS, DAEMON) | st.builds(EngineAsk, st.none(), DAEMON, st.just(True))
REGISTRIES = st.builds(
    RegistryAsk,
    image=REFERENCES,
    listen=st.sampled_from(["0.0.0.0:5000", "127.0.0.1:80", "[::]:5000"]),
    names=st.lists(HOSTS, unique=True, max_size=2).map(tuple),
    tls=st.sampled_from([None, TlsAsk("/c", "/k"), TlsAsk("/c", "/k", "/ca")]),
)
MIRRORS = st.lists(HOSTS, unique=True, max_size=2).map(tuple)
BUILDER_REGISTRIES = st.dictionaries(
    HOSTS,
    st.builds(BuilderRegistryAsk, st.booleans(), st.just(False), st.just(""), MIRRORS)
    | st.builds(BuilderRegistryAsk, st.just(False), st.booleans(), st.sampled_from(["", "/ca"]), MIRRORS),
    max_size=2,
)
NODES = st.lists(
    st.builds(NodeAsk, NAMES, st.sampled_from(["ssh://u@h", "tcp://h:2376"]), st.just(()) | PLATFORMS),
    max_size=2,
    unique_by=lambda n: n.name,
).map(tuple)
USERS = st.lists(NAMES, unique=True, max_size=2).map(tuple)
BUILDERS = st.builds(
    BuilderAsk,
    name=NAMES.filter(lambda name: name != "default"),
    image=REFERENCES,
    entitlements=st.lists(st.sampled_from(["network.host", "security.insecure"]), unique=True).map(tuple),
    platforms=st.just(()) | PLATFORMS,
    registries=BUILDER_REGISTRIES,
    nodes=NODES,
    driver_opts=st.dictionaries(NAMES.filter(lambda name: name not in ("image", "network")), TEXTS, max_size=2),
    network=st.sampled_from(["", "host"]),
    flags=st.sampled_from([(), ("--debug", "--oci-worker-gc=false")]),
    users=USERS,
)
MANIFESTS = st.builds(
    Manifest,
    name=NAMES,
    platforms=PLATFORMS,
    engine=st.none() | ENGINES,
    plugins=st.dictionaries(st.sampled_from(["buildx", "compose"]), VERSIONS),
    emulation=st.none() | st.builds(EmulationAsk, REFERENCES, PLATFORMS),
    images=st.lists(
        st.builds(ImageAsk, REFERENCES, st.just(()) | PLATFORMS, st.booleans()), max_size=3, unique_by=lambda i: i.reference
    ).map(tuple),
    registry=st.none() | REGISTRIES,
    builders=st.lists(BUILDERS, max_size=2, unique_by=lambda b: b.name).map(tuple),
    users=USERS,
    runtime=st.just(RUNTIME) | st.just(RuntimeAsk("3.10.1", "20250101")),
    sources=st.builds(
        lambda hosts: UPSTREAM.overlaid(Sources(registries={host: (f"http://{host}",) for host in hosts})),
        st.lists(HOSTS, max_size=2),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MANIFESTS)
def test_a_manifest_is_the_same_after_writing_to_json_and_reading(manifest):
    document = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(document) == manifest
    assert Manifest.from_json(document).to_json() == document
    # JSON is YAML: what a lock carries can be given to -m again.
    assert parse(json.dumps(document)) == manifest


def test_the_canonical_form_does_not_depend_on_how_it_was_written():
    one = parse(SHORT + "plugins: {compose: '2.40.3', buildx: v0.29.1}\nimages: [{image: docker.io/library/alpine:3}]\n")
    two = parse(
        "platforms: [linux/x86_64]\nimages: ['alpine:3']\nplugins: {buildx: '0.29.1', compose: '2.40.3'}\nname: s\nairgap: 1\n"
    )
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())


def test_a_lock_s_manifest_is_read_as_strictly_as_a_file():
    document = parse(DESIGN).to_json()
    for change, says in [
        ({"extra": 1}, "the lock's manifest: extra: unknown key"),
        ({"engine": {"version": 28}}, "the lock's manifest: engine.version: must be text"),
        ({"engine": {"version": "28.5.2", "daemon": {"a": float("inf")}}}, "no number that JSON can hold"),
        ({"users": ["../x"]}, "users[0]: '../x' is not a user's name"),
    ]:
        with pytest.raises(ManifestError) as caught:
            Manifest.from_json({**document, **change})
        assert says in caught.value.message


def test_a_lock_s_manifest_may_not_be_a_pit():
    pit: list[object] = []
    for _ in range(900):
        pit = [pit]
    with pytest.raises(ManifestError, match="more than 32 levels deep"):
        Manifest.from_json({**parse(SHORT).to_json(), "users": pit})


def test_the_installing_side_reads_manifests_without_pyyaml():
    code = (
        "import sys, json; sys.modules['yaml'] = None\n"
        "from airgap.manifest import Manifest\n"
        "print(Manifest.from_json(json.load(sys.stdin)).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(parse(DESIGN).to_json()), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("buildfarm\n", "")


def test_the_built_in_manifest_is_package_data():
    assert Manifest.parse(default_manifest(), name="the built-in manifest").name == "default"
