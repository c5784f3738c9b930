"""The engine, by its API: against a server on a unix socket that knows the paths we use and refuses every other."""

import contextlib
import io
import json
import re
import socketserver
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from airgap.errors import DigestMismatch
from airgap.machine.daemon import Daemon, DaemonError
from airgap.oci import Platform

ID = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An engine's API, as strict as the real one: `api` and `least` bound what clients may speak."""

    daemon_threads = True

    def __init__(self, path: Path, *, api: str = "1.51", least: str = "1.24", version: str = "28.5.2") -> None:
        super().__init__(str(path), Handler)
        self.url = f"unix://{path}"
        self.api, self.least, self.version = api, least, version
        self.store = "overlay2"
        self.images: dict[str, str] = {"docker.io/library/alpine:3.22": ID}
        self.used: set[str] = set()
        self.containers: dict[str, dict] = {}
        self.volumes: set[str] = set()
        self.seen: list[str] = []
        self.unknown: list[str] = []
        self.load_lines: list[dict] = [{"stream": "Loaded image: alpine:3.22\n"}]
        self.load_status = 200
        self.load_silence = 0.0
        self.load_gives_up_after: int | None = None
        self.loaded = b""
        self.save_pieces: list[bytes] = [b"one", b"two"]
        self.save_breaks = False
        self.chunked = True

    def handle_error(self, request: object, client_address: object) -> None:
        return


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *arguments: object) -> None:
        return

    def reply(self, status: int, value: object = None, *, raw: bytes | None = None) -> None:
        body = raw if raw is not None else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Api-Version", self.server.api)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, pieces: list[bytes], *, breaks: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if breaks:
            self.connection.shutdown(2)
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def route(self) -> None:
        engine = self.server
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        engine.seen.append(f"{self.command} {path}")
        if (self.command, path) == ("GET", "/version"):
            self.reply(200, {"Version": engine.version, "ApiVersion": engine.api, "MinAPIVersion": engine.least})
            return
        found = re.match(r"/v(\d+\.\d+)(/.*)", path)
        if not found:
            engine.unknown.append(path)
            self.reply(404, {"message": "page not found"})
            return
        asked, least, most = (tuple(map(int, text.split("."))) for text in (found[1], engine.least, engine.api))
        if not least <= asked <= most:
            self.reply(400, {"message": f"client version {found[1]} is not supported. Minimum {engine.least}, maximum {engine.api}"})
            return
        for method, pattern, action in ROUTES:
            matched = re.fullmatch(pattern, found[2])
            if method == self.command and matched:
                action(self, query, *matched.groups())
                return
        engine.unknown.append(f"{self.command} {path}")
        self.reply(404, {"message": "page not found"})

    do_GET = do_POST = do_DELETE = route

    def body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def json(self) -> dict:
        return json.loads(b"".join(self.body()) or b"{}")

    def version(self, query: dict) -> None:
        self.reply(200, {"Version": self.server.version, "ApiVersion": self.server.api, "MinAPIVersion": self.server.least})

    def info(self, query: dict) -> None:
        status = [["Backing Filesystem", "extfs"]] if self.server.store == "overlay2" else [["driver-type", "io.containerd.snapshotter.v1"]]
        hosts = {"docker.io": {"Secure": True}, "harbor.site": {"Secure": False}}
        registries = {"Mirrors": ["https://mirror.site/"], "IndexConfigs": hosts}
        self.reply(200, {"DockerRootDir": "/data", "Driver": "overlay2", "DriverStatus": status, "LiveRestoreEnabled": True,
                         "RegistryConfig": registries})

    def list_containers(self, query: dict) -> None:
        every = query.get("all") == ["1"]
        rows = [{"Id": row["Id"], "Names": [f"/{name}", f"/other/{name}"]} for name, row in self.server.containers.items()
                if every or row["State"]["Status"] == "running"]
        self.reply(200, rows)

    def container(self, query: dict, name: str) -> None:
        row = self.server.containers.get(name)
        self.reply(200, row) if row else self.reply(404, {"message": f"No such container: {name}"})

    def container_logs(self, query: dict, name: str) -> None:
        if name not in self.server.containers:
            self.reply(404, {"message": f"No such container: {name}"})
            return
        assert query["tail"] == ["20"]
        line = b"could not \x1b[31mlock\n"
        self.stream([b"\x02\0\0\0" + len(line).to_bytes(4, "big") + line])

    def delete_container(self, query: dict, name: str) -> None:
        gone = self.server.containers.pop(name, None)
        self.reply(204) if gone else self.reply(404, {"message": f"No such container: {name}"})

    def start(self, query: dict, name: str) -> None:
        list(self.body())
        self.server.containers[name]["State"]["Status"] = "running"
        self.reply(204)

    def volume(self, query: dict, name: str) -> None:
        there = name in self.server.volumes
        self.reply(200, {"Name": name}) if there else self.reply(404, {"message": f"get {name}: no such volume"})

    def delete_volume(self, query: dict, name: str) -> None:
        if name not in self.server.volumes:
            self.reply(404, {"message": f"get {name}: no such volume"})
            return
        self.server.volumes.discard(name)
        self.reply(204)

    def image(self, query: dict, name: str) -> None:
        identity = name if name in self.server.images.values() else self.server.images.get(name)
        if identity is None:
            self.reply(404, {"message": f"No such image: {name}"})
            return
        tags = [tag for tag, value in self.server.images.items() if value == identity]
        self.reply(200, {"Id": identity, "Os": "linux", "Architecture": "arm64", "Variant": "v8", "RepoTags": tags, "Size": 7})

    def delete_image(self, query: dict, name: str) -> None:
        if name in self.server.used:
            self.reply(409, {"message": f"conflict: unable to remove {name}"})
        elif self.server.images.pop(name, None):
            self.reply(200, [{"Untagged": name}])
        else:
            self.reply(404, {"message": f"No such image: {name}"})

    def tag(self, query: dict, name: str) -> None:
        list(self.body())
        identity = name if name in self.server.images.values() else self.server.images[name]
        self.server.images[f"{query['repo'][0]}:{query['tag'][0]}"] = identity
        self.reply(201)

    def load(self, query: dict) -> None:
        engine = self.server
        assert query == {"quiet": ["1"]}
        assert self.headers["Content-Type"] == "application/x-tar"
        taken = bytearray()
        for piece in self.body():
            taken += piece
            if engine.load_gives_up_after is not None and len(taken) > engine.load_gives_up_after:
                self.reply(500, {"message": "write /data/tmp: no space left on device"})
                self.close_connection = True
                return
        engine.loaded = bytes(taken)
        time.sleep(engine.load_silence)
        if engine.load_status != 200:
            self.reply(engine.load_status, {"message": "Error processing tar file(exit status 1): unexpected EOF"})
            return
        lines = [json.dumps(line).encode() + b"\r\n" for line in engine.load_lines]
        self.stream(lines) if engine.chunked else self.reply(200, raw=b"".join(lines))

    def save(self, query: dict, name: str) -> None:
        if name not in self.server.images:
            self.reply(404, {"message": f"No such image: {name}"})
            return
        self.stream(self.server.save_pieces, breaks=self.server.save_breaks)


