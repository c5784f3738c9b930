"""Files compressed for the bundle: zstd in independent frames, so that several cores make them and undo them.

The content is cut into equal frames, as few as memory allows. Measured over Debian's engine (193 MB tar) and buildx (70 MB),
against `zstd -3 -T0 --long=27`: frames of 8 MiB cost 21 % more bytes for the engine, 64 MiB 6 %, 92 MiB 0.6 % less, because
its programs share code tens of megabytes apart; for one program alone the cut costs nothing. Long-distance matches from 32
bytes on instead of 64 gain 1.5 % for no time. Undoing them one by one holds one frame in memory (112 MiB at most); where two
fit into that, two are undone at once.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Final, cast

import zstandard

from airgap.bundle.streams import PIECE, ahead, gunzip, pieces_of
from airgap.errors import AirgapError, DigestMismatch, FetchError
from airgap.lock import Blob
from airgap.oci import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from airgap.bundle.store import Store
    from airgap.document import Json, Node

LEVEL: Final = 3
WINDOW: Final = 27
LARGEST_FRAME: Final = 112 << 20
SPLIT_FROM: Final = 16 << 20
"""From this size on there are two frames at least, one for each core of the smallest machine."""
LARGEST_CONTENT: Final = 8 << 30

RECIPE: Final = (
    f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))} by zstandard {zstandard.__version__}: level {LEVEL}, window {WINDOW}, "
    f"ldm 32, frames of {LARGEST_FRAME >> 20} MiB, two from {SPLIT_FROM >> 20} MiB"
)
"""All that the compressed bytes depend on beside the content."""

Read = Callable[[int, int], bytes]
"""Exactly `size` bytes of a blob from `offset` on."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: bytes of content, and bytes it takes in the blob."""

    content: int
    blob: int


@dataclass(frozen=True, slots=True)
class Packed:
    """A file as the bundle carries it: its content, the blob, and the frames that make one out of the other."""

    content: Blob
    blob: Blob
    frames: tuple[Frame, ...]

    def to_json(self) -> dict[str, Json]:
        """For a note."""
        return {
            "content": self.content.to_json(),
            "blob": self.blob.to_json(),
            "frames": [[frame.content, frame.blob] for frame in self.frames],
        }

    @classmethod
    def read(cls, node: Node) -> Packed:
        """From a note; the note's own error if it is not sound."""
        frames = []
        for item in node.get("frames").items():
            content, blob = (number.integer() for number in _pair(item))
            frames.append(Frame(content, blob))
        packed = cls(Blob.read(node.get("content")), Blob.read(node.get("blob")), tuple(frames))
        packed.check(name=node.path, error=node.error)
        return packed

    def check(self, *, name: str, error: type[AirgapError]) -> None:
        """`error` unless the frames add up to both sizes and each fits into memory."""
        sums = (sum(frame.content for frame in self.frames), sum(frame.blob for frame in self.frames))
        if sums != (self.content.size, self.blob.size):
            raise error(
                f"{name}: its frames add up to {sums[0]} bytes of content and {sums[1]} of blob, "
                f"but it has {self.content.size} and {self.blob.size}"
            )
        for frame in self.frames:
            # zstd makes nothing larger than this of anything (ZSTD_COMPRESSBOUND), so nobody can make us read more either.
            if not (0 <= frame.content <= LARGEST_FRAME and 0 < frame.blob <= frame.content + (frame.content >> 8) + 1024):
                raise error(f"{name}: a frame of {frame.content} bytes in {frame.blob} is not one of ours")


def _pair(node: Node) -> tuple[Node, Node]:
    items = list(node.items())
    if len(items) != 2:
        node.fail("must be two numbers")
    return items[0], items[1]


# ---- making them -----------------------------------------------------------------------------------------------------


def compress(path: Path, store: Store, *, gzipped: bool, name: str) -> Packed:
    """Afterwards the store has the content of the file at `path` in frames; with `gzipped` the content is what gzip made it from.

    The same content gives the same blob under the same `RECIPE`. Raises FetchError, naming `name`, if the gzip is damaged or
    the disk is full. Memory: two frames and what they are compressed to.
    """
    try:
        with ExitStack() as stack:
            source: IO[bytes] = stack.enter_context(path.open("rb"))
            content = source
            if gzipped:
                spool = cast("IO[bytes]", tempfile.TemporaryFile(dir=store.partial))  # noqa: SIM115 - the stack closes it
                content = stack.enter_context(spool)
                _unpack(source, content, name=name)
            return _compress(content, store, key=f"frames-{path.name}")
    except OSError as cause:
        raise FetchError(
            f"{name}: cannot be compressed into {store.root}: {cause.strerror or cause}",
            hint="make room there, then run this again",
        ) from cause


def _unpack(source: IO[bytes], target: IO[bytes], *, name: str) -> None:
    size = 0
    for piece in gunzip(pieces_of(source), name=name, error=FetchError):
        size += len(piece)
        if size > LARGEST_CONTENT:
            raise FetchError(
                f"{name}: unpacks to more than {LARGEST_CONTENT >> 30} GiB", hint="this cannot be the file that was asked for"
            )
        target.write(piece)
    target.flush()


def _compress(content: IO[bytes], store: Store, *, key: str) -> Packed:
    size = content.seek(0, 2)
    cuts = _cuts(size)
    frames: list[Frame] = []
    with ExitStack() as stack:
        view = memoryview(b"")
        if size:
            mapped = stack.enter_context(mmap.mmap(content.fileno(), size, access=mmap.ACCESS_READ))
            view = stack.enter_context(memoryview(mapped))
        pool = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="zstd"))
        intake = stack.enter_context(store.intake(key))
        intake.restart()
        made = _window(pool, [partial(_frame, view, start, end) for start, end in cuts])
        for (start, end), data in zip(cuts, made, strict=True):
            intake.write(data)
            frames.append(Frame(end - start, len(data)))
        digest = pool.submit(_digest, view).result()
        blob = store.commit(intake, source=key)
    return Packed(Blob(digest, size), blob, tuple(frames))


