"""Files and links: placed out of the bundle, written, linked. Undo puts back exactly what was there."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from airgap import elf
from airgap.document import dump_json, parse_json
from airgap.errors import BundleError, HostUnsuitable
from airgap.oci import MANIFEST_LIMIT, ImageManifest, Platform
from airgap.offline.changes.base import Context, Quiet, Record
from airgap.offline.host import Host, write_all
from airgap.offline.snapshot import file_digest, restore, snapshots, take
from airgap.steps import Link, PlaceFiles, PlaceImageFiles, WriteFile

PLACED: Final = "/var/lib/airgap/placed"
"""Which file on disk came out of which content: <content's hex>.json maps path to sha256, "" for one that the content lacks.
A memory and no more: without it the files are placed again."""


def remember(paths: Iterable[str], ctx: Context) -> Record:
    """The record of a change that touches only these paths."""
    return {"files": [take(ctx.host, path, ctx.saved).to_json() for path in paths]}


class _Paths(Quiet):
    """Undo for all changes that touch only the paths in their record."""

    def undo(self, step: object, record: Record, ctx: Context) -> None:  # noqa: ARG002
        for snapshot in reversed(snapshots(record)):
            restore(ctx.host, snapshot, ctx.saved)


# ---- placed out of the bundle ----------------------------------------------------------------------------------------


def _memory(host: Host, key: str) -> dict[str, str]:
    data = host.read(f"{PLACED}/{key}.json")
    try:
        node = parse_json(data or b"{}", name=f"{PLACED}/{key}.json", error=HostUnsuitable)
        return {path: value.text() for path, value in node.entries()}
    except HostUnsuitable:
        return {}


def _there(host: Host, paths: Iterable[str], *, mode: int, key: str) -> bool:
    """Whether each of these files is what was once placed there."""
    known = _memory(host, key)
    return all(path in known and _is(host, path, known[path], mode) for path in paths)


def _is(host: Host, path: str, digest: str, mode: int) -> bool:
    place = host.path(path)
    try:
        found = place.lstat()
    except FileNotFoundError:
        return digest == ""
    return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and file_digest(place) == digest


class _Placing(_Paths):
    def remember(self, paths: Iterable[str], *, mode: int, key: str, ctx: Context) -> Record | None:
        paths = tuple(paths)
        if _there(ctx.host, paths, mode=mode, key=key):
            return None
        return remember((*paths, f"{PLACED}/{key}.json"), ctx)

    def finish(self, paths: Mapping[str, str], *, key: str, ctx: Context) -> None:
        """`paths` maps each path to whether it was placed ("x") or is lacking ("")."""
        host = ctx.host
        placed = [path for path, mark in paths.items() if mark]
        if host.selinux() and host.which("chcon"):
            # Below /opt files get usr_t, which systemd may not start; a policy without bin_t does not mind either.
            host.ask(["chcon", "-t", "bin_t", *placed])
        memory = _memory(host, key) | {path: file_digest(host.path(path)) if mark else "" for path, mark in paths.items()}
        host.write(f"{PLACED}/{key}.json", dump_json(dict(sorted(memory.items()))))


class _Sink:
    """One file on its way: its machine is checked as soon as its first bytes are there."""

    def __init__(self, fd: int, *, name: str, platform: Platform, limit: int) -> None:
        self._fd = fd
        self._name = name
        self._platform = platform
        self._limit = limit
        self._size = 0
        self._head = b""

    def write(self, data: bytes) -> None:
        """Append; BundleError if it is no program of this platform, or too big."""
        self._size += len(data)
        if self._size > self._limit:
            raise BundleError(f"{self._name}: larger than the {self._limit} bytes it may have")
        if len(self._head) < elf.HEADER:
            self._head += data[: elf.HEADER - len(self._head)]
            if len(self._head) == elf.HEADER:
                self.check()
        write_all(self._fd, data)

    def check(self) -> None:
        """BundleError if this is no program of this platform; call it at the end for the sake of tiny files."""
        if not elf.runs_on(self._head, self._platform):
            machine = elf.machine_of(self._head)
            found = f"a program for {machine.architecture}" if machine else "no program"
            raise BundleError(f"{self._name} is {found}; this host is {self._platform}", hint="pack the bundle again")


class Placed(_Placing):
    """PlaceFiles: out of a tar, or one plain file."""

    def before(self, step: PlaceFiles, ctx: Context) -> Record | None:
        """Whether any file is missing or other than it was placed."""
        return self.remember((path for _, path in step.members), mode=step.mode, key=step.content.hex, ctx=ctx)

    def apply(self, step: PlaceFiles, ctx: Context) -> None:
        """All files appear at the end, when the content's digest is known to be right, or none."""
        with ctx.progress.gauge(step.describe(), step.size) as gauge:

            def counted() -> Iterator[bytes]:
                for piece in ctx.contents.content(step.content):
                    gauge.advance(len(piece))
                    yield piece

            found = self._plain(step, ctx, counted()) if step.members[0][0] == "" else self._tar(step, ctx, counted())
        for _, path in step.members:
            if path not in found:
                ctx.host.remove(path)
        self.finish({path: "x" if path in found else "" for _, path in step.members}, key=step.content.hex, ctx=ctx)

    def _plain(self, step: PlaceFiles, ctx: Context, pieces: Iterator[bytes]) -> set[str]:
        path = step.members[0][1]
        with ctx.host.placing(path, mode=step.mode) as fd:
            sink = _Sink(fd, name=path, platform=step.platform, limit=step.size)
            for piece in pieces:
                sink.write(piece)
            sink.check()
        return {path}

    def _tar(self, step: PlaceFiles, ctx: Context, pieces: Iterator[bytes]) -> set[str]:
        wanted = dict(step.members)
        found: dict[str, str] = {}
        # Every file is renamed on the way out of this stack: after the last byte of the content, or not at all.
        with ExitStack() as stack:
            try:
                with tarfile.open(fileobj=Pieces(pieces), mode="r|") as tar:
                    for member in tar:
                        name = member.name.removeprefix("./")
                        if name not in wanted:
                            continue
                        if name in found or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                            raise BundleError(f"{step.content}: {name!r} is there twice, or is no plain file")
                        found[name] = wanted[name]
                        self._member(step, ctx, tar.extractfile(member), stack, wanted[name])
            except (tarfile.TarError, EOFError) as cause:
                raise BundleError(f"{step.content}: is no whole tar ({cause})") from cause
            for _ in pieces:  # tar stops reading at its end mark; the digest covers what comes after, too
                continue
            missing = set(wanted) - set(found) - set(step.optional)
            if missing:
                raise BundleError(f"{step.content}: lacks {', '.join(sorted(missing))}", hint="pack the bundle again")
        return set(found.values())

    def _member(self, step: PlaceFiles, ctx: Context, file: io.BufferedIOBase | object, stack: ExitStack, path: str) -> None:
        fd = stack.enter_context(ctx.host.placing(path, mode=step.mode))
        sink = _Sink(fd, name=path, platform=step.platform, limit=step.size)
        while piece := file.read(1 << 20):  # type: ignore[union-attr]
            sink.write(piece)
        sink.check()


