"""Downloads survive what networks do, and take nothing that is not what was asked for."""

import http.client
import os
import random
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import requests
import urllib3

from airgap.bundle.store import Store
from airgap.errors import AirgapError, DigestMismatch, FetchError
from airgap.oci import Digest
from airgap.online import transport
from airgap.online.headers import ContentRange, challenges, content_range, next_link, public, retry_after, validator
from airgap.online.transport import FOREIGN, Failure, Stopped, Transport
from airgap.online.web import NotThere, Web
from tests.serving import File, Site, end_after, in_turn, reset_after, serving, slowly, stall_after

DATA = random.Random(1).randbytes(300_000)
GZIP = b"\x1f\x8b" + DATA
KEY = "the-key"


class Listener:
    """A Progress that remembers."""

    def __init__(self):
        self.events = []
        self.gauges = {}

    @contextmanager
    def gauge(self, what, total, unit="B"):
        gauge = Gauge()
        self.gauges[what] = (total, gauge)
        yield gauge

    def say(self, event, text, **facts):
        self.events.append((event, text))

    def said(self, event):
        return [text for name, text in self.events if name == event]


class Gauge:
    def __init__(self):
        self.steps = []

    def advance(self, size):
        self.steps.append(size)


@pytest.fixture
def site():
    with serving() as site:
        yield site


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def web(store, listener, pauses):
    clock = {"pause": pauses.append, "now": lambda: 1_000_000.0}
    with Web(store=store, progress=listener, connect=2, stall=0.3, retries=3, **clock) as web:
        yield web


def get(web, *urls, expected=None, size=None, limit=1 << 20, expects=None, key=KEY, gauge=None, what="the file", door=None):
    return web.download(
        urls, key=key, expected=expected, size=size, limit=limit, what=what, expects=expects, gauge=gauge, door=door
    )


def partial(store):
    return (store.root / "partial" / KEY).read_bytes()


# ---- the whole file --------------------------------------------------------------------------------------------------


def test_a_file_is_in_the_store_afterwards_with_its_validator(site, web, store, listener):
    site.routes["/f"] = File(DATA)
    fetched = get(web, site.url("/f"))
    assert fetched.blob.digest == Digest.of(DATA)
    assert fetched.validator == '"v1"'
    assert store.read(fetched.blob.digest, limit=1 << 20) == DATA
    total, gauge = listener.gauges["the file"]
    assert (total, sum(gauge.steps)) == (len(DATA), len(DATA))


def test_a_file_that_is_in_the_store_is_not_fetched_again(site, web, store):
    site.routes["/f"] = File(DATA)
    digest = store.add(DATA)
    assert get(web, site.url("/f"), expected=digest).blob.size == len(DATA)
    assert not site.seen
    assert not list((store.root / "partial").iterdir())


def test_bytes_are_stored_as_served_whatever_encoding_is_claimed(site, web):
    site.routes["/f"] = File(GZIP, fields={"Content-Encoding": "gzip"})
    assert get(web, site.url("/f")).blob.digest == Digest.of(GZIP)
    assert site.seen[0].headers["Accept-Encoding"] == "identity"


def test_an_empty_file_is_a_file(site, web):
    site.routes["/f"] = File(b"")
    assert get(web, site.url("/f"), expected=Digest.of(b""), size=0).blob.size == 0


def test_a_chunked_answer_is_whole_when_its_last_chunk_came(site, web):
    def chunked(exchange, seen):
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        for start in range(0, len(DATA), 70_000):
            piece = DATA[start : start + 70_000]
            exchange.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        exchange.wfile.write(b"0\r\n\r\n")

    site.routes["/f"] = chunked
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)


def test_a_chunked_answer_without_its_end_is_not_taken_for_whole(site, web):
    def cut(exchange, seen):
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        exchange.wfile.write(b"%x\r\n%b\r\n" % (1000, DATA[:1000]))
        exchange.close_connection = True

    site.routes["/f"] = cut
    with pytest.raises(FetchError, match="broke off"):
        get(web, site.url("/f"))


def test_an_answer_that_does_not_say_how_long_it_is_is_refused_unless_a_digest_decides(site, web):
    def until_close(exchange, seen):
        exchange.head(200, {"Connection": "close"})
        exchange.send(DATA)
        exchange.close_connection = True

    site.routes["/f"] = until_close
    with pytest.raises(FetchError, match="does not say how long"):
        get(web, site.url("/f"))
    assert get(web, site.url("/f"), expected=Digest.of(DATA)).blob.size == len(DATA)


