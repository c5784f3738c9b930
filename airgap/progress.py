"""How long work tells of itself without printing: a port that the console implements.

Algorithms take a `Progress` and never know who listens; `SILENT` listens to nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Gauge(Protocol):
    """One running amount of work; calls may come from several threads."""

    def advance(self, size: int) -> None:
        """`size` more bytes (or items) are done; negative when work begins again."""


class Progress(Protocol):
    """Where work reports to."""

    def gauge(self, what: str, total: int | None, unit: str = "B") -> AbstractContextManager[Gauge]:
        """A gauge named `what` over `total` bytes (None: not known), open while the context is."""

    def say(self, event: str, text: str, **facts: object) -> None:
        """One thing worth a line: `event` is a stable word for machines, `text` is for people."""


class _NoGauge:
    def advance(self, size: int) -> None:
        return


class _Silent:
    def gauge(self, what: str, total: int | None, unit: str = "B") -> AbstractContextManager[Gauge]:
        return nullcontext(_NoGauge())

    def say(self, event: str, text: str, **facts: object) -> None:
        return


SILENT: Progress = _Silent()
