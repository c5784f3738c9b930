"""What people and machines see: the only writer to stdout and stderr, and the only importer of tqdm.

For people, results go to stdout, everything on the way to stderr: bars on a terminal, plain lines elsewhere. With `--json`,
stdout gets one JSON object per event and line, the last of which has `"event": "result"` or `"error"`.
Nothing is printed that could drive a terminal: control characters are shown as escapes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from airgap.document import Json
from airgap.errors import AirgapError
from airgap.progress import Gauge

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 10.0
"""How often a plain line tells of a gauge where there is no terminal."""


def safe(text: str) -> str:
    """The text with everything that a terminal could obey shown as an escape; newlines and tabs stay."""
    return "".join(
        char if char in "\n\t" or (char.isprintable() and not 0xD800 <= ord(char) < 0xE000) else repr(char)[1:-1]
        for char in text
    )


def size_text(size: float) -> str:
    """Bytes for people: 1.4 GB, decimal as media and disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Columns as wide as they need; those in `right` are set to the right."""
    cells = [[safe(cell).replace("\n", " ") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(header))]
    lines = []
    for row in cells:
        parts = [cell.rjust(w) if n in right else cell.ljust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


class _Lines:
    """A gauge where there is no terminal: a line now and then."""

    def __init__(self, console: Console, what: str, total: int | None, unit: str) -> None:
        self._console, self._what, self._total, self._unit = console, what, total, unit
        self._done = 0
        self._lock = threading.Lock()
        self._start = self._last = console.clock()

    def advance(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = self._console.clock()
            if now - self._last < LINE_SECONDS:
                return
            self._last = now
        self._console.event("progress", self._text(now), what=self._what, done=self._done, total=self._total)

    def _text(self, now: float) -> str:
        show = size_text if self._unit == "B" else str
        text = f"{self._what}: {show(self._done)}"
        if self._total and self._done > 0:
            left = (now - self._start) * (self._total - self._done) / self._done
            text += f" of {show(self._total)}, {100 * self._done // self._total} %, about {left:.0f} s left"
        return text


class _Bar:
    """A gauge on a terminal."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar
        self._lock = threading.Lock()

    def advance(self, size: int) -> None:
        with self._lock:
            self._bar.update(size)


class Console:
    """One run's voice."""

    def __init__(
        self,
        *,
        out: TextIO,
        err: TextIO,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out, self.err = out, err
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.clock = clock
        self._lock = threading.RLock()

    @contextmanager
    def gauge(self, what: str, total: int | None, unit: str = "B") -> Iterator[Gauge]:
        """A bar on a terminal; a line every ten seconds elsewhere; nothing when quiet."""
        if self.as_json or self.quiet or not self.err.isatty():
            yield _Lines(self, what, total, unit)
            return
        from tqdm import tqdm  # 56 ms of import, which `--help` must not pay

        with tqdm(
            total=total, desc=safe(what), unit=unit, unit_scale=unit == "B", file=self.err, leave=False, dynamic_ncols=True
        ) as bar:
            yield _Bar(bar)

    def event(self, event: str, text: str, **facts: object) -> None:
        """One line on the way: JSON for machines, text for people unless quiet.

        A listener that went away must not end the work it listened to, least of all when a host is being put back.
        """
        with suppress(OSError):
            if self.as_json:
                self._json({"event": event, "text": text, **facts})
            elif not self.quiet:
                self._line(text)

    def say(self, event: str, text: str, **facts: object) -> None:
        """As `Progress` asks."""
        self.event(event, text, **facts)

    def result(self, verb: str, facts: Mapping[str, Json], text: str) -> None:
        """The last word: facts for machines, text for people, on stdout."""
        if self.as_json:
            self._json({"event": "result", "verb": verb, **facts})
        else:
            with self._lock:
                self.out.write(safe(text).rstrip("\n") + "\n")
                self.out.flush()

    def error(self, error: AirgapError) -> None:
        """The last word when it did not work."""
        if self.as_json:
            self._json({"event": "error", "code": error.exit_code, "text": error.message, "hint": error.hint})
        else:
            self._line(f"airgap: {error.message}")
            if error.hint:
                self._line(f"  -> {error.hint}")

    def _json(self, document: Mapping[str, object]) -> None:
        with self._lock:
            # ASCII only: a JSON line is as safe for a terminal as for a parser.
            self.out.write(json.dumps(document, default=str) + "\n")
            self.out.flush()

    def _line(self, text: str) -> None:
        with self._lock:
            if self.err.isatty():
                from tqdm import tqdm

                tqdm.write(safe(text), file=self.err)
            else:
                self.err.write(safe(text) + "\n")
                self.err.flush()