class PlacedFromImage(_Placing):
    """PlaceImageFiles: out of an image's layers."""

    def before(self, step: PlaceImageFiles, ctx: Context) -> Record | None:
        """Whether any file is missing or other than it was placed."""
        return self.remember((path for _, path in step.members), mode=step.mode, key=step.manifest.hex, ctx=ctx)

    def apply(self, step: PlaceImageFiles, ctx: Context) -> None:
        """All files appear at the end, or none."""
        from airgap.bundle.image import image_file

        data = ctx.contents.read(step.manifest, limit=MANIFEST_LIMIT)
        manifest = ImageManifest.parse(data, name=str(step.reference), error=BundleError)
        with ExitStack() as stack:
            for member, path in step.members:
                fd = stack.enter_context(ctx.host.placing(path, mode=step.mode))
                sink = _Sink(fd, name=path, platform=step.platform, limit=1 << 30)
                for piece in image_file(ctx.contents.open, manifest, member):
                    sink.write(piece)
                sink.check()
        self.finish({path: "x" for _, path in step.members}, key=step.manifest.hex, ctx=ctx)


class Pieces(io.RawIOBase):
    """Pieces as a file that can be read once, for tarfile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        """As io has it."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As io has it."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


# ---- written and linked ----------------------------------------------------------------------------------------------


class Written(_Paths):
    """WriteFile."""

    def before(self, step: WriteFile, ctx: Context) -> Record | None:
        """Whether content, mode or type differ."""
        place = ctx.host.path(step.path)
        if place.is_file() and not place.is_symlink():
            same = stat.S_IMODE(place.stat().st_mode) == step.mode and place.stat().st_uid == os.geteuid()
            if same and ctx.host.read(step.path) == step.text.encode():
                return None
        return remember([step.path], ctx)

    def apply(self, step: WriteFile, ctx: Context) -> None:
        """The file is there, whole."""
        ctx.host.write(step.path, step.text.encode(), mode=step.mode)


class Linked(_Paths):
    """Link."""

    def before(self, step: Link, ctx: Context) -> Record | None:
        """Whether it points elsewhere or is no link."""
        place = ctx.host.path(step.path)
        if place.is_symlink() and str(place.readlink()) == step.to:
            return None
        return remember([step.path], ctx)

    def apply(self, step: Link, ctx: Context) -> None:
        """The link is there."""
        ctx.host.link(step.path, step.to)
