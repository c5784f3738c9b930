"""Several things fetched at once: the first that fails stops the others, and it is the one that is told of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from airgap.online.web import Stopped, Web

T = TypeVar("T")

AT_ONCE: Final = 6


class Together:
    """Work begun and not waited for yet."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Of `pool`, whose owner ends it."""
        self._pool = pool
        self._begun: list[Future[Any]] = []

    def begin(self, calls: Iterable[Callable[[], T]]) -> list[Future[T]]:
        """Begin these calls; what they return can be had from the futures once `settle` has returned."""
        begun = [self._pool.submit(call) for call in calls]
        self._begun += begun
        return begun

    def settle(self) -> None:
        """Wait until everything begun is done. Raises the first failure as soon as there is one."""
        done, _ = wait(self._begun, return_when=FIRST_EXCEPTION)
        failures = [error for item in done if (error := item.exception())]
        # What was stopped because of a failure is not its reason.
        failures.sort(key=lambda error: isinstance(error, Stopped))
        if failures:
            raise failures[0]


@contextmanager
def together(web: Web) -> Iterator[Together]:
    """Settled when the block ends; when it ends by an exception (Ctrl-C, too), all downloads of `web` stop first."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
        work = Together(pool)
        try:
            yield work
            work.settle()
        except BaseException:
            web.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
