"""Packing from the lab's upstream: killed at any moment, it goes on where it stopped; the same lock gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from airgap.lock import Lock
from tests.lab import site
from tests.lab.servers import Upstream

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.lab

KILLS = 10
RATE = 24 << 20
# What the server has handed to its own kernel when the client dies is counted as sent and was never received.
IN_FLIGHT = 2 << 20


def command(home: Path, disc: Path) -> list[str]:
    """One pack; the serial is given, so that runs can be compared."""
    named = {"-m": site.HERE / "site.yaml", "--sources": home.parent / "sources.yaml", "-o": disc, "--store": home / "store"}
    return site.airgap_words("pack", "--serial", "7", "--json", *(str(word) for pair in named.items() for word in pair))


def run(home: Path, disc: Path, *, kill_after: float | None = None) -> bool:
    """Whether the pack ended by itself, and well; SIGKILL for it and all its children after so many seconds."""
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(site.ROOT)}
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(
            command(home, disc), env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            code = process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
    assert code == 0, (home / "said").read_text()[-3000:]
    return True


def finished(home: Path) -> set[str]:
    """The digests (hex) that are whole in the store."""
    return {path.name for path in (home / "store/blobs/sha256").glob("*") if len(path.name) == 64}


def addresses(lock: Lock) -> dict[str, str]:
    """What the server calls a thing (the path of a request), by the digest of the bytes that it serves."""
    return {item.upstream.digest.hex: unquote(urlsplit(item.url).path) for item in lock.files}


def test_a_pack_killed_at_ten_random_moments_makes_the_same_bytes_and_fetches_nothing_finished_twice(tmp_path: Path) -> None:
    with Upstream(arches=("amd64",)) as upstream:
        (tmp_path / "sources.yaml").write_text(upstream.sources_yaml())
        upstream.traffic.rate = RATE
        quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
        started = time.monotonic()
        assert run(quiet, quiet / "disc")
        seconds = time.monotonic() - started
        (whole,) = (quiet / "disc").glob("airgap-*.tar")
        paths = addresses(Lock.parse((quiet / "disc/lab.lock.json").read_bytes(), name="the lock"))
        sizes = dict(upstream.served)

        before = dict(upstream.served)
        moments = random.Random(20251124)
        after_kills: list[tuple[set[str], dict[str, int]]] = []
        for _ in range(KILLS):
            if not run(disturbed, disturbed / "disc", kill_after=moments.uniform(0.2, seconds)):
                time.sleep(0.2)  # the server notices
                after_kills.append((finished(disturbed), dict(upstream.served)))
        assert len(after_kills) >= KILLS // 2, "most were killed before their end"
        assert run(disturbed, disturbed / "disc")
        (again,) = (disturbed / "disc").glob("airgap-*.tar")
        assert again.read_bytes() == whole.read_bytes()

        for digests, served in after_kills:
            for digest in digests:
                path = paths.get(digest, f"/blobs/sha256:{digest}")
                assert upstream.served[path] == served.get(path, 0), f"{path} was whole in the store and was fetched again"
        for path in (*paths.values(), *(path for path in sizes if path.startswith("/blobs/"))):
            took, size = upstream.served[path] - before.get(path, 0), sizes.get(path, 0)
            assert took <= size + len(after_kills) * IN_FLIGHT, f"{path}: {took} bytes went out for {size}"
    assert not list((disturbed / "disc").glob(".*")), "nothing half-made is left beside the bundle"


def test_the_same_lock_packed_twice_in_two_places_gives_the_same_bytes_and_other_tools_read_them(tmp_path: Path) -> None:
    with Upstream(arches=("amd64",)) as upstream:
        (tmp_path / "sources.yaml").write_text(upstream.sources_yaml())
        assert run(tmp_path / "one", tmp_path / "one/disc")
        (first,) = (tmp_path / "one/disc").glob("airgap-*.tar")
        words = ["pack", "--locked", str(tmp_path / "one/disc/lab.lock.json"), "--sources", str(tmp_path / "sources.yaml")]
        other = tmp_path / "two"
        other.mkdir()
        site.airgap(*words, "-o", str(other), home=other)
        (second,) = other.glob("airgap-*.tar")
        assert first.read_bytes() == second.read_bytes()
    seen = subprocess.run(["tar", "-tf", str(first)], check=True, capture_output=True, text=True).stdout.splitlines()
    assert {"install.sh", "README.txt", "oci-layout", "index.json"} <= set(seen)
    layout = tmp_path / "layout"
    layout.mkdir()
    subprocess.run(["tar", "-xf", str(first), "-C", str(layout)], check=True)
    subprocess.run(["skopeo", "inspect", f"oci:{layout}:docker.io/library/alpine:3.22"], check=True, capture_output=True)