def _digest(view: memoryview) -> Digest:
    return Digest(hashlib.sha256(view).hexdigest())


def _cuts(size: int) -> list[tuple[int, int]]:
    """Where the frames begin and end: equal ones, in whole MiB, by nothing but the size."""
    count = max(-(-size // LARGEST_FRAME), 2 if size >= SPLIT_FROM else 1)
    step = -(-size // (count * PIECE)) * PIECE or PIECE
    return [(start, min(start + step, size)) for start in range(0, size, step)] or [(0, 0)]


def _frame(view: memoryview, start: int, end: int) -> bytes:
    params = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=end - start, window_log=WINDOW, enable_ldm=True, ldm_min_match=32,
        write_content_size=True, write_checksum=False,
    )  # fmt: skip
    with view[start:end] as part:
        return zstandard.ZstdCompressor(compression_params=params).compress(part)


def _window(pool: ThreadPoolExecutor, jobs: Sequence[Callable[[], bytes]]) -> Iterator[bytes]:
    """The results in order; never more than two are being made or waited for."""
    waiting: deque[Future[bytes]] = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) == 2:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# ---- undoing them ----------------------------------------------------------------------------------------------------


def decompress(read: Read, packed: Packed, *, name: str) -> Iterator[bytes]:
    """The content in pieces of at most 1 MiB. DigestMismatch, naming `name`, before the last piece if it is not what was
    promised.

    Declared sizes are limits: nothing larger is ever made, whatever the blob claims.
    """
    packed.check(name=name, error=DigestMismatch)
    whole = hashlib.sha256()
    held = b""
    # One piece is held back, so that nobody ever has all of a content that is wrong.
    for piece in ahead(_content(read, packed, name=name)):
        whole.update(piece)
        if held:
            yield held
        held = piece
    found = Digest(whole.hexdigest())
    if found != packed.content.digest:
        raise DigestMismatch(
            f"{name}: unpacks to other bytes than were promised\n  expected {packed.content.digest}\n  found    {found}",
            hint="airgap verify says whether the bundle was damaged on its way; if not, pack it again",
        )
    if held:
        yield held


def _content(read: Read, packed: Packed, *, name: str) -> Iterator[bytes]:
    starts = []
    offset = 0
    for frame in packed.frames:
        starts.append((offset, frame))
        offset += frame.blob
    if 2 * max((frame.content for frame in packed.frames), default=0) > LARGEST_FRAME:
        for start, frame in starts:
            yield from _streamed(read, start, frame, name=name)
        return
    with ThreadPoolExecutor(2, thread_name_prefix="zstd") as pool:
        for data in _window(pool, [partial(_whole, read, start, frame, name=name) for start, frame in starts]):
            for position in range(0, len(data), PIECE):
                yield data[position : position + PIECE]


def _whole(read: Read, start: int, frame: Frame, *, name: str) -> bytes:
    data = read(start, frame.blob)
    _check_head(data[:32], frame, name=name)
    try:
        return _decompressor().decompress(data, max_output_size=frame.content, allow_extra_data=False)
    except zstandard.ZstdError as cause:
        raise _damaged(name, start, cause) from cause


def _streamed(read: Read, start: int, frame: Frame, *, name: str) -> Iterator[bytes]:
    source = _Part(read, start, frame.blob)
    _check_head(read(start, min(32, frame.blob)), frame, name=name)
    left = frame.content
    try:
        with _decompressor().stream_reader(cast("IO[bytes]", source), read_size=256 << 10) as reader:
            while left and (piece := reader.read(min(left, PIECE))):
                left -= len(piece)
                yield piece
            if left or reader.read(1) or source.left:
                raise _damaged(name, start, f"{left} bytes of content are missing, or there are too many")
    except zstandard.ZstdError as cause:
        raise _damaged(name, start, cause) from cause


def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=1 << WINDOW)


def _check_head(head: bytes, frame: Frame, *, name: str) -> None:
    """zstd makes room for what a frame's header claims, so the claim is held against the declared size first."""
    try:
        claimed = zstandard.get_frame_parameters(head).content_size
    except zstandard.ZstdError as cause:
        raise _damaged(name, 0, cause) from cause
    if claimed != frame.content:
        raise _damaged(name, 0, f"a frame claims {claimed} bytes, {frame.content} were declared")


def _damaged(name: str, start: int, why: object) -> DigestMismatch:
    return DigestMismatch(
        f"{name}: the zstd data at byte {start} is not what was packed: {why}", hint="airgap verify says what was damaged"
    )


class _Part:
    """A part of a blob as the file that zstandard wants."""

    def __init__(self, read: Read, start: int, size: int) -> None:
        self._read = read
        self._at = start
        self.left = size

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        size = self.left if size < 0 else min(size, self.left)
        data = self._read(self._at, size) if size else b""
        self._at += size
        self.left -= size
        return data


def expand(file: IO[bytes], *, name: str, error: type[AirgapError]) -> Iterator[bytes]:
    """The content of somebody else's zstd bytes (an image's layer), of any number of frames, in pieces of at most 1 MiB."""
    try:
        with _decompressor().stream_reader(file, read_across_frames=True, closefd=False) as reader:
            while piece := reader.read(PIECE):
                yield piece
    except zstandard.ZstdError as cause:
        raise error(f"{name}: the zstd data is damaged ({cause})") from cause
