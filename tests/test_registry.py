"""The registry client believes digests and nothing else, and says what to do when it is kept out."""

import json
import threading
from contextlib import ExitStack

import pytest

from airgap.bundle.store import Store
from airgap.errors import AirgapError, DigestMismatch, FetchError, ManifestError
from airgap.oci import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, Descriptor, Digest, Reference
from airgap.online.credentials import Credentials, Login
from airgap.online.headers import Challenge
from airgap.online.registry import ACCEPT, Registry
from airgap.online.web import NotThere, Web
from tests.registering import FakeRegistry, digest
from tests.serving import reset_after, serving
from tests.test_web import Gauge, Listener

REF = Reference.parse("reg.corp/team/app:1.0")


def no_helper(argv, **_):
    raise AssertionError(argv)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def site(stack):
    return stack.enter_context(serving())


@pytest.fixture
def fake(site):
    return FakeRegistry(site)


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def client(stack, site, store, listener):
    """A client of the fake registry under the name reg.corp."""

    def make(*, hosts=None, login=None):
        web = stack.enter_context(Web(store=store, progress=listener, stall=2, retries=1, pause=lambda seconds: None))
        host = f"127.0.0.1:{site.port}"
        found = Credentials({host: login} if login else {}, run=no_helper)
        return Registry(web=web, credentials=found, hosts=hosts or {"reg.corp": [site.url("")]})

    return make


def read(descriptor):
    return Descriptor(media_type=descriptor["mediaType"], digest=Digest.parse(descriptor["digest"]), size=descriptor["size"])


# ---- what a tag means ------------------------------------------------------------------------------------------------


def test_a_tag_means_the_bytes_that_came_and_they_are_in_the_store(fake, client, store, site):
    said = fake.index("team/app", "1.0")
    root = client().root(REF)
    assert root.descriptor == read(said)
    assert root.data == store.read(root.descriptor.digest, limit=1 << 20)
    assert root.url == site.url("/v2/team/app/manifests/1.0")


def test_all_four_types_are_accepted_in_every_question(fake, client, site):
    fake.index("team/app", "1.0")
    client().root(REF)
    for kind in (INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST):
        assert kind in ACCEPT["Accept"]
    assert {item.headers["Accept"] for item in site.seen} == {ACCEPT["Accept"]}


def test_a_tag_that_means_what_is_stored_costs_a_head_only(fake, client, site):
    fake.index("team/app", "1.0")
    first = client().root(REF)
    site.seen.clear()
    assert client().root(REF) == first
    assert [item.method for item in site.seen] == ["HEAD"]
    fake.image("team/app", "1.0")
    assert client().root(REF) != first


def test_a_registry_that_has_no_head_is_asked_by_get(fake, client, site):
    fake.index("team/app", "1.0")
    site.routes["/v2/team/app/manifests/1.0"] = lambda e, s: e.give(405) if s.method == "HEAD" else fake.answer(e, s)
    client().root(REF)
    assert [item.method for item in site.seen] == ["HEAD", "GET"]


def test_a_registry_that_says_no_digest_is_believed_no_less(fake, client):
    fake.fields["Docker-Content-Digest"] = ""
    said = fake.index("team/app", "1.0")
    assert client().root(REF).descriptor == read(said)


def test_a_registry_that_contradicts_itself_is_caught(fake, client, store):
    fake.index("team/app", "1.0")
    fake.fields["Docker-Content-Digest"] = digest(b"something else")
    with pytest.raises(DigestMismatch) as caught:
        client().root(REF)
    assert digest(b"something else") in caught.value.message
    assert "reg.corp/team/app:1.0" in caught.value.message
    assert not list((store.root / "blobs" / "sha256").iterdir())


def test_a_reference_by_digest_is_verified_and_asked_once(fake, client, site):
    said = fake.index("team/app", "1.0")
    pinned = Reference.parse(f"reg.corp/team/app:9.9@{said['digest']}")
    assert client().root(pinned).descriptor == read(said)
    assert [item.method for item in site.seen] == ["GET"]
    assert client().root(pinned).descriptor == read(said)
    assert len(site.seen) == 1
    other = digest(b"other")
    fake.manifests["team/app"][other] = fake.manifests["team/app"]["1.0"]
    with pytest.raises(DigestMismatch, match="asked for"):
        client().root(Reference.parse(f"reg.corp/team/app@{other}"))


