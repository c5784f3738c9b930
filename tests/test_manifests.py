"""The ready-made manifests, and the built-in one: each can be packed, and its versions work together (upstream.md 8)."""

from pathlib import Path

import pytest

from airgap import upstreams
from airgap.errors import ResolveError
from airgap.kinds import wants
from airgap.kinds.want import FileWant, ImageWant
from airgap.manifest import Manifest, default_manifest
from airgap.upstreams import Version
from tests.test_upstreams import RELEASES

FOLDER = Path(__file__).parents[1] / "manifests"
FILES = {"default": default_manifest(), **{path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.yaml"))}}
API = {"18.09": 1.39, "19.03": 1.40, "20.10": 1.41, "23": 1.42, "24": 1.43, "25": 1.44, "28": 1.51}
KEPT = {"kept-18.09": "18.09", "kept-19.03": "19.03"}


def parsed(name):
    return Manifest.parse(FILES[name], name=f"{name}.yaml")


def numbers(text):
    return Version.parse(text).numbers


def least_api(buildx):
    """The oldest API that this buildx's client speaks, as its go.mod says."""
    if numbers(buildx) >= (0, 33, 0):
        return 1.40
    return 1.44 if numbers(buildx) >= (0, 31, 0) else 1.24


def least_api_of_compose(compose):
    if numbers(compose) >= (5, 1, 1):
        return 1.40
    return 1.44 if numbers(compose) >= (5, 1, 0) else 1.24


def runc_fails_on_5_4(buildkit):
    return (0, 31, 0) <= numbers(buildkit) <= (0, 32, 2)


def test_there_is_one_for_every_kind_of_site():
    assert set(FILES) == {"default", "modern", "kept-19.03", "kept-18.09", "china-mirror", "single-arch"}


@pytest.mark.parametrize("name", FILES)
def test_each_is_named_after_its_file_and_asks_for_something(name):
    manifest = parsed(name)
    assert manifest.name == name
    ask = manifest.registry
    assert ask is None or ask.tls or ask.listen.startswith("127."), "none serves a network in plain HTTP"
    assert wants(manifest)
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("name", FILES)
def test_each_plugin_version_is_a_release_with_a_published_checksum(name):
    for plugin, version in parsed(name).plugins.items():
        assert f"v{version}" in RELEASES[plugin]
        for platform in parsed(name).platforms:
            asset = upstreams.asset(plugin, version, platform)
            assert {asset.filename, *asset.checksums} <= set(RELEASES[plugin][asset.tag])
            assert asset.checksums


@pytest.mark.parametrize("name", FILES)
def test_each_engine_version_is_a_release(name):
    engine = parsed(name).engine
    assert engine is not None
    assert engine.keep == (name in KEPT)
    if engine.version:
        tags = RELEASES["docker"]
        assert f"v{engine.version}" in tags or f"docker-v{engine.version}" in tags


@pytest.mark.parametrize("name", FILES)
def test_no_engine_and_no_builder_has_the_runc_that_fails_on_kernel_5_4(name):
    manifest = parsed(name)
    if manifest.engine and manifest.engine.version:
        assert not (29, 6, 0) <= numbers(manifest.engine.version) <= (29, 7, 2)
        # 28.0.0 needs ip_set modules that old kernels lack; 29.0 to 29.2 refuse older clients.
        assert numbers(manifest.engine.version) != (28, 0, 0)
        assert not (29, 0, 0) <= numbers(manifest.engine.version) < (29, 3, 0)
    for builder in manifest.builders:
        assert not runc_fails_on_5_4(builder.image.tag)
        assert builder.image.tag == f"v{Version.parse(builder.image.tag)}"


@pytest.mark.parametrize("name", sorted(set(FILES) - {"modern"}))
def test_the_plugins_speak_to_every_engine_a_host_may_have_kept(name):
    oldest = API[KEPT.get(name, "18.09")]
    assert least_api(parsed(name).plugins["buildx"]) <= oldest
    assert least_api_of_compose(parsed(name).plugins["compose"]) <= oldest


def test_the_modern_plugins_speak_to_every_engine_since_19_03():
    plugins = parsed("modern").plugins
    assert least_api(plugins["buildx"]) <= API["19.03"]
    assert least_api_of_compose(plugins["compose"]) <= API["19.03"]
    # Engines 29.0 to 29.2 refuse clients below 1.44, which buildx is up to 0.12.1.
    assert numbers(plugins["buildx"]) >= (0, 13, 0)


def test_18_09_has_the_last_buildx_that_speaks_its_api():
    assert numbers(parsed("kept-18.09").plugins["buildx"]) <= (0, 30, 1)


@pytest.mark.parametrize("name", FILES)
def test_images_are_pinned_by_exact_tags_where_the_tag_moves_by_itself(name):
    manifest = parsed(name)
    assert all(item.image.tag not in ("latest", "buildx-stable-1") for item in manifest.builders)
    if manifest.emulation:
        assert manifest.emulation.image.tag.startswith("qemu-v")
        assert set(manifest.emulation.platforms) - set(manifest.platforms) or len(manifest.platforms) > 1
    assert all(item.reference.tag != "latest" for item in manifest.images)


@pytest.mark.parametrize("name", FILES)
def test_every_builder_builds_only_what_runs_or_is_emulated(name):
    manifest = parsed(name)
    able = {*manifest.platforms, *(manifest.emulation.platforms if manifest.emulation else ())}
    assert manifest.builders
    for builder in manifest.builders:
        assert builder.platforms
        assert set(builder.platforms) <= able


@pytest.mark.parametrize("name", FILES)
def test_everything_asked_for_can_be_named_for_every_platform(name):
    manifest = parsed(name)
    found = wants(manifest)
    for want in found:
        if isinstance(want, FileWant):
            assert want.platform in manifest.platforms
            assert want.places
        else:
            assert isinstance(want, ImageWant)
            assert want.platforms
    kinds = {want.kind for want in found if isinstance(want, FileWant)}
    assert kinds == ({"runtime", "plugin"} if name in KEPT else {"runtime", "engine", "plugin"})


def test_the_site_of_mirrors_tries_mirrors_first_and_upstream_last_and_no_dead_one():
    sources = parsed("china-mirror").sources
    assert sources.docker_static[-1] == "https://download.docker.com/linux/static"
    assert sources.github[-1] == "https://github.com"
    assert sources.registries["docker.io"][-1] == "https://registry-1.docker.io"
    every = [*sources.docker_static, *sources.github, *sources.registries["docker.io"]]
    assert len(every) == len(set(every)) > 6
    # TUNA answers 403 for static tarballs, fastgit ended in 2023 (upstream.md 7).
    assert not [url for url in every if "tuna" in url or "fastgit" in url]
    assert all(url.startswith("https://") for url in every)


def test_the_mirrors_carry_the_same_versions_as_the_built_in_manifest():
    mirrored, default = parsed("china-mirror"), parsed("default")
    assert mirrored.plugins == default.plugins
    assert mirrored.builders[0].image == default.builders[0].image
    assert mirrored.engine
    assert default.engine
    assert mirrored.engine.version == default.engine.version


def test_one_platform_needs_no_emulation():
    manifest = parsed("single-arch")
    assert len(manifest.platforms) == 1
    assert manifest.emulation is None
    assert not any(builder.use for builder in manifest.builders)


def test_the_other_platform_of_a_single_one_is_a_matter_of_changing_the_word():
    text = FILES["single-arch"].replace(b"linux/amd64", b"linux/arm64")
    assert {str(want.platform) for want in wants(Manifest.parse(text, name="x")) if isinstance(want, FileWant)} == {"linux/arm64"}


def test_an_engine_that_upstream_does_not_build_is_refused_when_it_is_asked_for():
    text = FILES["single-arch"].replace(b"linux/amd64", b"linux/s390x")
    with pytest.raises(ResolveError, match="no static tarball for linux/s390x"):
        wants(Manifest.parse(text, name="x"))