ROUTES = [
    ("GET", "/version", Handler.version),
    ("GET", "/info", Handler.info),
    ("GET", "/containers/json", Handler.list_containers),
    ("GET", "/containers/([^/]+)/json", Handler.container),
    ("GET", "/containers/([^/]+)/logs", Handler.container_logs),
    ("DELETE", "/containers/([^/]+)", Handler.delete_container),
    ("POST", "/containers/([^/]+)/start", Handler.start),
    ("GET", "/volumes/([^/]+)", Handler.volume),
    ("DELETE", "/volumes/([^/]+)", Handler.delete_volume),
    ("POST", "/images/load", Handler.load),
    ("GET", "/images/(.+)/json", Handler.image),
    ("GET", "/images/(.+)/get", Handler.save),
    ("POST", "/images/(.+)/tag", Handler.tag),
    ("DELETE", "/images/(.+)", Handler.delete_image),
]


@contextlib.contextmanager
def serving(path: Path, **facts: str) -> Iterator[Engine]:
    engine = Engine(path, **facts)
    thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        engine.shutdown()
        engine.server_close()
        path.unlink()
        thread.join()
    assert not engine.unknown


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with serving(tmp_path / "s") as engine:
        yield engine


@pytest.fixture
def daemon(engine: Engine) -> Daemon:
    return Daemon(engine.url, timeout=5)


def test_nothing_is_dialled_before_the_first_call():
    Daemon("unix:///nowhere/docker.sock")