@pytest.mark.parametrize(
    ("document", "content_type", "kind"),
    [
        ({"mediaType": DOCKER_LIST, "manifests": []}, "application/json", DOCKER_LIST),
        ({"manifests": []}, INDEX, INDEX),
        ({"manifests": []}, DOCKER_LIST, DOCKER_LIST),
        ({"manifests": []}, "text/plain", INDEX),
        ({"config": {}, "layers": []}, "", MANIFEST),
        ({"mediaType": DOCKER_MANIFEST, "config": {}, "layers": []}, MANIFEST, DOCKER_MANIFEST),
    ],
)
def test_the_type_is_the_bodys_word_or_the_registrys_or_the_shape(fake, client, document, content_type, kind):
    fake.put("team/app", json.dumps({"schemaVersion": 2, **document}).encode(), INDEX, "1.0")
    fake.fields["Content-Type"] = content_type
    assert client().root(REF).descriptor.media_type == kind


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, "schema 1"),
        ({"mediaType": "application/vnd.cncf.helm.config.v1+json", "config": {}}, "is not an image but"),
        ({"mediaType": INDEX, "manifests": [], "layers": [], "config": {}}, "but is not"),
        ({"mediaType": INDEX, "layers": [], "config": {}}, "but is not"),
        ({}, "but is not"),
        ([], "must be a mapping"),
    ],
)
def test_what_is_no_image_is_refused_and_not_stored(fake, client, store, document, why):
    fake.put("team/app", json.dumps(document).encode(), INDEX, "1.0")
    with pytest.raises(FetchError, match=why):
        client().root(REF)
    assert not list((store.root / "blobs" / "sha256").iterdir())


def test_a_manifest_over_four_mebibytes_is_refused(fake, client):
    fake.put("team/app", b" " * (4 << 20) + b"{}", INDEX, "1.0")
    with pytest.raises(FetchError, match="larger than"):
        client().root(REF)


def test_an_unknown_tag_and_an_unknown_repository_are_not_there(fake, client):
    fake.index("team/app", "1.0")
    with pytest.raises(NotThere) as caught:
        client().root(Reference.parse("reg.corp/team/app:2.0"))
    assert "reg.corp/team/app:2.0" in caught.value.message
    assert "MANIFEST_UNKNOWN: not known?[31m" in caught.value.message
    with pytest.raises(NotThere, match="NAME_UNKNOWN"):
        client().root(Reference.parse("reg.corp/team/other:2.0"))


# ---- manifests and blobs ---------------------------------------------------------------------------------------------


def test_a_manifest_is_fetched_once_and_verified(fake, client, store, site):
    said = read(fake.image("team/app"))
    registry = client()
    assert registry.manifest(REF, said) == registry.manifest(REF, said) == store.read(said.digest, limit=1 << 20)
    assert len(site.seen) == 1


def test_a_registry_that_lies_about_a_manifest_is_caught(fake, client, store):
    said = read(fake.image("team/app"))
    fake.manifests["team/app"][str(said.digest)] = (MANIFEST, b"{}")
    with pytest.raises(DigestMismatch) as caught:
        client().manifest(REF, said)
    assert str(said.digest) in caught.value.message
    assert not store.has(said.digest)


def test_a_blob_goes_on_after_a_reset_and_the_gauge_ends_at_its_size(fake, client, store, site):
    data = bytes(range(256)) * 1000
    said = read(fake.blob(data, "x"))
    fake.blobs[str(said.digest)].trouble = [reset_after(100_000)]
    gauge = Gauge()
    client().blob(REF, said, gauge=gauge)
    assert store.has(said.digest)
    assert sum(gauge.steps) == len(data)
    path = f"/v2/team/app/blobs/{said.digest}"
    assert site.sent(path) == len(data)
    gauge = Gauge()
    client().blob(REF, said, gauge=gauge)
    assert sum(gauge.steps) == len(data)
    assert len(site.asked(path)) == 2


@pytest.mark.parametrize("lie", [b"short", b"a longer one than was promised", b"same-sized one"])
def test_a_registry_that_lies_about_a_blob_is_caught(fake, client, store, lie):
    said = read(fake.blob(b"the right one!", "x"))
    fake.blobs[str(said.digest)].data = lie
    with pytest.raises(DigestMismatch, match=r"reg\.corp/team/app:1\.0"):
        client().blob(REF, said)
    assert not store.has(said.digest)


