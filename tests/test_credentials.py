"""Docker's logins are read as docker writes them, and their secrets are shown to nobody."""

import base64
import json
import os
from pathlib import Path

import pytest

from airgap.errors import FetchError
from airgap.machine.run import Runner
from airgap.online.credentials import Credentials, Login


def no_helper(argv, **_):
    raise AssertionError(f"no helper was to be started: {argv}")


def written(tmp_path, document) -> Path:
    path = tmp_path / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def load(tmp_path, document, run=no_helper):
    return Credentials.load(written(tmp_path, document), run)


def auth(text):
    return base64.b64encode(text.encode()).decode()


def test_without_a_file_there_are_no_logins(tmp_path):
    assert Credentials.load(tmp_path / "none.json", no_helper).find("harbor.corp") is None


def test_a_login_is_found_whatever_form_its_key_has(tmp_path):
    found = load(tmp_path, {"auths": {
        "https://index.docker.io/v1/": {"auth": auth("hub:pw")},
        "http://harbor.corp:8443/v2/": {"auth": auth("me:a:b")},
        "quay.io": {"username": "you", "password": "pw"},
    }})  # fmt: skip
    for name in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        assert found.find(name) == Login(user="hub", password="pw")
    assert found.find("HARBOR.corp:8443") == Login(user="me", password="a:b")
    assert found.find("quay.io") == Login(user="you", password="pw")
    assert found.find("harbor.corp") is None


def test_identity_and_registry_tokens_are_told_apart(tmp_path):
    found = load(tmp_path, {"auths": {
        "a.io": {"auth": auth("00000000-0000-0000-0000-000000000000:"), "identitytoken": "idt"}, "b.io": {"registrytoken": "rgt"},
    }})  # fmt: skip
    assert found.find("a.io") == Login(identity="idt")
    assert found.find("b.io") == Login(bearer="rgt")


def test_the_empty_entries_that_docker_leaves_behind_are_none(tmp_path):
    assert load(tmp_path, {"auths": {"a.io": {}}, "HttpHeaders": {"User-Agent": "x"}}).find("a.io") is None
    assert load(tmp_path, "{}").find("a.io") is None


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ("not json", "config.json: not valid JSON"),
        ("[]", "config.json: must be a mapping"),
        ('{"auths": []}', "auths: must be a mapping"),
        ('{"auths": {"a.io": {"auth": "%%%"}}}', "auths.a.io: its `auth` is not base64"),
        ('{"auths": {"a.io": {"auth": "c2VjcmV0"}}}', "auths.a.io: its `auth` is not base64"),
        ('{"credHelpers": {"a.io": 7}}', "credHelpers.a.io: must be text"),
    ],
)
def test_a_damaged_file_is_a_complaint_with_its_place_and_the_cure(tmp_path, document, where):
    with pytest.raises(FetchError) as caught:
        load(tmp_path, document)
    assert where in caught.value.message
    assert "docker login" in caught.value.hint
    assert "secret" not in caught.value.message


def test_nothing_secret_is_in_a_repr(tmp_path):
    found = load(tmp_path, {"auths": {"a.io": {"auth": auth("me:s3cret")}, "b.io": {"identitytoken": "s3cret"}}})
    shown = f"{found!r} {found.find('a.io')!r} {found.find('b.io')!r} {Login(bearer='s3cret')}"
    assert "s3cret" not in shown
    assert "me" in shown


# ---- helpers, as real programs ---------------------------------------------------------------------------------------


@pytest.fixture
def helper(tmp_path):
    """Installs docker-credential-<name>; returns a runner that finds it, and what it was asked."""
    log = tmp_path / "asked"

    def install(name, script):
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f'#!/bin/sh\nread server\necho "$1 $server" >>"{log}"\n{script}\n')
        program.chmod(0o755)

    os.environ["PATH"], before = f"{tmp_path}:{os.environ['PATH']}", os.environ["PATH"]
    yield install, lambda: log.read_text().splitlines() if log.exists() else []
    os.environ["PATH"] = before


def test_a_helper_is_asked_once_for_a_host_and_in_its_own_words(tmp_path, helper):
    install, asked = helper
    install("one", """echo '{"ServerURL": "x", "Username": "me", "Secret": "s3cret"}'""")
    install("two", """echo '{"Username": "<token>", "Secret": "s3cret"}'""")
    found = load(tmp_path, {"credsStore": "one", "credHelpers": {"b.io": "two"}, "auths": {"a.io": {}}}, Runner())
    assert found.find("a.io") == found.find("a.io") == Login(user="me", password="s3cret")
    assert found.find("b.io") == Login(identity="s3cret")
    assert found.find("docker.io") == Login(user="me", password="s3cret")
    assert asked() == ["get a.io", "get b.io", "get https://index.docker.io/v1/"]


def test_a_helper_that_knows_nothing_leaves_it_to_the_file(tmp_path, helper):
    install, _ = helper
    install("one", "echo 'credentials not found in native keychain'; exit 1")
    found = load(tmp_path, {"credsStore": "one", "auths": {"a.io": {"auth": auth("me:pw")}}}, Runner())
    assert found.find("a.io") == Login(user="me", password="pw")
    assert found.find("b.io") is None


@pytest.mark.parametrize(
    "script", ["echo s3cret; exit 1", "echo s3cret", """echo '{"Secret": "s3cret"}'""", "echo s3cret >&2; exit 3"]
)
def test_a_helper_that_fails_is_named_and_nothing_it_said_is_shown(tmp_path, helper, script):
    install, _ = helper
    install("one", script)
    with pytest.raises(FetchError) as caught:
        load(tmp_path, {"credsStore": "one"}, Runner()).find("a.io")
    assert "docker-credential-one" in caught.value.message
    assert "config.json" in caught.value.message
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}{caught.value.__cause__}"


def test_a_helper_that_is_not_installed_is_a_complaint_with_the_cure(tmp_path):
    with pytest.raises(FetchError, match="docker-credential-desktop") as caught:
        load(tmp_path, {"credsStore": "desktop"}, Runner()).find("a.io")
    assert "take it out" in caught.value.hint


def test_a_helpers_name_is_no_path(tmp_path):
    with pytest.raises(FetchError, match="no name of a credential helper"):
        load(tmp_path, {"credsStore": "../../bin/sh"}).find("a.io")
