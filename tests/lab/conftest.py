"""The lab's tests run where the lab can: as root on Debian. Elsewhere they are skipped with the reason; CI fails instead."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lab.cache import why_not
from tests.lab.host import alone

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def lab_machine() -> Iterator[None]:
    """This process has the machine's kernel for its hosts."""
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the lab has to run on CI: {reason}")
        pytest.skip(reason)
    with alone():
        yield