def test_an_engine_that_is_not_there_is_said_with_its_address_and_the_reason():
    with pytest.raises(DaemonError, match=r"no Docker engine answers at unix:///nowhere/s.sock: No such file") as caught:
        Daemon.connect("unix:///nowhere/s.sock")
    assert caught.value.hint


def test_it_says_what_the_engine_is(engine: Engine, daemon: Daemon):
    engine.containers = {"db": made("db", "running"), "old": made("old", "exited")}
    info = daemon.info()
    assert (info.version, info.api, info.data_root, info.store, info.live_restore) == ("28.5.2", "1.51", "/data", "classic", True)
    assert (info.running, info.mirrors, info.insecure) == (("db",), ("https://mirror.site/",), ("harbor.site",))
    assert daemon.containers() == ("db", "old")


def test_the_containerd_store_is_told_from_the_classic_one(engine: Engine, daemon: Daemon):
    engine.store = "overlayfs"
    assert daemon.info().store == "containerd"


ENGINES = [("1.39", "1.12", "18.09.6"), ("1.40", "1.12", "19.03.15"), ("1.55", "1.40", "29.7.2")]


@pytest.mark.parametrize(("api", "least", "version"), ENGINES)
def test_every_engine_generation_is_spoken_to_in_its_own_version(tmp_path: Path, api: str, least: str, version: str):
    with serving(tmp_path / "s", api=api, least=least, version=version) as engine:
        daemon = Daemon(engine.url)
        assert daemon.version() == version
        assert daemon.image(ID) is not None
        assert daemon.load(iter([b"tar"])) == ("Loaded image: alpine:3.22",)
        assert engine.seen[-1] == f"POST /v{api}/images/load"


def test_an_engine_that_was_replaced_meanwhile_is_asked_anew(tmp_path: Path):
    with serving(tmp_path / "s", api="1.39", version="18.09.6") as engine:
        daemon = Daemon(engine.url)
        assert daemon.version() == "18.09.6"
    with serving(tmp_path / "s", api="1.55", least="1.44", version="29.1.0"):
        assert daemon.info().version == "29.1.0"


def test_an_image_is_known_by_name_and_by_id_with_its_platform(daemon: Daemon):
    facts = daemon.image("docker.io/library/alpine:3.22")
    assert facts is not None
    assert (facts.id, facts.platform, facts.tags) == (ID, Platform("linux", "arm64"), ("docker.io/library/alpine:3.22",))
    assert daemon.image(ID) == facts
    assert daemon.image("docker.io/library/none:1") is None


def test_a_load_streams_every_byte_and_returns_the_lines(engine: Engine, daemon: Daemon):
    pieces = [bytes([number]) * 100_000 for number in range(20)]
    assert daemon.load(iter(pieces), name="alpine:3.22") == ("Loaded image: alpine:3.22",)
    assert engine.loaded == b"".join(pieces)


def test_a_load_whose_answer_is_not_chunked_is_read_line_by_line(engine: Engine, daemon: Daemon):
    engine.chunked = False
    engine.load_lines = [{"stream": "Loaded image: a:1\n"}, {"stream": "Loaded image: b:1\n"}]
    assert daemon.load(iter([b"tar"])) == ("Loaded image: a:1", "Loaded image: b:1")


def test_an_engine_that_unpacks_for_longer_than_the_timeout_is_waited_for(engine: Engine):
    engine.load_silence = 2.0
    assert Daemon(engine.url, timeout=0.5).load(iter([b"tar"])) == ("Loaded image: alpine:3.22",)


@pytest.mark.parametrize(
    "line",
    [
        {"errorDetail": {"message": "invalid tar header"}, "error": "invalid tar header"},
        {"errorDetail": {"message": "invalid tar header"}},
        {"error": "invalid tar header"},
        {"stream": "Error unpacking image alpine:3.22: invalid tar header\n"},
    ],
)
def test_an_error_among_the_lines_of_a_load_is_an_error(engine: Engine, daemon: Daemon, line: dict):
    engine.load_lines = [{"stream": "Loaded image: x"}, line]
    with pytest.raises(DaemonError, match=r"could not load alpine:3\.22: .*invalid tar header"):
        daemon.load(iter([b"tar"]), name="alpine:3.22")