def test_a_blob_behind_a_redirect_comes_without_our_token_being_sent_there(fake, client, store, site):
    fake.auth = "bearer"
    said = read(fake.blob(b"blob", "x"))
    file = fake.blobs[str(said.digest)]
    site.routes["/cdn"] = file
    fake.blobs[str(said.digest)] = lambda e, s: e.give(307, b"", Location=site.url("/cdn?sig=x", host="localhost"))
    client().blob(REF, said)
    assert store.has(said.digest)
    (seen,) = site.asked("/cdn")
    assert "Authorization" not in seen.headers


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_a_mirror_with_a_path_gets_it_before_the_repository(fake, client, site):
    fake.index("docker.io/library/alpine", "3.22")
    registry = client(hosts={"docker.io": [site.url("/docker.io/")]})
    assert registry.root(Reference.parse("alpine:3.22")).url == site.url("/v2/docker.io/library/alpine/manifests/3.22")
    assert registry.tags(Reference.parse("alpine:3.22")) == ["3.22"]


def test_addresses_are_tried_in_order_whatever_is_wrong_with_the_first(fake, client, store, site, listener):
    said = fake.index("team/app", "1.0")
    layer = read(fake.blob(b"blob", "x"))
    with serving() as broken:
        registry = client(hosts={"reg.corp": ["http://127.0.0.1:9", broken.url(""), site.url("")]})
        broken.fallback = lambda e, s: e.give(200, b"<html>", Content_Type="text/html")
        assert registry.root(REF).descriptor == read(said)
        registry.blob(REF, layer)
    assert store.has(layer.digest)
    assert listener.said("source-failed")


def test_all_failures_are_told_if_none_has_it(fake, client, site):
    registry = client(hosts={"reg.corp": ["http://127.0.0.1:9", site.url("")]})
    with pytest.raises(FetchError) as caught:
        registry.root(REF)
    assert not isinstance(caught.value, NotThere)
    assert "refused" in caught.value.message
    assert "has no such image" in caught.value.message


def test_an_unknown_registry_is_at_its_name_over_tls(stack, store, listener):
    asked = []

    class Web2:
        def __init__(self):
            self.store, self.progress = store, listener

        def head(self, url, **_):
            asked.append(url)
            raise NotThere("x")

        get = head

    registry = Registry(web=Web2(), credentials=Credentials({}, run=no_helper), hosts={"quay.io": []})
    for name in ("alpine", "quay.io/a/b", "localhost:5000/a"):
        with pytest.raises(NotThere):
            registry.root(Reference.parse(name))
    assert asked[::2] == [
        "https://registry-1.docker.io/v2/library/alpine/manifests/latest",
        "https://quay.io/v2/a/b/manifests/latest",
        "https://localhost:5000/v2/a/manifests/latest",
    ]


@pytest.mark.parametrize("address", ["quay.io", "ftp://quay.io", "https://", "https://[::1"])
def test_an_address_that_is_none_is_a_complaint_about_the_manifest(client, address):
    with pytest.raises(ManifestError, match="sources"):
        client(hosts={"quay.io": [address]})


# ---- logins ----------------------------------------------------------------------------------------------------------


def test_a_token_is_got_once_for_a_repository_and_used_for_all_its_requests(fake, client, site):
    fake.auth = "bearer"
    fake.index("team/app", "1.0")
    fake.index("team/other", "1.0")
    registry = client()
    registry.root(REF)
    registry.tags(REF)
    (seen,) = site.asked("/token")
    assert "Authorization" not in seen.headers
    assert "scope=repository%3Ateam%2Fapp%3Apull" in seen.path
    registry.root(Reference.parse("reg.corp/team/other:1.0"))
    assert len(site.asked("/token")) == 2


def test_a_token_that_is_no_longer_taken_is_got_again_also_amid_a_download(fake, client, store, site):
    fake.auth, fake.uses = "bearer", 1
    data = b"x" * 200_000
    said = read(fake.blob(data, "x"))
    fake.blobs[str(said.digest)].trouble = [reset_after(50_000), reset_after(50_000)]
    client().blob(REF, said)
    assert store.has(said.digest)
    assert len(site.asked("/token")) == 3