# ---- going on where it stopped ---------------------------------------------------------------------------------------


def test_after_a_reset_it_goes_on_at_the_byte_with_range_and_if_range(site, web, pauses):
    site.routes["/f"] = File(DATA, trouble=[reset_after(100_000)])
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    first, second = site.seen
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=100000-"
    assert second.headers["If-Range"] == '"v1"'
    assert site.sent("/f") == len(DATA)
    assert pauses == [0.5]


def test_last_modified_serves_where_there_is_no_etag(site, web):
    dates = {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT", "Date": "Tue, 03 Nov 2026 10:00:00 GMT"}
    site.routes["/f"] = File(DATA, etag="", fields=dates, trouble=[reset_after(1000)])
    fetched = get(web, site.url("/f"))
    assert fetched.validator == dates["Last-Modified"]
    assert site.seen[1].headers["If-Range"] == dates["Last-Modified"]


def test_a_weak_etag_is_no_ground_to_go_on(site, web):
    site.routes["/f"] = File(DATA, etag='W/"v1"', trouble=[reset_after(1000)])
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert "Range" not in site.seen[1].headers


def test_where_a_digest_decides_no_validator_is_needed_and_the_next_mirror_goes_on(site, web):
    site.routes["/a"] = File(DATA, etag="", trouble=[reset_after(100_000), *[lambda e, b: e.reset()] * 9])
    site.routes["/b"] = File(DATA, etag='"other"')
    assert get(web, site.url("/a"), site.url("/b"), expected=Digest.of(DATA)).blob.digest == Digest.of(DATA)
    (second,) = site.asked("/b")
    assert second.headers["Range"] == "bytes=100000-"
    assert "If-Range" not in second.headers


def test_a_file_that_changed_meanwhile_is_begun_again_and_the_gauge_rewinds(site, web, listener):
    new = DATA[::-1]
    file = File(DATA)

    def change(exchange, body):
        reset_after(100_000)(exchange, body)
        file.data, file.etag = new, '"v2"'

    file.trouble = [change]
    site.routes["/f"] = file
    fetched = get(web, site.url("/f"))
    assert (fetched.blob.digest, fetched.validator) == (Digest.of(new), '"v2"')
    steps = listener.gauges["the file"][1].steps
    assert sum(steps) == len(new)
    assert min(steps) == -100_000


def test_a_server_without_ranges_gives_the_whole_again(site, web):
    site.routes["/f"] = File(DATA, ranges=False, trouble=[reset_after(100_000)])
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert site.sent("/f") == len(DATA) + 100_000


@pytest.mark.parametrize("said", ["bytes 5-9/10", "bytes 99999-299999/300000", "bytes 100000-199999/300000", "items 1-2/3", ""])
def test_another_part_than_asked_for_never_joins_what_is_there(site, web, said):
    file = File(DATA, trouble=[reset_after(100_000)])
    site.routes["/f"] = in_turn(file, lambda e, s: e.give(206, DATA[100_000:], Content_Range=said), file)
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert "Range" not in site.seen[2].headers


def test_a_part_that_is_shorter_than_it_says_is_not_taken_for_the_rest(site, web):
    def short(exchange, seen):
        exchange.give(206, DATA[100_000:100_500], Content_Range="bytes 100000-299999/300000")

    file = File(DATA, trouble=[reset_after(100_000)])
    site.routes["/f"] = in_turn(file, short, file)
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert site.seen[2].headers["Range"] == "bytes=100500-"


def test_a_part_that_nobody_asked_for_is_refused(site, web):
    site.routes["/f"] = lambda e, s: e.give(206, DATA[:10], Content_Range="bytes 0-9/300000")
    with pytest.raises(FetchError, match="answers with a part"):
        get(web, site.url("/f"))


def killed_before_commit(store, data, validator='"v1"'):
    with store.intake(KEY) as intake:
        intake.restart(validator)
        intake.write(data)


def test_a_file_that_was_complete_when_the_process_died_is_not_fetched_again(site, web, store):
    killed_before_commit(store, DATA)
    site.routes["/f"] = File(DATA)
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert site.sent("/f") == 0


def test_with_a_known_size_a_complete_file_needs_no_question(site, web, store):
    killed_before_commit(store, DATA)
    assert get(web, site.url("/f"), expected=Digest.of(DATA), size=len(DATA)).blob.size == len(DATA)
    assert not site.seen


def test_a_file_that_is_shorter_now_than_what_came_before_is_begun_again(site, web, store):
    killed_before_commit(store, DATA + b"more")
    site.routes["/f"] = File(DATA)
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert [item.headers.get("Range") for item in site.seen] == [f"bytes={len(DATA) + 4}-", None]


def test_a_spoilt_beginning_is_thrown_away_once_and_the_whole_fetched(site, web, store):
    killed_before_commit(store, b"x" * 1000)
    site.routes["/f"] = File(DATA)
    assert get(web, site.url("/f"), expected=Digest.of(DATA)).blob.digest == Digest.of(DATA)
    assert [item.headers.get("Range") for item in site.seen] == ["bytes=1000-", None]


CHILD = """
import sys
from pathlib import Path
from airgap.bundle.store import Store
from airgap.oci import Digest
from airgap.online.web import Web
from airgap.progress import SILENT
store = Store(Path(sys.argv[1]))
with Web(store=store, progress=SILENT) as web:
    print(web.download([sys.argv[2]], key="k", expected=None, size=None, limit=1 << 30, what="f").blob.digest)
"""


def test_killed_again_and_again_it_goes_on_and_no_byte_that_arrived_is_fetched_twice(site, tmp_path):
    data = random.Random(2).randbytes(2_000_000)
    site.routes["/f"] = File(data, trouble=[slowly(20_000, 0.01)] * 99)
    argv = [sys.executable, "-c", CHILD, str(tmp_path / "store"), site.url("/f")]
    held = tmp_path / "store" / "partial" / "k"
    dice, kept = random.Random(3), []
    for _ in range(3):
        goal = (kept[-1] if kept else 0) + dice.randrange(100_000, 500_000)
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as child:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and child.poll() is None and not (held.exists() and held.stat().st_size >= goal):
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
        kept.append(held.stat().st_size)
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(Digest.of(data))
    begins = [int(item.headers.get("Range", "bytes=0-")[6:-1]) for item in site.asked("/f")]
    assert begins == [0, *kept]
    # Nothing that had arrived was asked for again; what was under way in sockets when it died is the only loss.
    assert kept == sorted(kept)


# ---- trying again ----------------------------------------------------------------------------------------------------


def test_a_stall_is_a_reason_to_go_on(site, web):
    site.routes["/f"] = File(DATA, trouble=[stall_after(50_000)])
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert site.seen[1].headers["Range"] == "bytes=50000-"


def test_pauses_double_until_it_gives_up(site, web, pauses, listener):
    site.routes["/f"] = lambda e, s: e.give(503)
    with pytest.raises(FetchError, match="answers with status 503"):
        get(web, site.url("/f"))
    assert pauses == [0.5, 1.0, 2.0]
    assert len(listener.said("retry")) == 3


def test_every_attempt_that_brings_bytes_counts_as_a_new_beginning(site, web, pauses):
    site.routes["/f"] = File(DATA, trouble=[reset_after(30_000)] * 9)
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert pauses == [0.5] * 9


@pytest.mark.parametrize(("said", "pause"), [("7", 7.0), ("Mon, 12 Jan 1970 13:46:55 GMT", 15.0), ("soon", 0.5)])
def test_retry_after_is_obeyed(site, web, pauses, said, pause):
    site.routes["/f"] = in_turn(lambda e, s: e.give(429, b"slow down", Retry_After=said), File(DATA))
    get(web, site.url("/f"))
    assert pauses == [pause]


def test_who_asks_for_hours_is_reported_instead_of_waited_for(site, web, pauses):
    site.routes["/f"] = lambda e, s: e.give(429, b"", Retry_After="21600")
    with pytest.raises(FetchError) as caught:
        get(web, site.url("/f"))
    assert pauses == []
    assert "wait 21600 s" in caught.value.hint


def test_what_no_retry_would_mend_is_not_tried_again(site, web, pauses):
    site.routes["/f"] = lambda e, s: e.give(403)
    with pytest.raises(FetchError, match="refuses") as caught:
        get(web, site.url("/f"))
    assert pauses == []
    assert "sources" in caught.value.hint


def test_a_body_that_ends_early_is_fetched_further(site, web):
    site.routes["/f"] = File(DATA, trouble=[end_after(1234)])
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert site.seen[1].headers["Range"] == "bytes=1234-"


def test_a_server_that_is_not_there_is_tried_and_named(web, pauses):
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9/f: the connection was refused"):
        get(web, "http://127.0.0.1:9/f")
    assert len(pauses) == 3


# ---- several sources -------------------------------------------------------------------------------------------------


def test_every_source_is_tried_in_order(site, web, listener):
    site.routes["/b"] = lambda e, s: e.give(403)
    site.routes["/c"] = File(DATA)
    fetched = get(web, site.url("/a"), site.url("/b"), site.url("/c"))
    assert fetched.url == site.url("/c")
    assert len(listener.said("source-failed")) == 2


def test_not_there_needs_the_word_of_all_sources(site, web):
    with pytest.raises(NotThere, match="404"):
        get(web, site.url("/a"))
    with pytest.raises(NotThere):
        get(web, site.url("/a"), site.url("/b"))
    site.routes["/b"] = lambda e, s: e.give(403)
    with pytest.raises(FetchError) as caught:
        get(web, site.url("/a"), site.url("/b"))
    assert not isinstance(caught.value, NotThere)
    assert "/a: is not there" in caught.value.message
    assert "/b: refuses" in caught.value.message


def test_410_means_not_there_too(site, web):
    site.routes["/a"] = lambda e, s: e.give(410)
    with pytest.raises(NotThere):
        get(web, site.url("/a"))


def test_other_bytes_than_promised_are_dropped_and_the_next_source_is_tried(site, web, store):
    site.routes["/a"] = File(DATA[::-1])
    site.routes["/b"] = File(DATA)
    assert get(web, site.url("/a"), site.url("/b"), expected=Digest.of(DATA)).url == site.url("/b")
    assert not store.has(Digest.of(DATA[::-1]))


def test_other_bytes_than_promised_from_everywhere_show_both_values(site, web, store):
    site.routes["/a"] = File(DATA[::-1])
    with pytest.raises(DigestMismatch) as caught:
        get(web, site.url("/a"), expected=Digest.of(DATA))
    assert str(Digest.of(DATA)) in caught.value.message
    assert str(Digest.of(DATA[::-1])) in caught.value.message
    assert not store.has(Digest.of(DATA[::-1]))
    with pytest.raises(DigestMismatch):
        get(web, site.url("/a"), site.url("/gone"), expected=Digest.of(DATA))


# ---- what is not taken -----------------------------------------------------------------------------------------------


def test_a_size_that_is_not_the_promised_one_is_refused_before_any_byte(site, web, store):
    site.routes["/f"] = File(DATA)
    with pytest.raises(DigestMismatch, match="300000 bytes of no stated type, where 7 bytes"):
        get(web, site.url("/f"), size=7)
    assert partial(store) == b""


def test_a_body_over_the_limit_is_refused_by_its_promise_and_by_its_bytes(site, web, store):
    def endless(exchange, seen):
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        while True:
            exchange.wfile.write(b"%x\r\n%b\r\n" % (1000, b"x" * 1000))

    site.routes["/f"], site.routes["/endless"] = File(DATA), endless
    with pytest.raises(FetchError, match="larger than the 1000 bytes"):
        get(web, site.url("/f"), limit=1000)
    with pytest.raises(FetchError, match="larger than the 5000 bytes"):
        get(web, site.url("/endless"), limit=5000)
    assert partial(store) == b""
    with pytest.raises(DigestMismatch, match="more than the 2500 bytes"):
        get(web, site.url("/endless"), size=2500, limit=2500)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in</title>", b"\xef\xbb\xbf\n <html>", b"please log in"])
def test_a_login_page_instead_of_a_file_is_called_one_and_never_enters_the_store(site, web, store, page):
    site.routes["/f"] = lambda e, s: e.give(200, page, Content_Type="text/html" if page[:1] == b"p" else "text/plain")
    with pytest.raises(FetchError, match="login page"):
        get(web, site.url("/f"), expects="gzip")
    assert partial(store) == b""


def test_a_login_page_does_not_spoil_what_came_before_it(site, web, store):
    killed_before_commit(store, GZIP[:1000])
    site.routes["/f"] = lambda e, s: e.give(200, b"<html>", Content_Type="text/html")
    with pytest.raises(FetchError, match="login page"):
        get(web, site.url("/f"), expects="gzip")
    assert partial(store) == GZIP[:1000]


def test_the_wrong_kind_of_file_is_refused_and_the_right_one_taken_whatever_its_type_says(site, web):
    site.routes["/f"] = File(GZIP, fields={"Content-Type": "text/html"})
    assert get(web, site.url("/f"), expects="gzip").blob.digest == Digest.of(GZIP)
    site.routes["/g"] = File(GZIP)
    with pytest.raises(FetchError, match="is not an executable; it begins with"):
        get(web, site.url("/g"), expects="elf")


def test_a_full_disk_says_what_is_missing_keeps_what_came_and_tries_no_other_source(site, web, store):
    site.routes["/f"] = File(DATA)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(FetchError, match="no room for the 200000 bytes still to come"):
            get(web, site.url("/f"), site.url("/other"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not site.asked("/other")
    assert partial(store) == DATA[:100_000]
    assert get(web, site.url("/f")).blob.digest == Digest.of(DATA)
    assert site.seen[-1].headers["Range"] == "bytes=100000-"


def test_a_document_is_bounded(site, web):
    site.routes["/f"] = File(DATA)
    assert web.text([site.url("/none"), site.url("/f")], limit=300_000) == (DATA, site.url("/f"))
    with pytest.raises(FetchError, match="larger than the 299999"):
        web.text([site.url("/f")], limit=299_999)
    with pytest.raises(NotThere):
        web.text([site.url("/none")], limit=10)


def test_head_brings_the_validator_only(site, web):
    site.routes["/f"] = File(DATA)
    assert web.head(site.url("/f")).validator == '"v1"'
    assert site.seen[0].method == "HEAD"


# ---- redirects and secrets -------------------------------------------------------------------------------------------


class Key:
    """A door with one key."""

    def headers(self, url):
        return {"Authorization": "Bearer secret"}

    def admit(self, url, headers, sent):
        return False


def to(url, status=302):
    return lambda e, s: e.give(status, b"elsewhere", Location=url)


def test_a_redirect_to_another_host_gets_no_credentials_but_the_range(site, web):
    site.routes["/a"] = to(site.url("/f", host="localhost") + "?signature=s3cret")
    site.routes["/f"] = File(DATA, trouble=[reset_after(100)])
    fetched = get(web, site.url("/a").replace("//", "//user:pw@"), door=Key())
    assert fetched.url == site.url("/a")
    first, second, third, fourth = site.seen
    assert (first.headers["Authorization"], third.headers["Authorization"]) == ("Bearer secret",) * 2
    assert "Authorization" not in second.headers
    assert "Authorization" not in fourth.headers
    assert fourth.headers["Range"] == "bytes=100-"


def test_a_redirect_on_the_same_host_keeps_them_and_an_address_may_name_a_user(site, web):
    site.routes["/a"] = to("f", 307)
    site.routes["/f"] = File(DATA)
    fetched = get(web, site.url("/a").replace("//", "//us%40er:pw@"))
    assert [item.headers["Authorization"] for item in site.seen] == ["Basic dXNAZXI6cHc="] * 2
    assert fetched.url == site.url("/a")


def test_a_circle_of_redirects_ends(site, web):
    site.routes["/a"] = to("/a", 301)
    with pytest.raises(FetchError, match="more than 10 redirects"):
        get(web, site.url("/a"))
    assert len(site.seen) == 11


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "http://[::1"])
def test_a_redirect_out_of_the_web_is_not_followed(site, web, target):
    site.routes["/a"] = to(target)
    with pytest.raises(FetchError, match="redirects to what is no"):
        get(web, site.url("/a"))


def test_netrc_is_never_sent_and_cookies_are_not_kept(site, web, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    site.routes["/f"] = File(DATA, fields={"Set-Cookie": "a=b"})
    get(web, site.url("/f"))
    get(web, site.url("/f"), key="again")
    assert all("Authorization" not in item.headers and "Cookie" not in item.headers for item in site.seen)


def test_the_proxy_of_the_environment_is_used(site, web, monkeypatch):
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", site.url(""))
    monkeypatch.setenv("http_proxy", site.url(""))
    site.routes["http://upstream.invalid/f"] = File(DATA)
    assert get(web, "http://upstream.invalid/f").blob.digest == Digest.of(DATA)


def test_a_ca_bundle_of_the_environment_that_is_missing_is_said(web, monkeypatch, pauses):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(FetchError, match="certificates to trust cannot be read"):
        get(web, "https://127.0.0.1:9/f")
    assert pauses == []


def test_secrets_in_addresses_are_in_no_message(site, web, listener):
    url = site.url("/f").replace("//", "//user:s3cret@") + "?token=s3cret"
    site.routes["/f"] = to("http://x:s3cret@127.0.0.1:9/g?sig=s3cret")
    with pytest.raises(FetchError) as caught:
        get(web, url, url)
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint} {listener.events}"
    with pytest.raises(FetchError) as caught:
        get(web, "https://user:s3cret@[::1/f?token=s3cret")
    assert "s3cret" not in caught.value.message


# ---- stopping --------------------------------------------------------------------------------------------------------


def test_cancel_ends_running_downloads_soon_and_what_came_is_kept(site, store, listener):
    site.routes["/f"] = File(DATA, trouble=[stall_after(50_000)])
    with Web(store=store, progress=listener, stall=30) as web:
        errors = []

        def run():
            try:
                get(web, site.url("/f"), site.url("/other"))
            except AirgapError as cause:
                errors.append(cause)

        thread = threading.Thread(target=run)
        thread.start()
        while not (store.root / "partial" / KEY).exists() or len(partial(store)) < 50_000:
            time.sleep(0.005)
        started = time.monotonic()
        web.cancel()
        thread.join(5)
        assert time.monotonic() - started < 1
        assert isinstance(errors[0], Stopped)
        assert partial(store) == DATA[:50_000]
        with pytest.raises(Stopped):
            get(web, site.url("/f"))
    assert not site.asked("/other")


def test_cancel_ends_a_pause(site, store, listener):
    site.routes["/f"] = lambda e, s: e.give(503, b"", Retry_After="60")
    with Web(store=store, progress=listener) as web:
        timer = threading.Timer(0.1, web.cancel)
        timer.start()
        started = time.monotonic()
        with pytest.raises(Stopped):
            get(web, site.url("/f"))
        assert time.monotonic() - started < 2
        timer.join()


def test_many_at_once(site, store, listener):
    files = {f"/f{number}": random.Random(number).randbytes(50_000) for number in range(12)}
    site.routes.update({path: File(data, trouble=[reset_after(20_000)]) for path, data in files.items()})
    with Web(store=store, progress=listener, pause=lambda seconds: None) as web:
        found = {}
        threads = [
            threading.Thread(target=lambda path=path: found.update({path: get(web, site.url(path), key=path[1:], what=path)}))
            for path in files
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {path: item.blob.digest for path, item in found.items()} == {path: Digest.of(data) for path, data in files.items()}


# ---- foreign exceptions stop at the transport ------------------------------------------------------------------------


def exceptions(*modules):
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return sorted(
        (item for item in found if issubclass(item, Exception) and not issubclass(item, Warning)), key=lambda item: item.__name__
    )


THEIRS = exceptions(requests.exceptions, urllib3.exceptions, http.client)


class Raising(requests.adapters.BaseAdapter):
    """Raises instead of sending, or instead of reading."""

    def __init__(self, error, *, late):
        super().__init__()
        self.error, self.late = error, late

    def send(self, request, **_):
        if not self.late:
            raise self.error
        response = requests.Response()
        response.status_code = 200
        response.headers["Content-Length"] = "10"
        response.raw = self
        return response

    def read1(self, amt, *, decode_content):
        raise self.error

    def close(self):
        return

    def release_conn(self):
        return


@pytest.mark.parametrize("late", [False, True], ids=["sending", "reading"])
@pytest.mark.parametrize("kind", THEIRS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_exception_of_the_libraries_becomes_ours_without_their_words(kind, late, store, listener, pauses):
    assert issubclass(kind, FOREIGN)
    error = kind.__new__(kind)
    Exception.__init__(error, "s3cret")
    way = Transport(connect=1, stall=1, adapter=Raising(error, late=late))
    with Web(store=store, progress=listener, transport=way, pause=pauses.append) as web, pytest.raises(FetchError) as caught:
        web.download(["http://x/y"], key="k", expected=None, size=None, limit=100, what="f")
    assert "s3cret" not in caught.value.message
    assert caught.value.message.startswith("http://x/y: ")


def test_the_transport_answers_a_stranger_that_speaks_no_http(web):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(4):
                client, _address = server.accept()
                with client:
                    client.recv(10_000)
                    client.sendall(b"220 smtp ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Failure, match=r"connection|HTTP"):
            get(web, f"http://127.0.0.1:{server.getsockname()[1]}/f")
        thread.join()


def test_tls_without_a_trusted_certificate_is_refused_with_the_cure(web, tmp_path, pauses):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out", tmp_path / "cert",
         "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with tls(context) as port:
        with pytest.raises(FetchError, match="certificate is not trusted") as caught:
            get(web, f"https://localhost:{port}/f")
        assert "REQUESTS_CA_BUNDLE" in caught.value.hint
        assert pauses == []
        with temporary_environment(REQUESTS_CA_BUNDLE=str(tmp_path / "cert")):
            assert web.text([f"https://localhost:{port}/f"], limit=10) == (b"hello", f"https://localhost:{port}/f")
            with pytest.raises(FetchError, match="from https to plain http"):
                get(web, f"https://localhost:{port}/down")


@contextmanager
def temporary_environment(**fields):
    before = {name: os.environ.get(name) for name in fields}
    os.environ.update(fields)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def tls(context):
    """A TLS server for a few requests: /f says hello, all else redirects to http."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while not stop.is_set():
                with suppress(OSError):
                    client, _ = server.accept()
                    with client, context.wrap_socket(client, server_side=True) as secure:
                        if b"GET /f " in secure.recv(10_000):
                            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                        else:
                            secure.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://localhost/f\r\n")
                            secure.sendall(b"Content-Length: 0\r\nConnection: close\r\n\r\n")

        stop = threading.Event()
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


# ---- header fields ---------------------------------------------------------------------------------------------------


def test_addresses_are_shown_without_what_may_be_secret():
    assert public("https://u:p@host:8443/a/b?x=y#z") == "https://host:8443/a/b"
    assert public("https://[::1/a?x=y") == "an address that is none"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"ETag": '"a"'}, '"a"'),
        ({"ETag": 'W/"a"'}, ""),
        ({"ETag": "a"}, ""),
        ({"ETag": 'W/"a"', "Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}, ""),
        ({"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT", "Date": "Mon, 02 Nov 2026 10:00:00 GMT"}, ""),
        ({"Last-Modified": "yesterday"}, ""),
        ({}, ""),
    ],
)
def test_only_strong_validators_count(fields, found):
    assert validator(fields) == found


def test_content_ranges_that_contradict_themselves_are_none():
    assert content_range("bytes 0-9/10") == ContentRange(0, 9, 10)
    assert content_range("bytes 0-9/*") == ContentRange(0, 9, None)
    assert content_range("bytes */10") == ContentRange(None, None, 10)
    for text in ("bytes 0-10/10", "bytes 5-4/10", "bytes 0-9", "lines 0-9/10", "bytes -1-9/10"):
        assert content_range(text) is None


def test_retry_after_reads_seconds_and_dates():
    assert retry_after("3", now=0) == 3
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=50) == 10
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=70) == 0
    assert retry_after("-3", now=0) is None
    assert retry_after("", now=0) is None


def test_challenges_are_read_with_quotes_commas_and_several_schemes():
    text = 'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"",scope="repository:a/b:pull,push", Basic realm=x, Negotiate'
    first, second, third = challenges(text)
    assert (first.scheme, second.scheme, third.scheme) == ("bearer", "basic", "negotiate")
    assert first.parameters == {"realm": "https://a/t?x=1,2", "service": 's "q"', "scope": "repository:a/b:pull,push"}
    assert second.parameters == {"realm": "x"}
    assert challenges("") == challenges(",,;") == ()


def test_the_next_page_is_found_among_links():
    assert next_link('</a?n=1>; rel="prev", </v2/x/tags/list?last=b>; rel="next"') == "/v2/x/tags/list?last=b"
    assert next_link('<x>; title="next"') == ""


def test_the_words_for_common_failures_are_plain():
    unknown = urllib3.exceptions.NameResolutionError("h", None, OSError("x"))
    assert transport.failure(unknown, "http://h/").message == "http://h/: the name h cannot be resolved"
    assert "NO_PROXY" in transport.failure(requests.exceptions.ProxyError("Tunnel"), "http://h/").hint


def test_sites_are_real(site: Site):
    site.routes["/x"] = File(b"abc")
    assert requests.get(site.url("/x"), timeout=5).content == b"abc"