def test_a_load_that_is_refused_carries_the_engines_words(engine: Engine, daemon: Daemon):
    engine.load_status = 500
    with pytest.raises(DaemonError, match="unexpected EOF") as caught:
        daemon.load(iter([b"tar"]))
    assert caught.value.status == 500


def test_an_engine_that_gives_up_in_the_middle_of_a_load_is_a_daemon_error(engine: Engine, daemon: Daemon):
    engine.load_gives_up_after = 1 << 20
    with pytest.raises(DaemonError):
        daemon.load(b"x" * 100_000 for _ in range(1000))


def test_what_the_stream_raises_comes_through_and_the_engine_sees_no_whole_archive(engine: Engine, daemon: Daemon):
    def broken() -> Iterator[bytes]:
        yield b"begin"
        raise DigestMismatch("not the bytes that were promised")

    with pytest.raises(DigestMismatch):
        daemon.load(broken())
    assert engine.loaded == b""


def test_a_save_streams_and_a_break_in_it_is_a_daemon_error(engine: Engine, daemon: Daemon):
    assert b"".join(daemon.save("docker.io/library/alpine:3.22")) == b"onetwo"
    engine.save_breaks = True
    with pytest.raises(DaemonError):
        list(daemon.save("docker.io/library/alpine:3.22"))
    with pytest.raises(DaemonError, match="No such image"):
        list(daemon.save("docker.io/library/none:1"))


def test_a_saved_archive_can_be_read_as_a_tar(engine: Engine, daemon: Daemon):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    engine.save_pieces = [buffer.getvalue()]
    with tarfile.open(fileobj=io.BytesIO(b"".join(daemon.save("docker.io/library/alpine:3.22")))) as tar:
        assert tar.getnames() == ["manifest.json"]


def test_tags_are_set_moved_and_removed(engine: Engine, daemon: Daemon):
    engine.images["docker.io/library/other:1"] = OTHER
    daemon.tag(ID, "127.0.0.1:1/moby/buildkit:v0.25.1")
    daemon.tag("docker.io/library/other:1", "127.0.0.1:1/moby/buildkit:v0.25.1")
    assert engine.images["127.0.0.1:1/moby/buildkit:v0.25.1"] == OTHER
    assert daemon.remove("127.0.0.1:1/moby/buildkit:v0.25.1")
    assert not daemon.remove("127.0.0.1:1/moby/buildkit:v0.25.1")


def test_an_image_in_use_is_a_conflict(engine: Engine, daemon: Daemon):
    engine.used.add("docker.io/library/alpine:3.22")
    with pytest.raises(DaemonError) as caught:
        daemon.remove("docker.io/library/alpine:3.22")
    assert caught.value.status == 409


def test_a_container_is_known_with_its_image_environment_and_log(engine: Engine, daemon: Daemon):
    engine.containers["b0"] = made("b0", "running")
    facts = daemon.container("b0")
    assert facts is not None
    assert (facts.name, facts.image, facts.running, facts.environment) == ("b0", ID, True, {"AIRGAP_FINGERPRINT": "f=1", "EMPTY": ""})
    assert daemon.logs("b0") == "could not ?[31mlock"
    assert daemon.container("none") is None
    assert daemon.logs("none") == ""


def test_containers_and_volumes_are_started_and_removed(engine: Engine, daemon: Daemon):
    engine.containers["b0"] = made("b0", "exited")
    engine.volumes.add("b0_state")
    daemon.start_container("b0")
    assert engine.containers["b0"]["State"]["Status"] == "running"
    assert (daemon.remove_container("b0"), daemon.remove_container("b0")) == (True, False)
    assert (daemon.volume("b0_state"), daemon.remove_volume("b0_state"), daemon.remove_volume("b0_state")) == (True, True, False)
    assert not daemon.volume("b0_state")



def test_an_answer_that_is_no_json_is_a_daemon_error(tmp_path: Path):
    class Babble(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "s"), Babble) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with pytest.raises(DaemonError):
            Daemon(f"unix://{tmp_path / 's'}").info()
        server.shutdown()


def made(name: str, status: str) -> dict:
    environment = ["AIRGAP_FINGERPRINT=f=1", "EMPTY="]
    return {"Id": "c" * 64, "Name": f"/{name}", "Image": ID, "State": {"Status": status},
            "Config": {"Env": environment, "Labels": None, "Tty": False}}