def test_many_threads_share_one_token(fake, client, site):
    fake.auth = "bearer"
    blobs = [read(fake.blob(bytes([number]) * 1000, "x")) for number in range(8)]
    registry = client()
    threads = [threading.Thread(target=registry.blob, args=(REF, blob)) for blob in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(registry._store.has(blob.digest) for blob in blobs)
    assert len(site.asked("/token")) == 1


def test_a_login_goes_to_the_token_service_and_only_the_token_to_the_registry(fake, client, site):
    fake.auth, fake.private, fake.users = "bearer", True, {"me": "pw"}
    fake.index("team/app", "1.0")
    client(login=Login(user="me", password="pw")).root(REF)
    (seen,) = site.asked("/token")
    assert seen.headers["Authorization"].startswith("Basic ")
    assert {item.headers.get("Authorization", "")[:7] for item in site.seen if item.path != seen.path} == {"", "Bearer "}


def test_an_identity_token_is_exchanged_by_post(fake, client, site):
    fake.auth, fake.private, fake.users = "bearer", True, {"me": "the identity"}
    fake.index("team/app", "1.0")
    client(login=Login(identity="the identity")).root(REF)
    (seen,) = site.asked("/token", "POST")
    assert "the+identity" in seen.body.decode()


def test_basic_is_given_where_basic_is_wanted_and_an_address_may_bring_its_own_user(fake, client, site):
    fake.auth, fake.users = "basic", {"me": "p:w@"}
    fake.index("team/app", "1.0")
    client(login=Login(user="me", password="p:w@")).root(REF)
    fake.image("team/app", "1.0")
    registry = client(hosts={"reg.corp": [site.url("").replace("//", "//me:p%3Aw%40@")]})
    assert "p:w" not in registry.root(REF).url


@pytest.mark.parametrize("auth", ["bearer", "basic"])
@pytest.mark.parametrize("logins", [{}, {"login": Login(user="me", password="s3cret")}])
def test_being_kept_out_names_the_image_and_the_login_command(fake, client, site, auth, logins):
    fake.auth, fake.private = auth, True
    fake.index("team/app", "1.0")
    with pytest.raises(FetchError) as caught:
        client(**logins).root(REF)
    assert "reg.corp/team/app:1.0" in caught.value.message
    assert f"docker login 127.0.0.1:{site.port}" in caught.value.hint
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"
    assert len(site.seen) < 10


def test_a_repository_that_refuses_even_our_token_is_explained(fake, client, site):
    fake.auth, fake.uses = "bearer", 0
    with pytest.raises(FetchError, match="UNAUTHORIZED: authentication required") as caught:
        client().root(REF)
    assert "do not exist" in caught.value.hint


def test_a_token_service_without_tls_gets_no_login_of_a_registry_with_it(client):
    keys = client(login=Login(user="me", password="pw"))._keys
    with pytest.raises(FetchError, match="cannot be sent safely"):
        keys._token("https://reg.corp/v2/a/manifests/1", Challenge("bearer", {"realm": "http://auth.corp/token"}), None)


def test_a_token_that_could_forge_header_fields_is_refused(fake, client, site):
    fake.auth = "bearer"
    site.routes["/token"] = lambda e, s: e.give(200, json.dumps({"token": "a b"}).encode())
    with pytest.raises(AirgapError, match="no header field may"):
        client().root(REF)


# ---- limits and lists ------------------------------------------------------------------------------------------------


def test_a_low_rate_limit_is_told_once(fake, client, listener):
    fake.index("team/app", "1.0", "1.1", "1.2")
    fake.fields.update({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"})
    registry = client()
    registry.root(REF)
    assert not listener.said("rate-limit")
    fake.fields["ratelimit-remaining"] = "9;w=21600"
    for tag in ("1.1", "1.2"):
        fake.image("team/app", tag, layers=(tag.encode(),))
        registry.root(Reference.parse(f"reg.corp/team/app:{tag}"))
    (text,) = listener.said("rate-limit")
    assert "9 more images of 100" in text
    assert "docker login" in text


def test_too_many_requests_says_to_wait_or_log_in(fake, client, site, listener):
    site.fallback = lambda e, s: e.give(429, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow"}]}', Retry_After="9999")
    with pytest.raises(FetchError, match="TOOMANYREQUESTS: slow") as caught:
        client().root(REF)
    assert "docker login" in caught.value.hint
    assert listener.said("rate-limit")


def test_tags_are_listed_over_pages_and_never_from_elsewhere(fake, client, site):
    fake.index("team/app", "1", "2", "3", "4", "5")
    assert client().tags(REF) == ["1", "2", "3", "4", "5"]
    assert len(site.asked("/v2/team/app/tags/list")) == 3
    pages = iter([{"Link": '<http://evil.invalid/v2/team/app/tags/list?last=x>; rel="next"'}, {}])
    site.routes["/v2/team/app/tags/list"] = lambda e, s: e.give(200, b'{"tags": ["a"]}', **next(pages))
    assert client().tags(REF) == ["a", "a"]


def test_a_list_without_an_end_ends(fake, client, site):
    site.routes["/v2/team/app/tags/list"] = lambda e, s: e.give(200, b'{"tags": ["a"]}', Link='<?last=a>; rel="next"')
    assert len(client().tags(REF)) == 50
    site.routes["/v2/team/app/tags/list"] = lambda e, s: e.give(200, b'{"name": "team/app", "tags": null}')
    assert client().tags(REF) == []
