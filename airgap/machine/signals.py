"""Signals that end a run, made one thing: what Ctrl-C is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending() -> Iterator[None]:
    """SIGTERM and a lost terminal raise KeyboardInterrupt inside, once; more of them are ignored until the outside is reached.

    What follows the first is putting a host back, which only Ctrl-C may cut short.
    """

    def stop(number: int, frame: object) -> None:  # noqa: ARG001 - as signal has it
        for item in numbers:
            signal.signal(item, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {item: signal.signal(item, stop) for item in numbers}
    try:
        yield
    finally:
        for item, handler in before.items():
            signal.signal(item, handler)
